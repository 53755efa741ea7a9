"""Invariance and equivariance of layers to flips, rotations, scalings and shifts at each epoch."""

import math
from collections.abc import Mapping, Sequence

from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Scalar
from fulgurite.callbacks.framework.film import AllEpochs
from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import LayerProbe
from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import RGB, grid
from fulgurite.probes.representation.image_transforms import USUAL, image_transform, usual_transforms
from fulgurite.probes.representation.invariance import EQUIVARIANCE, INVARIANCE, Movement, invariance

Found = Mapping[str, Mapping[str, Mapping[str, Movement]]]


class Invariance(LayerProbe):
    """How far transformations of the image move the features of each layer, next to another image.

    For each transformation and layer two scalars: `invariance`, 1 if the features of the transformed image
    are the same, 0 if they are as far away as those of another image; and `equivariance`, the same after each
    position is put where it came from: see `probes.representation.invariance`. The picture has the last
    epoch's over the layers, and earlier ones darker. One forward pass, and one for each transformation: cheap
    enough for every epoch.

    Args:
        transforms: by name: hflip, vflip, rot90 (degrees), scale0.7, shift4 (pixels), roll4; one of
            each kind without it.
        layers: by path; the network's stages without it.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(
        self,
        transforms: Sequence[str] | None = None,
        *,
        layers: Sequence[str] | None = None,
        images: int | None = 128,
        **schedule,
    ):
        super().__init__(layers, images=images, **schedule)
        self.transforms, self.film.side = checked_transforms(transforms), 300

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers can be read, and images of this shape transformed."""
        if self.subjects(network, sample):
            invariance(network, sample[:2].images, self.transforms, self.found)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks."""
        if len(sample) < 2:
            return self.stay_out(f"{len(sample)} image; wanted at least 2, to know how far apart images are")
        self.find(network, sample)
        self.transforms = self.transforms or usual_transforms(sample.shape)
        # a single image has no other to compare with
        return [name for name in sample.chunks() if len(sample.chunk(name)) > 1]

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Found]:
        """The sums of each chunk."""
        return {
            name: invariance(network, sample.chunk(name).images, self.transforms, self.found)
            for name in subjects
        }

    def compose(self, observations: Mapping[str, Found], sample: Sample) -> Mapping[str, Artifact]:
        """A scalar for each transformation and layer, and their profiles."""
        now = {
            f"{kind}/{transform}/{layer}": _score(
                [own[transform][layer][kind] for own in observations.values()]
            )
            for kind in (INVARIANCE, EQUIVARIANCE)
            for transform in self.transforms
            for layer in self.found
        }
        if not observations:
            return {}
        looks = [*self.memory.last.get(LOOKS, []), (self.look.name, now)]
        self.memory.keep(LOOKS, looks)
        return {"": AllEpochs(self._profiles(looks))} | {
            name: Scalar(value) for name, value in now.items() if math.isfinite(value)
        }

    def _profiles(self, looks: Sequence[tuple[str, Mapping[str, float]]]) -> RGB:
        plots = [
            category_plot(
                self.found,
                {
                    label: [own.get(f"{kind}/{transform}/{layer}", math.nan) for layer in self.found]
                    for label, own in looks
                },
                ylabel=f"{transform}: {kind}",
                ymax=1.0,
            )
            for transform in self.transforms
            for kind in (INVARIANCE, EQUIVARIANCE)
        ]
        return grid(plots, columns=2, gap=8)


def checked_transforms(transforms: Sequence[str] | None) -> list[str]:
    """The transformations as given, each once; None if none were given.

    Raises:
        ValueError: there are none, or one is unknown.
    """
    if transforms is None:
        return []
    if isinstance(transforms, str) or not transforms:
        raise ValueError(f"transforms={transforms!r}; wanted a list of names, such as {USUAL}")
    return list(dict.fromkeys(image_transform(word).name for word in transforms))


def _score(parts: Sequence[Movement]) -> float:
    return math.nan if not parts else sum(parts[1:], parts[0]).score
