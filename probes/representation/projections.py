"""Codes laid out in the plane."""

import torch
from jaxtyping import Float
from sklearn.manifold import TSNE
from torch import Tensor


def pca(codes: Float[Tensor, "n d"], dimensions: int = 2) -> Float[Tensor, "n p"]:
    """The codes along their principal axes, centred, at most `dimensions` of them and as many as the codes have.

    The sign of an axis is chosen so that its largest entry is positive, so that pictures do not flip from epoch to
    epoch by the whim of the solver.
    """
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
    if len(codes) < 4 or float(start.std()) < 1e-9:
        return torch.nn.functional.pad(start[:, :2], (0, 2 - start[:, :2].shape[1]))
    machine = TSNE(
        2,
        perplexity=min(perplexity, (len(codes) - 1) / 3),
        max_iter=max(250, steps),
        init="pca",
        random_state=0,
    )
    return torch.from_numpy(machine.fit_transform(start.numpy())).float()
