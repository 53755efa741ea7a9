"""PCA, t-SNE and UMAP of feature vectors; maps of the same images aligned to each other."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor

from fulgurite.probes.counted import counted
from fulgurite.probes.moments import Moments

WARM_STEPS = 200  # of UMAP from an earlier map


def pca(codes: Float[Tensor, "n d"], dimensions: int = 2) -> Float[Tensor, "n p"]:
    """The codes along their principal axes, centred: `dimensions` of them, or as many as the codes have.

    The sign of an axis is chosen so that its largest entry is positive, so that pictures do not flip from
    epoch to epoch.

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
        name: the name of the features.
        dimensions: how many axes, or as many as there are features.

    Raises:
        ValueError: the pair is missing, or there are fewer than two images.
    """
    if (name, name) not in moments.pairs or moments.count < 2:
        raise ValueError(
            f"{counted(moments.count, 'image')} and the pairs {moments.pairs}; wanted at least 2, "
            f"and {(name, name)}"
        )
    variances, axes = torch.linalg.eigh(moments.covariance(name))
    axes, variances = axes.flip(1)[:, :dimensions], variances.flip(0)[:dimensions].clamp(min=0)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return PrincipalAxes(moments.mean(name), axes * largest.sign(), variances)


def tsne(
    codes: Float[Tensor, "n d"],
    *,
    perplexity: float = 30.0,
    steps: int | None = None,
    start: Float[Tensor, "n 2"] | None = None,
) -> Float[Tensor, "n 2"]:
    """Neighbours in code space as neighbours in the plane; distances between clusters mean little.

    The same at each call. On one thread: scikit-learn's is as fast as others up to some thousand points, and
    on several threads it may be many times slower than on one. Van der Maaten & Hinton 2008.

    Args:
        codes: one for each point.
        perplexity: about how many neighbours count; a third of the points, where these are fewer.
        steps: at least 250; without it 1000, more of few points, and 250 from a `start`.
        start: a map of the same images to begin with, such as that of the epoch before: points then move
            about as far as their codes have changed, and the map is `aligned` to it. The principal axes
            without it.

    Raises:
        ValueError: a code is not finite.
    """
    axes, flat = _axes(codes)
    if flat:
        return axes[:, :2]
    begun = _usable(start)
    if steps is None:
        # a map that still moves would go on from a start, without a change of codes
        steps = min(2000, max(1000, 200_000 // len(codes))) if begun is None else 250
    machine = TSNE(
        2,
        perplexity=min(perplexity, (len(codes) - 1) / 3),
        max_iter=max(250, steps),
        init="pca" if begun is None else begun,  # pyright: ignore[reportArgumentType]
        # early exaggeration lets clusters pass each other; here they have their places
        early_exaggeration=12.0 if begun is None else 1.0,
        random_state=0,
    )
    with threadpool_limits(1):
        places = torch.from_numpy(machine.fit_transform(axes.numpy())).float()
    return places if begun is None else aligned(places, torch.from_numpy(begun))


def umap(
    codes: Float[Tensor, "n d"],
    *,
    neighbours: int = 15,
    spread: float = 0.1,
    steps: int | None = None,
    start: Float[Tensor, "n 2"] | None = None,
) -> Float[Tensor, "n 2"]:
    """Neighbours in code space as neighbours in the plane, by UMAP: faster than t-SNE from some thousands on.

    The same at each call, on one thread. The first call takes ten seconds more, for compiling. McInnes, Healy
    & Melville 2018, arxiv.org/abs/1802.03426, by umap-learn.

    Args:
        codes: one for each point.
        neighbours: about how many count; all but the point itself, where these are fewer.
        spread: the least distance between points on the map, `min_dist`.
        steps: `n_epochs`; umap-learn's choice by the number of points without it.
        start: as for `tsne`.

    Raises:
        ValueError: a code is not finite, or umap-learn is not installed (pip install 'fulgurite[umap]').
    """
    check_umap()
    axes, flat = _axes(codes)
    if flat:
        return axes[:, :2]
    from umap import UMAP  # pyright: ignore[reportMissingImports] - an extra

    begun = _usable(start)
    # UMAP's spectral initialisation needs more points than a small sample has
    first = axes[:, :2].numpy() if begun is None else begun
    machine = UMAP(
        n_neighbors=min(neighbours, len(codes) - 1),
        min_dist=spread,
        n_epochs=steps if steps or begun is None else WARM_STEPS,
        # at the full learning rate, points that should stay move by a tenth of the map
        learning_rate=1.0 if begun is None else 0.1,
        init=first,
        random_state=0,
        n_jobs=1,
    )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba
        places = torch.from_numpy(machine.fit_transform(axes.numpy())).float()
    # umap-learn begins on a square of side 10 whatever the start's size
    return places if begun is None else aligned(places, torch.from_numpy(begun), scaled=True)


MapName = Literal["tsne", "umap"]
MAPS: dict[MapName, Callable[..., Tensor]] = {"tsne": tsne, "umap": umap}
"""What makes a map of codes, and takes `start`."""


def check_map(method: str) -> None:
    """Check that there is such a map.

    Raises:
        ValueError: there is none, or what it needs is not installed.
    """
    if method not in MAPS:
        raise ValueError(f"a map by {method!r}; wanted {' or '.join(MAPS)}")
    if method == "umap":
        check_umap()


def check_umap() -> None:
    """Check that umap-learn is installed.

    Raises:
        ValueError: it is not.
    """
    if find_spec("umap") is None:
        raise ValueError(
            "UMAP needs the package umap-learn, which is not installed; pip install 'fulgurite[umap]', or "
            "take tsne"
        )


def _axes(codes: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n p"], bool]:
    """The codes along their principal axes, of sizes up to 1; and whether there is too little to map."""
    axes = pca(codes, 50)
    axes = F.pad(axes, (0, max(0, 2 - axes.shape[1])))
    largest = float(axes.abs().amax()) if len(axes) else 0.0
    # what is left of equal codes is the rounding of their mean
    flat = len(codes) < 4 or largest <= 1e-9 * float(codes.abs().amax())
    return (axes, True) if flat else (axes / largest, False)


def _usable(start: Float[Tensor, "n 2"] | None) -> np.ndarray | None:
    """A map to begin with, if it is one."""
    if start is None or not bool(start.isfinite().all()) or float(start.std(0).amin()) <= 0:
        return None
    return start.float().numpy()


def aligned(
    points: Float[Tensor, "n 2"], others: Float[Tensor, "n 2"], *, scaled: bool = False
) -> Float[Tensor, "n 2"]:
    """The points, turned, mirrored and moved so that they lie nearest to others (Procrustes).

    Only with `scaled` are they enlarged or shrunk as well.
    """
    own, theirs = points.double() - points.double().mean(0), others.double()
    middle = theirs.mean(0)
    left, sizes, right = torch.linalg.svd(own.T @ (theirs - middle))
    scale = sizes.sum() / own.square().sum().clamp(min=1e-300) if scaled else 1.0
    return (scale * own @ left @ right + middle).to(points)
