"""Concepts of a class: non-negative factors of a layer's features of its images (CRAFT, Fel 2023)."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from fulgurite.probes.attribution.activation_gradients import activation_graph
from fulgurite.probes.batches import Batches, batch_size
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.objectives import Objective, class_score
from fulgurite.probes.record import bare
from fulgurite.probes.stream import stream

OVERLAP = 0.2  # of neighbouring crops, at least, as in the paper
ITERATIONS = 400
LEAST_CROP = 0.02  # of the side: some thousand crops of an image
POSITIONS = 10_000
"""Features that are factorised, at most: this many, spread evenly, take some seconds."""


@dataclass(frozen=True)
class Concepts:
    """Concepts of a class, the most important first.

    Args:
        layer: the layer whose features are factorised.
        directions: each concept in the space of the layer's channels, of length 1.
        boxes: the crops, m of them: the number of the image, then top, left, bottom and right.
        in_crops: how much of each concept is in each crop, averaged over positions; at least 0.
        maps: how much of each concept is at each position of the layer's maps of an image, at least 0.
        contributions: what each concept adds to the class score of each image.
        scores: the class score of each image.
        error: how much of the features the concepts leave out: the length of the rest over that of the
            features, from 0 to 1.
    """

    layer: str
    directions: Float[Tensor, "k d"]
    boxes: Int[Tensor, "m 5"]
    in_crops: Float[Tensor, "m k"]
    maps: Float[Tensor, "n k h w"]
    contributions: Float[Tensor, "n k"]
    scores: Float[Tensor, "n"]
    error: float

    @property
    def importance(self) -> Float[Tensor, "k"]:
        """What each concept adds to the class score, averaged over the images."""
        return self.contributions.mean(0)


def concepts(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    target: int,
    layer: str | None = None,
    *,
    count: int = 6,
    crop: float = 0.35,
    score_layer: str = "",
    seed: int = 0,
) -> Concepts:
    """Concepts in the features of a class, where they are in images, and what they add to the class score.

    The features of a layer at the positions of its maps are factorised into non-negative amounts of `count`
    directions (NMF). Of a layer that outputs values below 0, the parts above and below 0 are factorised side
    by side. The paper factorises features of crops that are resized to the size of an image and averaged over
    positions; directions found that way explain little of the features of whole images, and little of the
    score. Here, crops of an image are windows of its maps.

    A concept adds to the score of an image: its amount at a position, times the gradient of the score along
    its direction, summed over positions. Where what follows the layer is linear (averaging and a linear
    layer), these numbers add up to the score, but for the bias and what the concepts leave out, and their
    squares are in proportion to the total Sobol indices of the paper, at the cost of one backward pass
    instead of hundreds of passes. Fel et al. 2023, arxiv.org/abs/2211.10154.

    Args:
        network: maps images in [0, 1] to logits; in eval mode, and unchanged after it.
        images: of the class, or what the network classifies as it.
        target: the number of the class.
        layer: by path; the last one with maps without it.
        count: how many concepts.
        crop: the side of a crop, as a share of the image's: 0.02 to 1.
        score_layer: where scores are read, if not at the output: see `class_score`.
        seed: of the factorisation.

    Raises:
        ValueError: no images, no such layer or class, a layer without spatial extent, fewer positions or
            channels than concepts, or features that are 0 or not finite.
    """
    if not len(images) or count < 1 or not LEAST_CROP <= crop <= 1:
        raise ValueError(
            f"{counted(count, 'concept')} of {counted(len(images), 'image')}, in crops of {crop} of their "
            f"side; wanted at least 1 of each, and crops of {LEAST_CROP} to 1"
        )
    if not isinstance(target, int):
        raise TypeError(
            f"target is {target!r}; wanted the number of a class: its score is what concepts add to"
        )
    objective = class_score(target, layer=score_layer)
    with activation_graph(network, images[:1], objective, layer) as graph:
        layer = graph.layer  # the same for all batches
    features = _features(network, images, objective, layer)
    if min(features.shape) < count:
        raise ValueError(
            f"{counted(count, 'concept')} of {counted(len(features), 'position')} and "
            f"{counted(features.shape[1], 'channel')} of layer {layer!r}; wanted no more than either: more "
            "images, or fewer concepts"
        )
    factors = _Factors(features, count, seed)
    left_out = float((features - factors.amounts(features) @ factors.directions).norm() / features.norm())
    parts = _in_images(network, images, objective, layer, factors)
    maps, contributions = (torch.cat(part) for part in zip(*parts, strict=True))
    scores = [values.cpu() for _, values in stream(network, images, objective)]
    order = contributions.mean(0).argsort(descending=True, stable=True)
    maps, boxes = maps[:, order], crop_boxes(len(images), images.shape[2], images.shape[3], crop)
    return Concepts(
        layer=layer,
        directions=factors.directions[order],
        boxes=boxes,
        in_crops=_in_crops(maps, boxes, images.shape[2:]),
        maps=maps,
        contributions=contributions[:, order],
        scores=torch.cat(scores),
        error=left_out,
    )


def crop_boxes(images: int, height: int, width: int, crop: float) -> Int[Tensor, "m 5"]:
    """Crops of images on a grid from border to border: image, top, left, bottom, right.

    Neighbours overlap by a fifth at least, but for crops of a few pixels; no two are the same.
    """
    steps = 1 if crop == 1 else 1 + math.ceil((1 - crop) / (crop * (1 - OVERLAP)) - 1e-9)
    high, wide = max(1, round(crop * height)), max(1, round(crop * width))
    tops, lefts = (
        sorted({round(step * rest / max(1, steps - 1)) for step in range(steps)})
        for rest in (height - high, width - wide)
    )
    places = [(top, left) for top in tops for left in lefts]
    return torch.tensor(
        [(image, top, left, top + high, left + wide) for image in range(images) for top, left in places]
    )


def strongest_crops(found: Concepts, concept: int, most: int) -> list[int]:
    """The crops with most of a concept, strongest first, from as many different images as possible."""
    order = found.in_crops[:, concept].argsort(descending=True, stable=True).tolist()
    image = found.boxes[:, 0].tolist()
    first = {image[place]: place for place in reversed(order)}  # the strongest of each image
    chosen = [place for place in order if first[image[place]] == place][:most]
    chosen += [place for place in order if place not in chosen][: most - len(chosen)]
    return sorted(chosen, key=order.index)


def _features(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objective, layer: str
) -> Float[Tensor, "m d"]:
    """A layer's features at positions of its maps, spread evenly, on the CPU."""
    each, found = max(1, POSITIONS // len(images)), list[Tensor]()
    for values, _ in _maps(network, images, objective, layer):
        flat = values.flatten(2)
        step = -(-flat.shape[2] // each)
        found.append(flat[:, :, step // 2 :: step].movedim(1, -1).flatten(0, 1))
    features = torch.cat(found)
    if not bool(features.isfinite().all()) or not bool(features.any()):
        what = "0 everywhere" if bool(features.isfinite().all()) else "not finite"
        raise ValueError(f"features of layer {layer!r} that are {what}")
    return features


def _in_images(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective,
    layer: str,
    factors: "_Factors",
) -> Iterator[tuple[Float[Tensor, "b k _ _"], Float[Tensor, "b k"]]]:
    """Of each image: the amounts at each position, and what they add to the score."""
    for values, slopes in _maps(network, images, objective, layer):
        amounts = factors.amounts(values.movedim(1, -1).flatten(0, 2))
        amounts = amounts.unflatten(0, values[:, 0].shape).movedim(-1, 1)
        along = torch.einsum("kc,bchw->bkhw", factors.directions, slopes)
        yield amounts, (amounts * along).sum((2, 3))


def _maps(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objective, layer: str
) -> Iterator[tuple[Float[Tensor, "b d _ _"], Float[Tensor, "b d _ _"]]]:
    """The layer's maps, and the gradients of the score by them, batch by batch, on the CPU."""
    device = device_of(bare(network))

    def run(rows: slice) -> tuple[Tensor, Tensor]:
        with activation_graph(network, images[rows].to(device), objective, layer) as graph:
            (slopes,) = torch.autograd.grad(graph.scores[0], graph.leaf)
            values, slopes = (graph.to_maps(part).detach().float().cpu() for part in (graph.leaf, slopes))
        return values, slopes

    for _, found in Batches(batch_size(images, device)).over(len(images), run):
        yield found


def _in_crops(
    maps: Float[Tensor, "n k h w"], boxes: Int[Tensor, "m 5"], size: torch.Size
) -> Float[Tensor, "m k"]:
    """The amounts in crops of images, averaged over the positions whose middles lie in them."""
    amounts = list[Tensor]()
    for image, *edges in boxes.tolist():
        top, left, bottom, right = (
            round(edge * cells / side)
            for edge, cells, side in zip(edges, [*maps.shape[2:]] * 2, [*size] * 2, strict=True)
        )
        top, left = min(top, maps.shape[2] - 1), min(left, maps.shape[3] - 1)
        amounts.append(maps[image, :, top : max(bottom, top + 1), left : max(right, left + 1)].mean((1, 2)))
    return torch.stack(amounts)


class _Factors:
    """Non-negative factors of features: directions of length 1, and non-negative amounts of them."""

    def __init__(self, features: Float[Tensor, "m d"], count: int, seed: int):
        options: dict[str, Any] = {"n_components": count, "init": "nndsvda", "random_state": seed}
        options["max_iter"] = ITERATIONS
        self.signed = bool((features < 0).any())
        self.nmf: Any = NMF(**options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.nmf.fit(self._split(features))
        bank = torch.from_numpy(self.nmf.components_).float()
        bank = bank[:, : features.shape[1]] - bank[:, features.shape[1] :] if self.signed else bank
        self.lengths = bank.norm(dim=1)
        self.directions = bank / self.lengths.clamp(min=torch.finfo(torch.float32).tiny)[:, None]

    def amounts(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        """The amount of each direction in the features."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = self.nmf.transform(self._split(features))
        return torch.from_numpy(found).float() * self.lengths

    def _split(self, features: Float[Tensor, "m d"]) -> np.ndarray:
        parts = [features, -features] if self.signed else [features]
        return torch.cat(parts, 1).clamp(min=0).numpy()
