"""Equivariance of layers: linear maps from features of transformed images back, every k epochs."""

import math
from collections.abc import Mapping, Sequence

from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.contract import check_labels
from fulgurite.callbacks.framework.sample import Sample, SampleData
from fulgurite.callbacks.invariance import checked_transforms
from fulgurite.callbacks.layers import LayerProbe, layers_or_stages
from fulgurite.probes.bar_plot import bar_plot
from fulgurite.probes.counted import counted
from fulgurite.probes.render import RGB, grid
from fulgurite.probes.representation.equivariance import equivariance
from fulgurite.probes.representation.image_transforms import usual_transforms
from fulgurite.probes.representation.recovered_accuracy import passed_through

Bars = Mapping[str, Sequence[float]]


class Equivariance(LayerProbe):
    """The accuracy on transformed images whose features at each layer are mapped back by linear maps.

    A chart for each transformation: for each layer, the accuracy on images as they are, on transformed ones,
    and with features mapped back by moving positions back ("permutation"), followed by 1 x 1 or 3 x 3 filters
    fitted by ridge regression to training images, or without any to every other image of the sample. The same
    as scalars. See `probes.representation.equivariance`.

    Three passes over the images for each layer and transformation, and the fit, which takes longer than they
    do: on digits, 13 s on one core for each transformation, 3 s with `kernels=[1]`. So every fifth epoch.

    Args:
        transforms: by name: hflip, vflip, rot90 (degrees), scale0.7, shift4 (pixels), roll4; one of
            each kind without it.
        layers: by path, such that everything passes through each; without it the network's stages, less
            others.
        kernels: the sides of the filters.
        images: how many validation images to score on; None for all.
        fitted: how many training images to fit to.
        every: epochs from one run of the probe to the next.
        **schedule: as for `ProbeCallback`.
    """

    needs = "logits"

    def __init__(
        self,
        transforms: Sequence[str] | None = None,
        *,
        layers: Sequence[str] | None = None,
        kernels: Sequence[int] = (1, 3),
        images: int | None = 256,
        fitted: int = 512,
        every: int = 5,
        **schedule,
    ):
        super().__init__(layers, images=images, every=every, **schedule)
        if fitted < 2 or not kernels or any(side < 1 or side % 2 == 0 for side in kernels):
            raise ValueError(
                f"fitted={fitted}, kernels={kernels!r}; wanted at least 2 images to fit to, and odd sides"
            )
        self.transforms, self.kernels = checked_transforms(transforms), tuple(kernels)
        self.training_images, self.film.side = fitted, 300

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels, and the layers can be read, and the network run from them."""
        parts = self._parts(sample)
        if any(part.labels is None and not part.unfit for part in parts):
            raise ValueError("the data have no labels, so there are no correct predictions to count")
        for part in parts:
            check_labels(part, len(sample.classes), type(network).__name__)
        if self.subjects(network, sample):
            few = SampleData(sample[:2])
            equivariance(network, few, few, self.transforms, layers=self.found[:1], kernels=[1])

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The transformations."""
        if min(len(part) for part in self._parts(sample)) < 2:
            return self.stay_out(
                f"{counted(len(sample), 'image')} to fit to and to score on; wanted at least 4"
            )
        if not self.found:
            own = layers_or_stages(network, sample, self.layers)
            self.found = own if self.layers else passed_through(network, own, sample[:2].images)
        self.transforms = self.transforms or usual_transforms(sample.shape)
        return self.transforms

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Bars]:
        """The accuracies for each layer, by what was done."""
        fit, test = (SampleData(part) for part in self._parts(sample))
        found = equivariance(network, fit, test, subjects, layers=self.found, kernels=self.kernels)
        return {name: found.bars(name) for name in subjects}

    def compose(self, observations: Mapping[str, Bars], sample: Sample) -> Mapping[str, Artifact]:
        """The charts, and a scalar for each map, transformation and layer."""
        if not observations:
            return {}
        artifacts: dict[str, Artifact] = {"": Picture(equivariance_chart(self.found, observations))}
        for transform, bars in observations.items():
            for kind, values in bars.items():
                own = dict(zip(self.found, values, strict=True))
                artifacts |= {
                    f"{transform}/{kind}/{layer}": Scalar(value)
                    for layer, value in own.items()
                    if math.isfinite(value)
                }
        return artifacts

    def _parts(self, sample: Sample) -> tuple[Sample, Sample]:
        if self.training_sample is None:
            return sample[::2], sample[1::2]
        return self.training_sample, sample


def equivariance_chart(layers: Sequence[str], bars: Mapping[str, Bars]) -> RGB:
    """The accuracies as bars, a chart for each transformation."""
    charts = [
        bar_plot(layers, own, ylabel=f"{name}: accuracy from each layer on", ymax=1.0)
        for name, own in bars.items()
    ]
    return grid(charts, columns=1, gap=8)
