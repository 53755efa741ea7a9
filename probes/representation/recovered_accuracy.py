"""Accuracy of a network whose features at a layer are recovered, by linear maps, from other features."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.indexed_images import Data, first_images, indexed, numbered
from fulgurite.probes.representation.channel_maps import (
    WIDEST,
    ChannelMap,
    MapSums,
    identity_map,
    trained_map,
)
from fulgurite.probes.representation.linear import Proportion
from fulgurite.probes.run_from import Rest, run_from

BATCH = 64  # of a training step

Pair = tuple[Tensor, Tensor]
Pairs = Callable[[Tensor, Sequence[int]], list[Pair]]
"""Of images, for each of some places: features as maps to begin from, and those to recover."""


@dataclass(frozen=True)
class MapKind:
    """A way to make a map between features.

    Args:
        kernel: the side of its filters; 0 for the identity.
        matched: whether each channel comes from one other.
        epochs: of training through the rest of the network, beginning with these.
    """

    kernel: int = 1
    matched: bool = False
    epochs: int = 0


@dataclass
class Recovered:
    """What maps achieve, by their kind, a value for each place.

    Args:
        accuracy: of the network with recovered features; None where there is no such map.
        error: the squared error over the variance of the features to recover, on test images, of those maps
            that are fitted; NaN of others.
    """

    accuracy: dict[str, list[Proportion | None]] = field(default_factory=dict)
    error: dict[str, list[float]] = field(default_factory=dict)


def recovered(
    pairs: Pairs,
    network: nn.Module,
    layers: Sequence[str],
    fit: Data,
    test: Data,
    kinds: Mapping[str, MapKind],
    *,
    penalty: float = 1e-3,
) -> Recovered:
    """Fit each kind of map at each layer, and count correct predictions of the network from there on.

    To be used in `frozen_eval` of the network, and of the network that the pairs come from.

    Args:
        pairs: gives features to begin from, and those that the network has there.
        network: from whose layers the features go on, to logits.
        layers: of the network, one for each place.
        fit: labelled images to fit the maps to.
        test: other labelled images, to score them on.
        kinds: the maps, by name.
        penalty: of ridge regression, as `MapSums.ridge` has it.

    Raises:
        ValueError: images without class numbers, or none; or as `run_from` says.
    """
    sums = _sums(pairs, fit, network, kinds, len(layers))
    found = Recovered({kind: [] for kind in kinds}, {kind: [] for kind in kinds})
    example = first_images(test, device=device_of(network), size=4)
    for place, layer in enumerate(layers):
        with run_from(network, layer, example) as rest:
            maps = {name: _fitted(kind, sums[place], penalty) for name, kind in kinds.items()}
            for name, kind in kinds.items():
                if kind.epochs and (start := maps[name]) is not None:
                    maps[name] = _trained(start, kind.epochs, pairs, place, rest, fit, network)
            scored = _scored(maps, pairs, place, rest, test, network)
        for name in kinds:
            accuracy, error = scored[name]
            found.accuracy[name].append(accuracy)
            found.error[name].append(error)
    return found


def passed_through(network: nn.Module, layers: Sequence[str], images: Float[Tensor, "n c h w"]) -> list[str]:
    """The layers whose output alone determines the logits; see `run_from`.

    Raises:
        ValueError: there is none.
    """
    found, last = list[str](), ValueError("no layers")
    with frozen_eval(network) as net:
        for layer in layers:
            try:
                with run_from(net, layer, images):
                    found.append(layer)
            except ValueError as error:
                last = error
    if not found:
        raise last
    return found


def examples(data: Data, network: nn.Module, ids: Sequence[int] | None = None) -> Iterator[Pair]:
    """Images and their labels, on the network's device.

    Raises:
        ValueError: there are no class numbers.
    """
    size = BATCH if ids is not None else None
    device = device_of(network)
    for _, images, labels in numbered(data, ids, device=device, size=size):
        if labels is None:
            raise ValueError("images without class numbers; wanted one for each, to count correct ones")
        yield images.to(device), labels.to(device)


def as_maps(features: Tensor) -> Float[Tensor, "n c h w"]:
    """Features, channels first, as maps: of one position where they have none, tokens in a column."""
    if features.dim() == 2:
        return features[..., None, None]
    return features if features.dim() == 4 else features.flatten(2)[..., None]


@torch.no_grad()
def _sums(
    pairs: Pairs, fit: Data, network: nn.Module, kinds: Mapping[str, MapKind], places: int
) -> list[dict[int, MapSums]]:
    """What maps of each side of filters are fitted from, at each place."""
    sums = [dict[int, MapSums]() for _ in range(places)]
    matched = any(kind.matched for kind in kinds.values())
    count = 0
    for images, _ in examples(fit, network):
        count += len(images)
        for own, (given, wanted) in zip(sums, pairs(images, range(places)), strict=True):
            for side in {kind.kernel or 1 for kind in kinds.values()}:
                if given.shape[1] * side**2 > WIDEST or (side > 1 and min(given.shape[2:]) == 1):
                    continue
                own.setdefault(side, MapSums(side, matched=matched and side == 1)).update(given, wanted)
    if count < 2:
        raise ValueError(f"{counted(count, 'image')} to fit maps to; wanted at least 2")
    return sums


def _fitted(kind: MapKind, sums: Mapping[int, MapSums], penalty: float) -> ChannelMap | None:
    """The map before training; None where there is none: the numbers of channels differ, or are too large."""
    if (own := sums.get(kind.kernel or 1)) is None:
        return None
    if kind.matched:
        return own.matched()
    if kind.kernel:
        return own.ridge(penalty)
    channels = len(own.moments.mean("out"))
    return identity_map(channels) if channels == own.channels else None


def _trained(
    start: ChannelMap, epochs: int, pairs: Pairs, place: int, rest: Rest, fit: Data, network: nn.Module
) -> ChannelMap:
    dataset, _ = indexed(fit)
    if dataset is None:
        raise ValueError("maps are trained on images in a random order; wanted a data set, not batches")
    count = len(dataset)  # pyright: ignore[reportArgumentType] - `numbered` has refused one without length

    def loss(one: ChannelMap, given: Tensor, labels: Int[Tensor, "n"]) -> Tensor:
        return F.cross_entropy(rest(one(given)), labels)

    def batches(epoch: int) -> Iterator[Pair]:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch)).tolist()
        for images, labels in examples(fit, network, order):
            with torch.no_grad():
                ((given, _),) = pairs(images, [place])
            yield given, labels

    device = device_of(network)
    begun = ChannelMap(start.weight.to(device), start.bias.to(device))
    return trained_map(begun, loss, batches, epochs=epochs, steps=-(-count // BATCH))


@torch.no_grad()
def _scored(
    maps: Mapping[str, ChannelMap | None],
    pairs: Pairs,
    place: int,
    rest: Rest,
    test: Data,
    network: nn.Module,
) -> dict[str, tuple[Proportion | None, float]]:
    right, wrong = dict.fromkeys(maps, 0), dict.fromkeys(maps, 0.0)
    total, rows = 0, 0
    mean, spread = torch.zeros(()), torch.zeros(())
    device = device_of(network)
    placed = {
        name: ChannelMap(own.weight.to(device), own.bias.to(device))
        for name, own in maps.items()
        if own is not None
    }
    for images, labels in examples(test, network):
        ((given, wanted),) = pairs(images, [place])
        total += len(images)
        rows += len(images) * wanted.shape[2:].numel()
        mean = mean.to(device) + wanted.double().sum((0, 2, 3))
        spread = spread.to(device) + wanted.double().square().sum()
        for name, own in placed.items():
            made = own(given)
            wrong[name] += float((made - wanted).double().square().sum())
            right[name] += int((rest(made).argmax(1) == labels).sum())
    variance = float(spread - mean.square().sum() / max(1, rows))
    return {
        name: (None, torch.nan)
        if name not in placed
        else (Proportion(right[name], total), wrong[name] / variance if variance > 0 else torch.nan)
        for name in maps
    }
