"""Images for commands that synthesise images: files, or a run's own, and their background."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from fulgurite.cli.inputs import images_of
from fulgurite.cli.network_of_run import is_run
from fulgurite.probes.synthesis.canvas import resized

PLAIN = 0.25
"""The part of all pixels that have one colour, from which on images have a plain background."""
COUNT = 200
"""Of a run's own."""


def images_or_own(
    args: argparse.Namespace, files: Sequence[Path], size: int, channels: int
) -> tuple[list[str], Float[Tensor, "n c h w"]]:
    """The labels and images of the files; without any, some test images of the run that `args.network` is.

    There are no images for a network that is no run, nor for a run whose data are missing, with a note. Those
    of a run have no labels.
    """
    if files:
        labels, images = images_of(files, args, size, channels)
        return list(labels), images.to(args.device)
    if is_run(args.network):
        from fulgurite.cli.loaded_run import load_run  # training and its libraries are needed here only

        try:
            images = load_run(args.network, args.device).test_images(COUNT).images
            return [], resized(images.to(args.device), (size, size)).clamp(0, 1)
        except (ValueError, OSError) as error:
            print(f"note: none of the run's own images: {error}", file=sys.stderr)
    return [], torch.empty(0, channels, size, size, device=args.device)


def background_of(images: Float[Tensor, "n c h w"]) -> list[float]:
    """What an empty image is like, per channel: the median pixel of the images, mid-grey without any."""
    if not len(images):
        return [0.5] * images.shape[1]
    return images.movedim(1, 0).flatten(1).median(1).values.clamp(0.05, 0.95).tolist()


def plain_background_of(images: Float[Tensor, "n c h w"]) -> list[float]:
    """The median pixel, as `background_of`, if a quarter of all pixels have one colour; mid-grey otherwise.

    Digits have a plain background; the median pixel of a few photographs says only how bright these are.
    """
    if len(images):
        levels = (images * 32).round().movedim(1, -1).flatten(0, -2)
        _, counts = levels.unique(dim=0, return_counts=True)
        if int(counts.max()) >= PLAIN * len(levels):
            return background_of(images)
    return [0.5] * images.shape[1]
