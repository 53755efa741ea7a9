"""LIME for images: a linear model over superpixels (Ribeiro et al. 2016)."""

import torch
from jaxtyping import Bool, Float, Int
from skimage.segmentation import slic
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.attribution.perturbations import Fill, filling, scoring
from fulgurite.probes.counter_random import uniform
from fulgurite.probes.objectives import Objectives, as_list, squeeze_single


def superpixels(
    images: Float[Tensor, "n c h w"], *, count: int = 50, compactness: float = 10.0
) -> Int[Tensor, "n h w"]:
    """Each image in about `count` regions of similar colour, numbered from 0 without gaps.

    SLIC, Achanta et al. 2012: the higher `compactness`, the squarer. There may be fewer: half as many where
    much is plain, only one where all is noise.
    """
    if count < 2 or compactness <= 0:
        raise ValueError(
            f"{count} superpixels of compactness {compactness}; wanted at least two, of compactness above 0"
        )
    if images.shape[1] != 3:
        compactness /= 100  # greys are compared in [0, 1], colours in Lab, whose lightness ends at 100
    labels = images.new_zeros(len(images), *images.shape[2:], dtype=torch.long)
    for mine, image in zip(labels, images.detach().cpu().double(), strict=True):
        found = slic(image.movedim(0, 2).numpy(), count, compactness, channel_axis=-1, start_label=0)
        mine.copy_(_numbered(torch.from_numpy(found)))
    return labels


def lime(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    *,
    segments: int | Int[Tensor, "n h w"] = 50,
    samples: int = 1000,
    width: float = 0.25,
    strength: float = 1.0,
    fill: Fill = "grey",
    seed: int = 0,
    progress: str | None = None,
) -> Float[Tensor, "*k n 1 h w"]:
    """How much the objective rises when a region is visible, by a linear model of the regions, signed.

    The model is fitted to random sets of regions, each visible with probability 1/2; a set with more visible
    regions has more weight. Ribeiro et al. 2016, arxiv.org/abs/1602.04938. Costs a forward pass for each
    sample.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        objective: a number per image, or several objectives.
        segments: how many superpixels to look for, or the number of each pixel's region.
        samples: how many sets, the first of all regions; many more than there are regions.
        width: the width of the kernel that weights a set by its cosine distance from the whole image.
        strength: of the ridge regression: the values shrink by about `8 * strength / samples`.
        fill: what replaces a hidden region: "grey", the image's "mean" colour, its own "blur", or a level.
        seed: draws the sets.
        progress: a label for a progress bar.
    """
    _check(images, segments, samples, width, strength)
    images = checked(images)
    regions = superpixels(images, count=segments) if isinstance(segments, int) else segments.to(images.device)
    regions = [_numbered(each) for each in regions]
    hidden = filling(images, fill)
    sets = [_sets(int(each.max()) + 1, samples, seed).to(images.device) for each in regions]
    with scoring(network, objective, images, copies=samples) as score, torch.no_grad():
        values = images.new_zeros(len(as_list(objective)), len(images), samples)
        every = pad_sequence([each.T for each in sets], batch_first=True) if sets else images.new_zeros(0)
        labels = torch.stack(regions) if regions else images.new_zeros(0)
        for rows, places, *_ in score.parts(samples, progress=progress):
            visible = every[rows, :, places].gather(1, labels[rows].flatten(1)).view(-1, 1, *images.shape[2:])
            values[:, rows, places] = score(torch.where(visible, images[rows], hidden[rows]), rows)
        maps = images.new_zeros(*values.shape[:2], 1, *images.shape[2:])
        for place, (region, visible) in enumerate(zip(regions, sets, strict=True)):
            maps[:, place, 0] = _weights(visible, values[:, place], width, strength).to(maps)[:, region]
    return squeeze_single(maps, objective)


def strongest_regions(
    segments: Int[Tensor, "n h w"], maps: Float[Tensor, "n 1 h w"], *, count: int = 5
) -> Bool[Tensor, "n 1 h w"]:
    """Where the `count` regions are that support the prediction most: largest on the map, and above 0."""
    if count < 1:
        raise ValueError(f"count={count}; wanted at least one region")
    masks = torch.zeros_like(maps, dtype=torch.bool, device="cpu")
    for mask, region, values in zip(masks, map(_numbered, segments.cpu()), maps.cpu().double(), strict=True):
        means = torch.bincount(region.flatten(), values.flatten()) / torch.bincount(region.flatten())
        best = means.topk(min(count, len(means)))
        mask[0] = torch.isin(region, best.indices[best.values > 0])
    return masks.to(maps.device)


def _check(images: Tensor, segments: int | Tensor, samples: int, width: float, strength: float) -> None:
    if samples < 2 or width <= 0 or strength < 0:
        raise ValueError(
            f"samples={samples}, width={width}, strength={strength}; wanted at least two samples, a width "
            "above 0, and no negative strength"
        )
    wanted = (len(images), *images.shape[2:])
    if not isinstance(segments, int) and segments.shape != wanted:
        raise ValueError(f"wanted a region for each pixel, {wanted}, got {tuple(segments.shape)}")


def _numbered(labels: Int[Tensor, "h w"]) -> Int[Tensor, "h w"]:
    return labels.unique(return_inverse=True)[1]


def _sets(regions: int, samples: int, seed: int) -> Bool[Tensor, "samples regions"]:
    visible = uniform(seed, torch.arange(samples), regions) < 0.5
    visible[0] = True
    return visible


def _weights(
    visible: Bool[Tensor, "samples regions"],
    values: Float[Tensor, "k samples"],
    width: float,
    strength: float,
) -> Float[Tensor, "k regions"]:
    """The linear model's, NaN for an objective that was not a number once."""
    sets, answers = visible.cpu().double(), values.cpu().double()
    # to the set of all, which is of ones, the cosine is the root of the visible share
    proximity = torch.exp(-(1 - sets.mean(1).sqrt()).square() / (2 * width**2))
    # lsqr: without strength and with few samples, other solvers meet a singular matrix
    model = Ridge(alpha=strength, solver="lsqr", tol=1e-10)
    model.fit(sets.numpy(), answers.nan_to_num(0, 0, 0).T.numpy(), sample_weight=proximity.numpy())
    weights = torch.from_numpy(model.coef_).view(len(values), -1)
    weights[~answers.isfinite().all(1)] = torch.nan
    return weights
