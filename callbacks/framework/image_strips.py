"""ImageStrips: the base class of probes that show a strip of tiles for each image, all on one sheet."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.captions import row_names
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.render import RGB, captioned, grid


class ImageStrips(ProbeCallback):
    """A strip of tiles for each image of the sample; a subclass writes `strips`.

    Its `aspect` is how many times as wide as high a strip is, about, so that the sheet becomes a square; None
    for one strip below the other.
    """

    aspect: float | None = 3.0

    @abstractmethod
    def strips(self, network: nn.Module, sample: Sample) -> Sequence[RGB]:
        """The strip of each image of this part of the sample."""

    def legend(self) -> str:
        """A line below the sheet; none where it is empty."""
        return ""

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        return sample.each()

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Picture]:
        """A strip for each image."""
        strips = self.strips(network, sample.take(subjects))
        return {subject: Picture(strip) for subject, strip in zip(subjects, strips, strict=True)}

    def compose(self, observations: Mapping[str, Picture], sample: Sample) -> Mapping[str, Artifact]:
        """One sheet of all strips, with the names of their images."""
        names = row_names(sample)
        columns = 1 if self.aspect is None else max(1, round((len(observations) / self.aspect) ** 0.5))
        strips = [captioned(strip.pixels, names[subject]) for subject, strip in observations.items()]
        paper = grid(strips, columns=columns, gap=6)
        return {"": Picture(captioned(paper, self.legend()) if self.legend() else paper)}
