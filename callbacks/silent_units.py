"""Silent (dead) units, sparsity and saturation of each layer at each epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Scalar
from fulgurite.callbacks.framework.film import AllEpochs
from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import LayerProbe
from fulgurite.probes.activations.silent_units import ActivityCounts, bounded, unit_activity
from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import grid

PLOTS = {
    "silent": "share of channels that are above 0 on no image",
    "sparsity": "share of activations that are 0",
    "saturation": "share of activations at a bound",
}


class SilentUnits(LayerProbe):
    """The share of silent channels of each layer, of zero activations, and of saturated ones.

    As scalars `silent/LAYER`, `sparsity/LAYER` and, where the activation is bounded, `saturation/LAYER`; and
    as curves over the layers, a line for each epoch. See `unit_activity` for what is counted.

    Args:
        layers: by path; the network's stages without it.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(self, layers: Sequence[str] | None = None, *, images: int | None = 512, **schedule):
        super().__init__(layers, images=images, **schedule)
        self.film.side = 480
        self._bounded = set[str]()

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, in chunks."""
        self._bounded = set(bounded(network, self.find(network, sample)))
        return sample.chunks()

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Any]:
        """The counts of each chunk."""
        observations = {}
        for name in subjects:
            counts, images = ActivityCounts(), sample.chunk(name).images
            ids = range(int(name), int(name) + len(images))
            unit_activity(network, [images], self.found, ids=ids, counts=counts)
            observations[name] = counts.state_dict()
        return observations

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """A number of each kind for each layer, and their curves."""
        total = ActivityCounts(self._bounded)
        for state in observations.values():
            chunk = ActivityCounts()
            chunk.load_state_dict(state)
            total.merge(chunk)
        found = total.activity()
        now = {
            "silent": {layer: own.silent_share for layer, own in found.items()},
            "sparsity": {layer: own.mean_sparsity for layer, own in found.items()},
            "saturation": {
                layer: own.mean_saturation for layer, own in found.items() if own.mean_saturation is not None
            },
        }
        looks = [*self.memory.last.get(LOOKS, []), (self.look.name, now)]
        self.memory.keep(LOOKS, looks)
        plots = [
            category_plot(
                list(now[kind]),
                {label: list(own[kind].values()) for label, own in looks},
                ylabel=title,
                ymax=1.0,
            )
            for kind, title in PLOTS.items()
            if now[kind]
        ]
        scalars = {
            f"{kind}/{layer}": Scalar(value) for kind, own in now.items() for layer, value in own.items()
        }
        return {"": AllEpochs(grid(plots, columns=1, gap=8)), **scalars}
