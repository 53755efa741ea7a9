"""ClassProbe: base class of probes of classes, those that were asked for or the first ones."""

from collections.abc import Sequence

from torch import nn

from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.record import layer_of, nearest
from fulgurite.probes.score_layer import check_score_layer


class ClassProbe(ProbeCallback):
    """A probe of classes whose scores are read at a layer; a subclass writes `observe`.

    Args:
        only: the classes, by name; the first `most` without it.
        most: how many.
        layer: where the scores are read.
        **schedule: as for `ProbeCallback`.
    """

    subject_name = "classes"

    def __init__(self, only: Sequence[str] | None, *, most: int, layer: str, **schedule):
        super().__init__(**schedule)
        if isinstance(only, str) or not all(isinstance(name, str) for name in only or ()):
            raise ValueError(f"only={only!r}; wanted a list of the names of classes")
        self.only, self.most, self.layer = only, most, layer

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's, with a score for each class, and the classes are known."""
        layer_of(network, self.layer)
        check_score_layer(network, self.layer, sample.shape)
        for name in self.only or ():
            if name not in sample.classes:
                raise ValueError(f"no class {name!r}; {nearest(name, sample.classes)}")

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The classes."""
        return self.only or sample.classes[: self.most]
