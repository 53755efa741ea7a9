"""Object segmentation by GrabCut, seeded from a saliency map."""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

_SIDE = 256  # longest side to cut at, in pixels
_GREY = 1 / 255  # the finest difference that an image file holds
_STEPS = 1 << 20  # of the largest capacity: maximum_flow takes only integers of 32 bits, as indices too


def grabcut(
    images: Float[Tensor, "n c h w"],
    maps: Float[Tensor, "n 1 h w"],
    *,
    foreground: float = 0.95,
    background: float = 0.30,
    components: int = 5,
    rounds: int = 5,
    smoothness: float = 50.0,
    seed: int = 0,
) -> Bool[Tensor, "n 1 h w"]:
    """The object of each image, where its map is high, as one connected mask.

    Only positive evidence counts: what is negative in a map is 0. Pixels above its quantile `foreground`
    initialise the colour model of the object, those below `background` that of the background; then masks and
    colour models are updated in turn for at most `rounds`, and the largest part of the last mask is kept. No
    pixel is fixed to its seed, as maps are noisy: a mask is empty (or full) where colours hardly distinguish
    the two; less `smoothness`, the price of an edge, may find it then. Images of more than 256 pixels on a
    side are cut on a shrunken copy. Simonyan et al. 2014, arxiv.org/abs/1312.6034; Rother et al. 2004.

    Raises:
        ValueError: a map is not of its image's size, or the same everywhere, or anything is not finite.
    """
    _check(images, maps)
    if not 0 <= background <= foreground <= 1:
        raise ValueError(f"{background=}, {foreground=}; wanted quantiles in [0, 1], the foreground's above")
    if min(components, rounds) < 1 or smoothness < 0:
        raise ValueError(f"{components=}, {rounds=}, {smoothness=}; wanted at least 1, 1 and 0")
    size = images.shape[2:]
    small = [max(1, round(side * min(1, _SIDE / max(size)))) for side in size]
    pixels, marks = images.detach().cpu().double(), maps.detach().cpu().double().clamp(min=0)
    colours = F.interpolate(pixels, small, mode="area").movedim(1, 3).numpy()
    evidence = F.interpolate(marks, small, mode="area")[:, 0].numpy()
    masks = torch.zeros(len(images), 1, *size, dtype=torch.bool)
    for i, image in enumerate(colours):
        seeds = _seeds(evidence[i], foreground, background, f"map {i}")
        mask = torch.from_numpy(_cut(image, *seeds, components, rounds, smoothness, seed)).double()
        masks[i, 0] = _largest(F.interpolate(mask[None, None], size, mode="bilinear")[0, 0] >= 0.5)
    return masks.to(images.device)


def cut_out(
    images: Float[Tensor, "n c h w"], masks: Bool[Tensor, "n 1 h w"], *, background: float = 1.0
) -> Float[Tensor, "n c h w"]:
    """The images where their masks are, and plain `background` (white) elsewhere."""
    return torch.where(masks, images, background)


def _check(images: Tensor, maps: Tensor) -> None:
    if maps.shape != (wanted := (len(images), 1, *images.shape[2:])):
        raise ValueError(
            f"wanted maps of shape {wanted}, got {tuple(maps.shape)}; enlarge them, and join their channels"
        )
    for name, values in (("map", maps), ("image", images)):
        if wrong := (~values.isfinite().flatten(1).all(1)).nonzero().flatten().tolist():
            raise ValueError(f"wanted finite numbers, got others in {name} {', '.join(map(str, wrong))}")


def _seeds(
    evidence: Float[np.ndarray, "h w"], foreground: float, background: float, name: str
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    bottom, low, high, top = np.quantile(evidence, [0, background, foreground, 1])
    if bottom == top:
        raise ValueError(
            f"{name} marks no object: its positive part is {top:g} everywhere; wanted more on the object "
            "than elsewhere. If negative values mark it too, give the map's absolute values"
        )
    # the extremes belong to the seeds even where so many pixels share them that none lies beyond the quantile
    return (evidence > high) | (evidence == top), (evidence < low) | (evidence == bottom)


def _cut(
    image: Float[np.ndarray, "h w c"],
    foreground_seeds: Bool[np.ndarray, "h w"],
    background_seeds: Bool[np.ndarray, "h w"],
    components: int,
    rounds: int,
    smoothness: float,
    seed: int,
) -> Bool[np.ndarray, "h w"]:
    colours = image.reshape(-1, image.shape[2])
    ends, links = _neighbours(image)
    mask, inside, outside = foreground_seeds.ravel(), foreground_seeds.ravel(), background_seeds.ravel()
    for _ in range(rounds):
        figure, background = (_likelihood(colours, side, components, seed) for side in (inside, outside))
        mask = _cheapest(figure - background, ends, smoothness * links, 8 * smoothness + 1)
        settled = np.array_equal([mask, ~mask], [inside, outside])
        if settled or mask.all() or not mask.any():
            break
        inside, outside = mask, ~mask
    return mask.reshape(foreground_seeds.shape)


def _likelihood(
    colours: Float[np.ndarray, "p c"], chosen: Bool[np.ndarray, "p"], components: int, seed: int
) -> Float[np.ndarray, "p"]:
    sample = colours[chosen]
    kinds = len(np.unique(sample, axis=0))
    mixture = GaussianMixture(min(components, kinds), reg_covar=_GREY**2, max_iter=20, random_state=seed)
    with warnings.catch_warnings():
        # the next round fits again
        warnings.simplefilter("ignore", ConvergenceWarning)
        # scikit-learn fits no single sample
        mixture.fit(sample if len(sample) > 1 else sample.repeat(2, 0))
    return mixture.score_samples(colours)


def _neighbours(image: Float[np.ndarray, "h w c"]) -> tuple[Int[np.ndarray, "2 e"], Float[np.ndarray, "e"]]:
    place = np.arange(image.shape[0] * image.shape[1], dtype=np.int32).reshape(image.shape[:2])
    straight = [(place[:, :-1], place[:, 1:]), (place[:-1], place[1:])]
    diagonal = [(place[:-1, :-1], place[1:, 1:]), (place[:-1, 1:], place[1:, :-1])]
    ends = np.concatenate([np.stack([a.ravel(), b.ravel()]) for a, b in straight + diagonal], 1)
    lengths = np.full(ends.shape[1], 2**0.5)
    lengths[: sum(a.size for a, _ in straight)] = 1
    colours = image.reshape(-1, image.shape[2])
    contrast = np.square(colours[ends[0]] - colours[ends[1]]).sum(1)
    typical = contrast.mean() or 1.0
    return ends, np.exp(-contrast / (2 * typical)) / lengths


def _cheapest(
    evidence: Float[np.ndarray, "p"],
    ends: Int[np.ndarray, "2 e"],
    links: Float[np.ndarray, "e"],
    enough: float,
) -> Bool[np.ndarray, "p"]:
    pixels = np.arange(len(evidence), dtype=np.int32)
    source, sink = len(evidence), len(evidence) + 1
    # what outweighs all links of a pixel decides it: more would change nothing
    evidence = evidence.clip(-enough, enough)
    strengths = np.concatenate([links, links, evidence.clip(0), (-evidence).clip(0)])
    starts = np.concatenate([*ends, np.full_like(pixels, source), pixels])
    stops = np.concatenate([*ends[::-1], pixels, np.full_like(pixels, sink)])
    capacities = np.rint(strengths * (_STEPS / enough)).astype(np.int32)
    graph = coo_array((capacities, (starts, stops)), shape=(sink + 1, sink + 1)).tocsr()
    left = graph - maximum_flow(graph, source, sink, method="dinic").flow
    left.eliminate_zeros()
    mask = np.zeros(sink + 1, bool)
    mask[breadth_first_order(left, source, return_predecessors=False)] = True
    return mask[: len(evidence)]


def _largest(mask: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    parts = np.zeros(mask.shape, np.int32)
    label(mask.numpy(), np.ones((3, 3)), parts)
    sizes = np.bincount(parts.ravel())[1:]
    return torch.from_numpy(parts == 1 + sizes.argmax()) if len(sizes) else mask
