"""Convolution filters as pictures, and their norms, at each epoch."""

from collections.abc import Mapping, Sequence

from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Histogram, Picture
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.filters import (
    WHOLE,
    convolutions,
    most_shown,
    render_filters,
    strength,
    typical_end,
    weights,
)


class Filters(ProbeCallback):
    """Filters of the first convolution as a picture, of deeper ones channel by channel.

    Each layer has one scale for the whole run, four times the root mean square of its weights when it
    first runs, so that growth of weights is visible; weights beyond it are counted below the picture.

    Args:
        layers: the convolutions by path, or how many from the first on.
        max_filters: filters shown of each: 64 without it, or 16 of deeper ones, and as many input channels.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    logs_numbers = False
    needs = "weights"

    def __init__(
        self,
        layers: Sequence[str] | int = 3,
        *,
        max_filters: int | None = None,
        images: int | None = 1,
        **schedule,
    ):
        super().__init__(images=images, **schedule)
        if max_filters is not None and max_filters < 1:
            raise ValueError(f"max_filters={max_filters}; wanted at least 1")
        self.layers, self.max_filters = layers, max_filters
        self.film.side = 500

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers are convolutions."""
        for layer in self.layers if not isinstance(self.layers, int) else ():
            weights(network, layer)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The convolutions."""
        return convolutions(network)[: self.layers] if isinstance(self.layers, int) else self.layers

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Artifact]:
        """A picture of each convolution, and the lengths of its filters."""
        seen = dict[str, Artifact]()
        for layer in subjects:
            top = self.memory.first.get(layer) or typical_end(network, layer) or None
            self.memory.keep(layer, top)
            seen[layer] = Picture(
                render_filters(
                    network, layer, max_filters=self.max_filters, side=self._side(network, layer), top=top
                )
            )
        return seen | {f"{layer}/strength": Histogram(strength(network, layer).cpu()) for layer in subjects}

    def _side(self, network: nn.Module, layer: str) -> int:
        """Of a filter, so that pictures are about 400 pixels wide."""
        count, channels = weights(network, layer).shape[:2]
        whole, most = channels in WHOLE, most_shown(channels, self.max_filters)
        along = min(count, most) ** 0.5 if whole else min(most, max(count, channels))
        return max(24, min(64, round(400 / along))) * (1 if whole else 2)
