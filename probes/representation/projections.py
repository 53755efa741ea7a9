"""PCA and t-SNE of feature vectors; maps of the same images aligned to each other."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor

from fulgurite.probes.moments import Moments


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


class PrincipalAxes(NamedTuple):
    """Principal axes of features, from sums over a stream of images.

    Args:
        mean: of the features.
        axes: of length 1, in columns, the one along which features vary most first.
        variances: of the features along each, divided by the number of images.
    """

    mean: Float[Tensor, "d"]
    axes: Float[Tensor, "d p"]
    variances: Float[Tensor, "p"]

    def project(self, codes: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """The codes along the axes, centred."""
        return ((codes.to(self.mean) - self.mean) @ self.axes).float()


def principal_axes(moments: Moments, name: str, dimensions: int = 2) -> PrincipalAxes:
    """Exact PCA of features of any number of images, none of which is kept, from shares that merge.

    Args:
        moments: of at least two images, with the pair (name, name).
        name: what the features were called.
        dimensions: how many axes, or as many as there are features.

    Raises:
        ValueError: the pair is missing, or there are fewer than two images.
    """
    if (name, name) not in moments.pairs or moments.count < 2:
        raise ValueError(
            f"{moments.count} images and the pairs {moments.pairs}; wanted at least 2, and {(name, name)}"
        )
    variances, axes = torch.linalg.eigh(moments.covariance(name))
    axes, variances = axes.flip(1)[:, :dimensions], variances.flip(0)[:dimensions].clamp(min=0)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return PrincipalAxes(moments.mean(name), axes * largest.sign(), variances)


def tsne(
    codes: Float[Tensor, "n d"],
    *,
    perplexity: float = 30.0,
    steps: int = 500,
    start: Float[Tensor, "n 2"] | None = None,
) -> Float[Tensor, "n 2"]:
    """Neighbours in code space as neighbours in the plane; distances between clusters mean little.

    The same at each call. On one thread: scikit-learn's is as fast as others up to some thousand points, and
    on several threads it may be many times slower than on one. Van der Maaten & Hinton 2008.

    Args:
        codes: one for each point.
        perplexity: about how many neighbours count; a third of the points, where these are fewer.
        steps: at least 250.
        start: a map of the same images to begin with, such as that of the epoch before: points then move as
            far as their codes have changed, and the map is `aligned` to it. The principal axes without it.

    Raises:
        ValueError: a code is not finite.
    """
    axes = pca(codes, 50)
    axes = F.pad(axes, (0, max(0, 2 - axes.shape[1])))
    largest = float(axes.abs().amax()) if len(axes) else 0.0
    # what is left of equal codes is the rounding of their mean
    if len(codes) < 4 or largest <= 1e-9 * float(codes.abs().amax()):
        return axes[:, :2]
    warm = start is not None and bool(start.isfinite().all()) and float(start.std(0).amin()) > 0
    machine = TSNE(
        2,
        perplexity=min(perplexity, (len(codes) - 1) / 3),
        max_iter=max(250, steps),
        init=start.float().numpy() if start is not None and warm else "pca",  # pyright: ignore[reportArgumentType]
        # to exaggerate draws clusters together, so that they can pass each other; here they have their places
        early_exaggeration=1.0 if warm else 12.0,
        random_state=0,
    )
    with threadpool_limits(1):
        places = torch.from_numpy(machine.fit_transform((axes / largest).numpy())).float()
    return aligned(places, start) if start is not None and warm else places


def aligned(points: Float[Tensor, "n 2"], others: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """The points, turned, mirrored and moved so that they lie nearest to others (Procrustes), not scaled."""
    own, theirs = points.double(), others.double()
    middle = theirs.mean(0)
    left, _, right = torch.linalg.svd((own - own.mean(0)).T @ (theirs - middle))
    return ((own - own.mean(0)) @ left @ right + middle).to(points)
