"""CodeProbe: the base class of probes that read codes, the inputs of the classifier, of the whole sample."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.record import layer_of
from fulgurite.probes.representation.codes import codes
from fulgurite.probes.stages import classifier_layer
from fulgurite.probes.trace import trace


class CodeProbe(ProbeCallback):
    """A probe of the codes of all images; a subclass writes `compose`.

    `classifier` is the layer whose input is the code: `layer`, or the last linear layer or convolution.
    """

    needs = "layers"

    def __init__(self, layer: str | None = None, **schedule):
        super().__init__(**schedule)
        self.layer, self.classifier = layer, ""

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's."""
        if self.layer is not None:
            layer_of(network, self.layer)

    @abstractmethod
    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """The artifacts, from the codes of all chunks."""

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks."""
        self.classifier = self.classifier or self.layer or classifier_layer(trace(network, sample[:1].images))
        return sample.chunks()

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Any]:
        """The codes of each chunk."""
        return {name: codes(network, sample.chunk(name).images, self.classifier).cpu() for name in subjects}
