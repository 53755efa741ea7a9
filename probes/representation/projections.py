"""PCA and t-SNE of feature vectors."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.manifold import TSNE
from torch import Tensor


def pca(codes: Float[Tensor, "n d"], dimensions: int = 2) -> Float[Tensor, "n p"]:
    """The codes along their principal axes, centred: `dimensions` of them, or as many as the codes have.

    The sign of an axis is chosen so that its largest entry is positive, so that pictures do not flip from
    epoch to epoch by the whim of the solver.

    Raises:
        ValueError: a code is not finite.
    """
    if wrong := int((~codes.isfinite()).any(1).sum()):
        raise ValueError(f"{wrong} of {len(codes)} codes hold values that are not finite")
    centred = codes.double() - codes.double().mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[: min(dimensions, *codes.shape)]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (centred @ (axes * largest.sign()).T).float()


def tsne(codes: Float[Tensor, "n d"], *, perplexity: float = 30.0, steps: int = 500) -> Float[Tensor, "n 2"]:
    """Neighbours in code space as neighbours in the plane; distances between clusters mean little.

    Starts from the principal axes, so that it is the same at each call. Van der Maaten & Hinton 2008.
    """
    start = pca(codes, 50)
    start = F.pad(start, (0, max(0, 2 - start.shape[1])))
    largest = float(start.abs().amax()) if len(start) else 0.0
    # what is left of equal codes is the rounding of their mean
    if len(codes) < 4 or largest <= 1e-9 * float(codes.abs().amax()):
        return start[:, :2]
    machine = TSNE(
        2,
        perplexity=min(perplexity, (len(codes) - 1) / 3),
        max_iter=max(250, steps),
        init="pca",
        random_state=0,
    )
    return torch.from_numpy(machine.fit_transform((start / largest).numpy())).float()
