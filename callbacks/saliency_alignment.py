"""Alignment of input gradients with images at each epoch (Etmann et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.film import NextTo
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.alignment import Alignment, alignment
from fulgurite.probes.attribution.render_maps import render_maps, sized
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, grid, noted, picture
from fulgurite.probes.style import LINE

CHUNK = 64  # images; fixed, so that rounding does not depend on the number of processes
SIDE, FRAMES = 96, 8  # of a tile; images in the film


LEGEND = (
    "gradients: orange where brighter pixels raise the score, blue where they lower it",
    "each gradient has its own scale: alignment does not depend on its length",
    "cos: how well image and gradient are aligned",
)


class Shown(NamedTuple):
    """The place of an image in the sample, itself, its gradient, the prediction, and the cosine of both."""

    place: int
    image: RGB
    gradient: RGB
    answer: str
    cosine: str

    def strip(self) -> RGB:
        """Image and gradient side by side."""
        tiles = {self.answer: self.image, self.cosine: self.gradient}
        return grid([captioned(tile, text) for text, tile in tiles.items()], columns=2, gap=2)

    def frame(self) -> NextTo:
        """The gradient and what belongs to it, in a film next to the image."""
        return NextTo(captioned(self.gradient, self.answer, self.cosine), self.image)


class ChunkAlignment(NamedTuple):
    """Of a chunk: alignments, cosines, predictions, and the strips that are shown."""

    lengths: Float[Tensor, "n"]
    cosines: Float[Tensor, "n"]
    answers: Int[Tensor, "n"]
    strips: Sequence[Shown]


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
        self.film.side, self.film.note = SIDE + 2 * LINE, "; ".join(LEGEND)

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
        strips = [shown.strip() for one in observations.values() for shown in one.strips]
        columns = max(1, round((len(strips) / 2) ** 0.5))  # of strips twice as wide as high
        paper = noted(grid(strips, columns=columns, gap=6), *LEGEND)
        return {"": Picture(paper), **{name: Scalar(mean) for name, mean in means.items()}}

    def frames(self, observations: Mapping[str, ChunkAlignment], composed: object) -> Mapping[str, NextTo]:
        """The gradients of some images, a row for each."""
        assert self.sample is not None  # it has looked
        names = self.sample.each()
        shown = [shown for one in observations.values() for shown in one.strips]
        return {names[one.place]: one.frame() for one in shown[:FRAMES]}

    def _aligned(self, network: nn.Module, sample: Sample, name: str) -> ChunkAlignment:
        part = sample.chunk(name, CHUNK)
        found = alignment(network, part.images, layer=self.layer)
        count = min(self.shown, len(sample))
        spread = [place * len(sample) // count - int(name) for place in range(count)]
        inside = [place for place in spread if 0 <= place < len(part)]
        strips = [self._shown(part, place, found, int(name)) for place in inside]
        return ChunkAlignment(found.length.cpu(), found.cosine.cpu(), found.answers.cpu(), strips)

    def _shown(self, part: Sample, place: int, found: Alignment, before: int) -> Shown:
        image = part.images[place]
        slope = render_maps("gradient", image, found.gradient[place], look="signed")
        answer = f"pred {part.name(int(found.answers[place]))}"
        cosine = f"cos {found.cosine[place]:.2g}"
        return Shown(before + place, sized(picture(image), SIDE), sized(slope, SIDE), answer, cosine)
