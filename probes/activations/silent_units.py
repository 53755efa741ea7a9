"""Silent (dead) units, sparsity and saturation of layers over a data set, in constant memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.accumulators import Sums
from fulgurite.probes.indexed_images import Data
from fulgurite.probes.record import layer_of
from fulgurite.probes.stream import stream

NEAR = 0.01  # of the range of a sigmoid or tanh: nearer to a bound than this is saturated


@dataclass(frozen=True)
class Bounds:
    """Between which values a bounded activation lies, and how near to one it is saturated.

    `low` is None for ReLU6: activations at its lower bound are zeros, which are counted by themselves.
    """

    low: float | None
    high: float
    margin: float = 0.0

    def saturated(self, values: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Which of the values are at a bound."""
        above = values >= self.high - self.margin
        return above if self.low is None else above | (values <= self.low + self.margin)


@dataclass(frozen=True)
class UnitActivity:
    """Activity of a layer's units (its channels) over a number of images.

    Args:
        images: how many.
        active: on how many of them each channel is above 0 anywhere.
        negative: on how many each is below 0 anywhere: never, behind a ReLU.
        sparsity: the share of zero activations of each channel.
        saturation: the share of activations of each channel at a bound; None if the layer has none.
    """

    images: int
    active: Int[Tensor, "c"]
    negative: Int[Tensor, "c"]
    sparsity: Float[Tensor, "c"]
    saturation: Float[Tensor, "c"] | None

    @property
    def silent(self) -> Int[Tensor, "_"]:
        """The channels that are above 0 at no position of any image."""
        return (self.active == 0).nonzero()[:, 0]

    @property
    def signed(self) -> bool:
        """Whether anything is below 0: silent channels are then not dead, as what follows may read them."""
        return bool((self.negative > 0).any())

    @property
    def silent_share(self) -> float:
        """Silent channels over all channels of the layer."""
        return len(self.silent) / len(self.active)

    @property
    def mean_sparsity(self) -> float:
        """The share of zero activations, over all channels."""
        return float(self.sparsity.mean())

    @property
    def mean_saturation(self) -> float | None:
        """The share of activations at a bound, over all channels."""
        return None if self.saturation is None else float(self.saturation.mean())


class ActivityCounts(Sums):
    """Sums over images of the activity of channels, from which `unit_activity` is computed.

    They do not depend on how images are split into batches and processes; see `Sums`.

    Args:
        bounded: the layers whose activations are bounded.
    """

    def __init__(self, bounded: Iterable[str] = ()):
        super().__init__()
        self.bounded = set(bounded)

    def update(self, ids: Int[Tensor, "n"], shares: Mapping[str, Float[Tensor, "n c 4"]]) -> None:
        """Add images, by layer: whether channels are above or below 0, and shares of zeros and at a bound.

        Raises:
            ValueError: activations were not finite.
        """
        if wrong := [layer for layer, own in shares.items() if not bool(own.isfinite().all())]:
            raise ValueError(f"activations of {wrong[0] or 'the output'!r} that are not finite")
        self._add(ids, {f"of/{layer}": own for layer, own in shares.items()})

    def _sums_of(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        count = torch.tensor(float(len(rows["ids"])), dtype=torch.float64, device=rows["ids"].device)
        return {"count": count} | {
            name.removeprefix("of/"): own.double().sum(0)
            for name, own in rows.items()
            if name.startswith("of/")
        }

    def activity(self) -> dict[str, UnitActivity]:
        """Activity of the channels of each layer over all images.

        Raises:
            ValueError: there were no images.
        """
        if not self.sums:
            raise ValueError("no images; wanted at least one")
        count, found = self.sums["count"], dict[str, UnitActivity]()
        for layer, sums in self.sums.items():
            if layer == "count":
                continue
            saturation = sums[:, 3] / count if layer in self.bounded else None
            active, negative = sums[:, :2].round().long().T
            found[layer] = UnitActivity(int(count), active, negative, sums[:, 2] / count, saturation)
        return found


def unit_activity(
    network: nn.Module,
    data: Data,
    layers: Sequence[str],
    *,
    ids: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: str | None = None,
    counts: ActivityCounts | None = None,
) -> dict[str, UnitActivity]:
    """How active the channels of each layer are over a data set: silent units, sparsity, saturation.

    A channel is silent if it is above 0 at no position of any image: behind a ReLU it is dead for these
    images, and learns nothing from them; of a layer that also outputs values below 0 this does not follow,
    see `UnitActivity.signed`. Sparsity is the share of activations that are exactly 0. Saturation
    is the share of activations of a sigmoid, tanh or Hardtanh at a bound, within a hundredth of the range
    where it is only approached; of a ReLU6 at 6. Every image counts the same, whatever its size. The memory
    does not grow with the number of images.

    Args:
        network: maps images in [0, 1] to logits; in eval mode, and unchanged after it.
        data: a data set, a DataLoader, images, or whatever yields batches: see `numbered`.
        layers: by path; after the activation function, for numbers of its output.
        ids: which images of a data set, or the ids of the images in batches.
        batch_size: how many images at a time; as many as suit the device without it.
        progress: a label for a progress bar; none without it.
        counts: sums to which these images are added; the result is over all images in them. Processes that
            share a data set each give their ids, and merge their counts.

    Raises:
        ValueError: no such layer, no images, activations that are not finite, or as `stream` says.
    """
    counts = ActivityCounts() if counts is None else counts
    limits = bounded(network, layers)
    counts.bounded |= set(limits)
    kinds = sorted({*limits.values()}, key=repr)
    columns = {layer: 3 + kinds.index(limit) for layer, limit in limits.items()}
    batches = stream(
        network, data, layers, reduce=_shares(kinds), ids=ids, batch_size=batch_size, progress=progress
    )
    for batch in batches:
        assert isinstance(batch.values, Mapping)
        shares = {
            layer: torch.cat([own[..., :3], _column(own, columns.get(layer))], 2)
            for layer, own in batch.values.items()
        }
        counts.update(batch.ids, shares)
    return counts.activity()


def bounded(network: nn.Module, layers: Iterable[str]) -> dict[str, Bounds]:
    """The bounds of those layers that are a bounded activation function, or a sequence that ends in one."""
    found = {layer: _bounds(layer_of(network, layer)) for layer in layers}
    return {layer: bounds for layer, bounds in found.items() if bounds is not None}


def _bounds(layer: nn.Module) -> Bounds | None:
    if isinstance(layer, nn.Sequential) and len(layer):
        return _bounds(layer[-1])
    if isinstance(layer, nn.Hardtanh):  # ReLU6 is one
        return Bounds(layer.min_val if layer.min_val else None, layer.max_val)
    if isinstance(layer, nn.Hardsigmoid):
        return Bounds(None, 1.0)
    if isinstance(layer, nn.Sigmoid):
        return Bounds(0.0, 1.0, NEAR)
    if isinstance(layer, nn.Tanh | nn.Softsign):
        return Bounds(-1.0, 1.0, 2 * NEAR)
    return None


def _shares(kinds: Sequence[Bounds]) -> Callable[[Tensor], Float[Tensor, "n c _"]]:
    def shares(values: Float[Tensor, "n c *positions"]) -> Float[Tensor, "n c _"]:
        flat = values.reshape(*values.shape[:2], -1)
        low, top = flat.aminmax(dim=2)  # NaN where any is
        finite = low.isfinite() & top.isfinite()
        signs = [torch.where(finite, sign.to(flat), torch.nan) for sign in (top > 0, low < 0)]
        saturated = [kind.saturated(flat) for kind in kinds]
        return torch.stack([*signs, *(own.to(flat).mean(2) for own in (flat == 0, *saturated))], 2)

    return shares


def _column(shares: Float[Tensor, "n c _"], column: int | None) -> Float[Tensor, "n c 1"]:
    return torch.zeros_like(shares[..., :1]) if column is None else shares[..., column : column + 1]
