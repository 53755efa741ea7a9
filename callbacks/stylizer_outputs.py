"""Validation images next to their versions by a feed-forward stylizer, at each epoch."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.render import grid, picture

SIDE = 160  # of a tile


class Stylized(ProbeCallback):
    """Photographs, and below them the same in the style: for networks that map images to images.

    Args:
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    logs_numbers = False
    needs = "layers"

    def __init__(self, *, images: int | None = 4, **schedule):
        super().__init__(images=images, **schedule)
        self.film.side = 2 * SIDE

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The network maps images to images."""
        images = sample[:1].images
        made = network(images)
        if not isinstance(made, torch.Tensor) or made.shape != images.shape:
            shape = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
            raise ValueError(
                f"the network maps images {tuple(images.shape)} to {shape}; wanted images of the same size"
            )

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        return sample.each()

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Picture]:
        """Of each image, itself and the stylized one."""
        images = sample.take(subjects).images
        with torch.random.fork_rng([images.device] if images.is_cuda else []), torch.no_grad():
            torch.manual_seed(self.seed)  # texture networks draw random noise
            made = [network(image[None])[0] for image in images]
        return {
            subject: Picture(grid([sized(picture(one), SIDE) for one in pair], columns=1, gap=2))
            for subject, pair in zip(subjects, zip(images, made, strict=True), strict=True)
        }

    def compose(self, observations: Mapping[str, Picture], sample: Sample) -> Mapping[str, Artifact]:
        """All of them on one sheet."""
        return {
            "": Picture(grid([one.pixels for one in observations.values()], columns=len(observations), gap=4))
        }
