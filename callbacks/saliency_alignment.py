"""Alignment of input gradients with images at each epoch (Etmann et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.alignment import Alignment, alignment
from fulgurite.probes.attribution.render_maps import render_maps, sized
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, grid, noted, picture

CHUNK = 64  # images; fixed, so that rounding does not depend on the number of processes
SIDE = 96  # of a tile


class ChunkAlignment(NamedTuple):
    """Of a chunk: alignments, cosines, predictions, and the strips that are shown."""

    lengths: Float[Tensor, "n"]
    cosines: Float[Tensor, "n"]
    answers: Int[Tensor, "n"]
    strips: Sequence[RGB]


class SaliencyAlignment(ProbeCallback):
    """The mean alignment of images and gradients, also of each class, and some of both side by side.

    `alignment` is the length of the image's projection onto the gradient of the predicted class's lead over
    the runner-up; `cosine` is relative to the image's own length. Etmann et al. 2019,
    arxiv.org/abs/1905.04172.

    Args:
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        shown: how many images and gradients to show, spread evenly over the sample.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(self, *, layer: str = "", shown: int = 8, images: int | None = 256, **schedule):
        super().__init__(images=images, **schedule)
        if shown < 1:
            raise ValueError(f"shown={shown}; wanted at least 1")
        self.layer, self.shown = layer, shown
        self.film.side = 340

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's, and there are gradients."""
        layer_of(network, self.layer)
        alignment(network, sample[:1].images, layer=self.layer)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks."""
        return sample.chunks(CHUNK)

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, ChunkAlignment]:
        """The alignment of each image, and strips of those that are shown."""
        return {name: self._aligned(network, sample, name) for name in subjects}

    def compose(self, observations: Mapping[str, ChunkAlignment], sample: Sample) -> Mapping[str, Artifact]:
        """Means, and a sheet of the strips."""
        lengths, cosines, answers = (
            torch.cat(parts) for parts in zip(*(one[:3] for one in observations.values()), strict=True)
        )
        classes = answers if sample.labels is None else sample.labels
        means = {"alignment": lengths.mean(), "cosine": cosines.mean()}
        for label in classes.unique().tolist():
            means[f"alignment of {sample.name(label)}"] = lengths[classes == label].mean()
        strips = [strip for one in observations.values() for strip in one.strips]
        columns = max(1, round((len(strips) / 2) ** 0.5))  # of strips twice as wide as high
        legend = (
            "gradients: orange where brighter pixels raise the score, blue where they lower it",
            "each gradient has its own scale: alignment does not depend on its length",
            "cos: how well image and gradient are aligned",
        )
        paper = noted(grid(strips, columns=columns, gap=6), *legend)
        return {"": Picture(paper), **{name: Scalar(mean) for name, mean in means.items()}}

    def _aligned(self, network: nn.Module, sample: Sample, name: str) -> ChunkAlignment:
        part = sample.chunk(name, CHUNK)
        found = alignment(network, part.images, layer=self.layer)
        count = min(self.shown, len(sample))
        spread = [place * len(sample) // count - int(name) for place in range(count)]
        strips = [self._strip(part, place, found) for place in spread if 0 <= place < len(part)]
        return ChunkAlignment(found.length.cpu(), found.cosine.cpu(), found.answers.cpu(), strips)

    def _strip(self, part: Sample, place: int, found: Alignment) -> RGB:
        image = part.images[place]
        slope = render_maps("gradient", image, found.gradient[place], look="signed")
        caption = f"pred {part.name(int(found.answers[place]))}"
        tiles = {caption: picture(image), f"cos {found.cosine[place]:.2g}": slope}
        return grid([captioned(sized(tile, SIDE), text) for text, tile in tiles.items()], columns=2, gap=2)
