"""DeepDream: photographs changed to excite a layer, from coarse structures to fine ones."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.batches import ran_out_of_memory
from fulgurite.probes.feature_extractor import feature_extractor, outputs
from fulgurite.probes.feature_objectives import energy, nearest_features
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.objectives import Objective
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels, resized
from fulgurite.probes.synthesis.gradients import tiled, whole
from fulgurite.probes.synthesis.optimizers import sgd, unit_mean
from fulgurite.probes.synthesis.transforms import jitter
from fulgurite.probes.synthesis.watch import Watch

SMALLEST = 16  # side of the coarsest octave, in pixels
SMALLEST_TILE = 64


def deep_dream(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective | str,
    *,
    octaves: int = 4,
    scale: float = 1.4,
    steps: int = 10,
    lr: float = 1.5 / 255,
    roll: int = 32,
    tile: int | None = None,
    seed: int = 0,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Photographs in which a layer's energy, or any other objective, is larger: DeepDream.

    The images are dreamed at several sizes, from small to large. What was added at one size is carried to the
    next, so that coarse structures are there before fine ones. A step adds the gradient over its mean
    absolute value, after a random shift of the image, so that no grid of the network's strides shows. The
    defaults are those of the notebook of Mordvintsev, Olah & Tyka 2015 (its step of 1.5 is in 255ths).

    Args:
        network: maps images in [0, 1] to logits.
        images: the photographs, of any size that the layer takes.
        objective: what to make large; the path of a layer asks for its `energy`.
        octaves: how many sizes; those smaller than 16 px on a side, or than the layer takes, are left out.
        scale: between one size and the next.
        steps: at each size.
        lr: mean absolute change of a pixel at each step.
        roll: by how many pixels images are shifted at most, never by more than an eighth of their side.
        tile: side of the tiles, in pixels, in which the gradient of large images is computed, so that memory
            does not grow with the photograph; whole images without it, and tiles where memory runs out.
        seed: of the shifts and tiles.
        precise: compute in float64, see `ascend`.
        watch: of each size; one that is interrupted ends the dream with what it has reached.

    Raises:
        ValueError: no octaves, a scale below 1, an `lr` that is not positive, images or tiles that are too
            small for the layer, or the objective does not fit the network.
    """
    if octaves < 1 or scale < 1 or roll < 0 or lr <= 0:
        raise ValueError(
            f"octaves={octaves}, scale={scale:g}, roll={roll}, lr={lr:g}; wanted at least one octave, "
            "a scale of at least 1, no negative roll, and a positive lr"
        )
    if isinstance(objective, str):
        objective = energy(objective)
    sizes = _sizes(images.shape[2], images.shape[3], octaves, scale)
    sizes = _taken(network, images, objective, sizes, tile)
    watch = watch or Watch()
    dreamed, detail = images, torch.zeros_like(resized(images, sizes[0]))
    for number, size in enumerate(sizes):
        octave = resized(images, size)
        dreamed = (octave + resized(detail, size)).clamp(0, 1)
        if not watch.interrupted:
            dream = partial(
                ascend,
                network,
                objective,
                Pixels(dreamed),
                steps=steps,
                by=sgd(lr, normalise=unit_mean),
                transform=jitter(min(roll, *(side // 8 for side in size))),
                seed=seed + number,
                precise=precise,
                watch=watch,
            )
            dreamed, tile = _in_memory(dream, tile, max(size))
        detail = dreamed - octave
    return dreamed


def guided_by(network: nn.Module, guide: Float[Tensor, "1 c h w"], layer: str) -> Objective:
    """An objective for `deep_dream`: each position moves towards the most similar features of a second image.

    Raises:
        ValueError: the layer has no positions, or there is no such layer.
    """
    return nearest_features(layer, outputs(network, guide, [layer])[layer][0])


def _in_memory(dream: Callable[..., Tensor], tile: int | None, longest: int) -> tuple[Tensor, int | None]:
    """The result of `dream(gradient=...)`, with smaller tiles where memory runs out, and the tile size."""
    while True:
        try:
            return dream(gradient=whole if tile is None else tiled(tile)), tile
        except RuntimeError as error:
            smaller = min(tile or longest, longest) // 2
            if not ran_out_of_memory(error) or smaller < SMALLEST_TILE:
                raise
        # not among the above: the error holds on to what the failed pass has made
        tile = smaller
        warnings.warn(f"out of memory; going on in tiles of {tile} px", RuntimeWarning, stacklevel=3)


def _taken(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective,
    sizes: list[list[int]],
    tile: int | None,
) -> list[list[int]]:
    """The sizes at which the network reaches the layer of the objective; the last must be one of them.

    Raises:
        ValueError: the images, or the tiles, are too small.
    """
    kept = list[list[int]]()
    with frozen_eval(network) as net, feature_extractor(net, objective.layers) as extract, torch.no_grad():
        for size in sizes:
            shown = [min(side, tile or side) for side in size]
            try:
                extract(resized(images[:1], size)[:, :, : shown[0], : shown[1]].to(device_of(net)))
            except RuntimeError as error:
                if ran_out_of_memory(error):
                    kept.append(size)  # tiles may do
                elif size is sizes[-1]:
                    what = "images" if shown == size else "tiles"
                    raise ValueError(
                        f"{what} of {shown[0]} x {shown[1]} pixels are too small for {objective.name}; "
                        f"wanted larger {what}, or an earlier layer"
                    ) from error
            else:
                kept.append(size)
    return kept


def _sizes(height: int, width: int, octaves: int, scale: float) -> list[list[int]]:
    """Of the octaves, from the smallest to the full size."""
    found = [[round(side / scale**k) for side in (height, width)] for k in reversed(range(octaves))]
    return [size for size in found[:-1] if min(size) >= SMALLEST] + [[height, width]]
