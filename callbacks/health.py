"""Health of the codes at each epoch: effective rank, intrinsic dimension, neural collapse, calibration."""

import contextlib
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.callbacks.codes import CodeProbe
from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.chunks import joined
from fulgurite.callbacks.framework.film import AllEpochs
from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.moments import Moments
from fulgurite.probes.plots import line_plot
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import grid
from fulgurite.probes.representation.calibration import Calibration, calibration, scaled_by_halves
from fulgurite.probes.representation.class_components import codes_and_logits
from fulgurite.probes.representation.health import (
    effective_rank,
    intrinsic_dimension,
    nearest_mean_disagreement,
    neural_collapse,
)
from fulgurite.probes.representation.render_calibration import reliability_diagram

RANK, DIMENSION, ECE = "effective rank", "intrinsic dimension", "expected calibration error"
SCALED = f"{ECE} after temperature scaling"
SHORT = {  # names of lines
    ECE: "as trained",
    SCALED: "temperature scaled",
    "NC1": "spread in a class",
    "NC2": "NC2: class means",
    "NC3": "NC3: weights",
    "NC4": "NC4: nearest mean",
}
PLOTS = (
    ((RANK, DIMENSION), "dimensions"),
    (("NC1",), "neural collapse NC1"),
    (("NC2", "NC3", "NC4"), "neural collapse"),
    ((ECE, SCALED), ECE),
)


class Health(CodeProbe):
    """Dimension and neural collapse of the codes before the classifier, and the network's calibration.

    As scalars and as curves over the epochs: `effective rank`, `intrinsic dimension` (TwoNN), `NC1` to `NC4`,
    which fall to 0 as features collapse to the means of their classes (see `neural_collapse`), and
    `expected calibration error`, also `after temperature scaling` by temperatures fitted to the other half of
    the images, with a reliability diagram of both. Measures that cannot be computed are left out: NC1 to NC3
    of one class alone, NC3 where the classifier is not a linear layer with a row for each class, dimensions
    of equal codes, temperatures where all images are classified correctly. Cheap enough for every epoch: on
    top of the forward pass, 1000 images take a tenth of a second.

    Args:
        layer: the classifier, whose input is the code; the last linear layer or convolution without it.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    needs = "logits"
    fewer, least = "images", 100

    def __init__(self, *, layer: str | None = None, images: int | None = 1000, **schedule):
        super().__init__(layer, images=images, **schedule)
        self.film.side = 500
        self._weights: Tensor | None = None

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels, and the layer is one of the network's."""
        if sample.labels is None:
            raise ValueError("the validation data have no labels, so there are no classes to collapse to")
        super().check(network, sample)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks."""
        chunks = super().subjects(network, sample)
        self._weights = _weights(layer_of(network, self.classifier))
        return chunks

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """The codes and the logits of each chunk."""
        found = {}
        for name in subjects:
            own, logits = codes_and_logits(network, sample.chunk(name).images, self.classifier)
            found[name] = {"codes": own.cpu(), "logits": logits.cpu()}
        return found

    def compose(
        self, observations: Mapping[str, Mapping[str, Tensor]], sample: Sample
    ) -> Mapping[str, Artifact]:
        """The numbers, and their curves over the epochs so far."""
        found = joined(observations)
        codes, logits = found["codes"], found["logits"]
        now = self._measures(codes, logits, sample)
        calibrations = _calibrations(logits, sample)
        now |= {name: own.error for name, own in calibrations.items()}
        looks = [*self.memory.last.get(LOOKS, []), (float(self.look.epoch), now)]
        self.memory.keep(LOOKS, looks)
        plots = []
        for names, label in PLOTS:
            lines = {
                SHORT.get(name, name): [(epoch, own[name]) for epoch, own in looks if name in own]
                for name in names
            }
            if lines := {name: line for name, line in lines.items() if line}:
                plots.append(line_plot(lines, xlabel="epoch", ylabel=label, size=(300, 200)))
        diagram = reliability_diagram({SHORT[name]: own for name, own in calibrations.items()})
        curves, reliability = AllEpochs(grid(plots, columns=2, gap=8)), Picture(diagram)
        scalars = {name: Scalar(value) for name, value in now.items()}
        return {"": curves, "reliability": reliability} | scalars

    def _measures(
        self, codes: Float[Tensor, "n d"], logits: Float[Tensor, "n k"], sample: Sample
    ) -> dict[str, float]:
        labels = sample.labels
        assert labels is not None  # `check` has refused such a sample
        labels, weights = labels.cpu(), self._weights
        every = codes.double() if weights is None else torch.cat([codes.double(), weights.double()])
        if codes.shape[1] > len(every):  # rotating all into the space that they span changes nothing
            every = every @ torch.linalg.svd(every, full_matrices=False).Vh.T
            codes, weights = every[: len(codes)], None if weights is None else every[len(codes) :]
        moments = Moments([("", "")], classes=len(sample.classes))
        moments.update(torch.arange(len(codes)), {"": codes}, labels)
        found = {RANK: effective_rank(moments.covariance(""))}
        found["NC4"] = nearest_mean_disagreement(codes, logits, moments.class_means(""))
        if len(codes.unique(dim=0)) > 2:
            found[DIMENSION] = intrinsic_dimension(codes)
            if len(labels.unique()) > 1:
                collapse = neural_collapse(moments, "", weights)
                found |= {"NC1": collapse.nc1, "NC2": collapse.nc2, "NC3": collapse.nc3}
        return {name: value for name, value in found.items() if math.isfinite(value)}


def _calibrations(logits: Float[Tensor, "n k"], sample: Sample) -> dict[str, Calibration]:
    """Before and after temperature scaling, which there is only where some images are misclassified."""
    labels = sample.labels
    assert labels is not None
    labels = labels.to(logits.device)
    found = {ECE: calibration(sample.probabilities(logits), labels)}
    with contextlib.suppress(ValueError):
        scaled = scaled_by_halves(logits, labels)
        found[SCALED] = calibration(sample.probabilities(scaled), labels)
    return found


def _weights(layer: nn.Module) -> Tensor | None:
    """A row for each class, of a linear layer or a convolution of one pixel."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() not in (2, 4) or weight[0, 0].numel() > 1:
        return None
    return None if getattr(layer, "groups", 1) > 1 else weight.detach().flatten(1).float().cpu()
