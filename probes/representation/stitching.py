"""Stitching: the front of one network joined to the back of another by a linear map (Lenc & Vedaldi 2015)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.channels import features
from fulgurite.probes.feature_extractor import Calls, feature_extractor, outputs
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.indexed_images import Data, first_images
from fulgurite.probes.predict import predict
from fulgurite.probes.representation.linear import Proportion
from fulgurite.probes.representation.recovered_accuracy import (
    MapKind,
    Pair,
    Recovered,
    as_maps,
    examples,
    passed_through,
    recovered,
)
from fulgurite.probes.representation.stages import stages
from fulgurite.probes.untrained import untrained

NAIVE, MATCHED, FITTED, TRAINED = "naive", "permutation", "least squares", "trained"
FROM_IDENTITY = "trained from the identity"
PENALTY = 1e-4


@dataclass(frozen=True)
class Stitching:
    """The accuracy of stitched networks, layer by layer, with the accuracies to compare it with.

    Args:
        layers: of the front network and of the back network.
        front: the front network's own accuracy on the test images; None where it has other classes.
        back: the back network's.
        stitched: the accuracy by kind of map, a value for each pair of layers; None where there is no such
            map, as of the identity between different numbers of channels.
        control: the same with an untrained front. Only what a map achieves beyond that is common to the
            networks: report the difference.
    """

    layers: tuple[tuple[str, str], ...]
    front: Proportion | None
    back: Proportion
    stitched: dict[str, list[Proportion | None]]
    control: dict[str, list[Proportion | None]]

    @property
    def names(self) -> list[str]:
        """What to call the places."""
        return [one if one == other else f"{one} > {other}" for one, other in self.layers]

    def accuracies(self, kind: str, *, control: bool = False) -> list[float]:
        """The accuracy at each place by one kind of map; NaN where there is none."""
        return [
            torch.nan if own is None else own.accuracy
            for own in (self.control if control else self.stitched)[kind]
        ]

    def gaps(self, kind: str = TRAINED) -> list[float]:
        """By how much the accuracy at each place is above that with an untrained front."""
        pairs = zip(self.accuracies(kind), self.accuracies(kind, control=True), strict=True)
        return [own - theirs for own, theirs in pairs]

    def table(self) -> list[list[str]]:
        """A head, and a row for each place: for a CSV file."""
        kinds, controls = list(self.stitched), list(self.control)
        columns = [self.accuracies(kind) for kind in kinds]
        columns += [self.accuracies(kind, control=True) for kind in controls]
        head = ["front", "back", *kinds, *(f"untrained front, {kind}" for kind in controls)]
        head += ["accuracy of the back network", "images"]
        rest = [f"{self.back.accuracy:.6g}", str(self.back.count)]
        rows = [
            [*pair, *(f"{column[place]:.6g}" for column in columns), *rest]
            for place, pair in enumerate(self.layers)
        ]
        return [head, *rows]

    def text(self) -> str:
        """The table for people, with the difference to the control."""
        kinds = list(self.stitched)
        gap = kinds[-1] if self.control else ""
        head = ["", *kinds, *([f"untrained front, {gap}", "difference"] if gap else [])]
        rows = [head]
        for place, name in enumerate(self.names):
            values = [self.accuracies(kind)[place] for kind in kinds]
            if gap:
                values += [self.accuracies(gap, control=True)[place], self.gaps(gap)[place]]
            rows.append([name, *("-" if value != value else f"{value:.1%}" for value in values)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        own = "" if self.front is None else f"accuracy of the front network {self.front.accuracy:.1%}, "
        return "\n".join([f"{own}of the back network {self.back.accuracy:.1%}", *lines])


def stitching(
    front: nn.Module,
    back: nn.Module,
    fit: Data,
    test: Data,
    *,
    layers: Sequence[str | tuple[str, str]] | None = None,
    epochs: int = 5,
    control: bool = True,
    identity_start: bool = False,
    seed: int = 0,
    progress: Callable[[Sequence[str]], Iterable[str]] = lambda steps: steps,
) -> Stitching:
    """The accuracy of one network with another's layers in place of its own, joined by linear maps.

    At each place, the front network's output, resized to the other's maps where they differ, is mapped to the
    input of the back network there, and passes through the rest of it. Maps are the identity ("naive"); a
    matching of channels with a scale for each ("permutation"); a convolution 1 x 1 by "least squares"; and
    that one after training on the labels, with both networks frozen ("trained"). Even an untrained front is
    recovered to some degree, above all at the first layers, so the same is done with one. Lenc & Vedaldi
    2015, arxiv.org/abs/1411.5908; Bansal et al. 2021, arxiv.org/abs/2106.07682.

    A pass over the images to fit to, and for each layer one over the test images; training takes one for each
    epoch and layer, of forward and backward passes.

    Args:
        front: maps images to logits.
        back: another one, for images of the same size.
        fit: labelled images of the back network's classes, to fit the maps to.
        test: others, to score on.
        layers: paths that both have, or pairs of a path of each; the stages of both without it, those of the
            same relative depth where they differ, and through which everything passes in the back network.
        epochs: of training the maps; 0 for none.
        control: whether to compare with an untrained front.
        identity_start: whether to train another map that begins with the identity, to measure the benefit of
            the least-squares start; not with an untrained front, nor between different numbers of channels.
        seed: of its weights.
        progress: wraps the names of the two rounds, to show how far it is.

    Raises:
        ValueError: no such layer, images without class numbers, layers of which one outputs maps and the
            other rows of values, one of the back network that other paths lead around, or a start for maps
            that are not trained.
    """
    if identity_start and not epochs:
        raise ValueError(
            "identity_start with epochs=0: there is no training that could begin with the identity"
        )
    example = first_images(test, device=device_of(back), size=2)
    pairs = _layers(front, back, layers, example)
    sizes = _sizes(front, back, pairs, example)
    kinds = {NAIVE: MapKind(0), MATCHED: MapKind(1, matched=True), FITTED: MapKind(1)}
    if identity_start:
        kinds[FROM_IDENTITY] = MapKind(0, epochs=epochs)
    if epochs:
        kinds[TRAINED] = MapKind(1, epochs=epochs)
    rounds = {"stitched": (front, kinds)}
    if control:
        own = {kind: kinds[kind] for kind in kinds if kind not in (NAIVE, FROM_IDENTITY)}
        rounds["untrained front"] = (untrained(front, seed=seed), own)
    found = dict[str, Recovered]()
    for name in progress(list(rounds)):
        own, maps = rounds[name]
        with frozen_eval(own) as net, frozen_eval(back) as other:
            source = _Stitched(net, other, pairs, sizes)
            found[name] = recovered(
                source, other, [layer for _, layer in pairs], fit, test, maps, penalty=PENALTY
            )
    stitched, drawn = found["stitched"], found.get("untrained front", Recovered())
    return Stitching(
        tuple(pairs),
        _accuracy(front, test, like=back),
        _checked(_accuracy(back, test)),
        stitched.accuracy,
        drawn.accuracy,
    )


class _Stitched:
    """Features of the front network, resized, and those of the back network, of the same images."""

    def __init__(
        self,
        front: nn.Module,
        back: nn.Module,
        pairs: Sequence[tuple[str, str]],
        sizes: Sequence[tuple[int, ...]],
    ):
        self.networks, self.pairs, self.sizes = (front, back), pairs, sizes
        self.calls = dict[tuple[str, ...], Calls](), dict[tuple[str, ...], Calls]()

    def __call__(self, images: Tensor, places: Sequence[int]) -> list[Pair]:
        one, two = (
            self._features(side, images, [self.pairs[place][side] for place in places]) for side in (0, 1)
        )
        return [
            (resized(own.to(other.device), self.sizes[place]), other)
            for place, own, other in zip(places, one, two, strict=True)
        ]

    def _features(self, side: int, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        network, calls = self.networks[side], self.calls[side].setdefault(tuple(sorted(set(layers))), Calls())
        with feature_extractor(network, set(layers), counts=calls) as extract:
            found = extract(images.to(device_of(network)))
            return [as_maps(features(found, layer)) for layer in layers]


def resized(maps: Float[Tensor, "n c h w"], size: Sequence[int]) -> Float[Tensor, "n c h2 w2"]:
    """The maps at another size, bilinear, averaged where they shrink; as they are where it is the same."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=list(size), mode="bilinear", antialias=True)


def _layers(
    front: nn.Module,
    back: nn.Module,
    layers: Sequence[str | tuple[str, str]] | None,
    example: Float[Tensor, "n c h w"],
) -> list[tuple[str, str]]:
    if layers is not None:
        if isinstance(layers, str) or not layers:
            raise ValueError(f"layers={layers!r}; wanted a list of paths, or of pairs of them, or None")
        return [(one, one) if isinstance(one, str) else one for one in layers]
    own, other = (stages(net, example.to(device_of(net))) for net in (front, back))
    other = passed_through(back, other, example)
    if own != other and len(own) != len(other):
        own = [own[round((place + 1) * len(own) / len(other)) - 1] for place in range(len(other))]
    return list(zip(own, other, strict=True))


def _sizes(
    front: nn.Module, back: nn.Module, pairs: Sequence[tuple[str, str]], example: Float[Tensor, "n c h w"]
) -> list[tuple[int, ...]]:
    """The size of the back network's maps at each place.

    Raises:
        ValueError: the two layers of a place output things of different kinds.
    """
    first, other = (
        outputs(net, example, list(dict.fromkeys(pair[side] for pair in pairs)))
        for side, net in enumerate((front, back))
    )
    sizes = []
    for one, two in pairs:
        given, wanted = first[one], other[two]
        if given.dim() != wanted.dim() or (given.dim() == 3 and given.shape[2] != wanted.shape[2]):
            raise ValueError(
                f"{one!r} outputs {_kind(given)} and {two!r} {_kind(wanted)}; wanted layers that both "
                "output maps, or both a row of values, or as many tokens"
            )
        sizes.append(tuple(as_maps(wanted).shape[2:]))
    return sizes


def _kind(features: Tensor) -> str:
    if features.dim() == 3:
        return f"{features.shape[2]} tokens"
    return "maps" if features.dim() == 4 else "a row of values"


def _accuracy(network: nn.Module, data: Data, *, like: nn.Module | None = None) -> Proportion | None:
    """The network's own accuracy; None where it has another number of classes than another network."""
    right, total = 0, 0
    for images, labels in examples(data, network):
        logits = predict(network, images)
        if like is not None and logits.shape[1:] != predict(like, images[:1].to(device_of(like))).shape[1:]:
            return None
        right, total = right + int((logits.argmax(1) == labels).sum()), total + len(images)
    return Proportion(right, total)


def _checked(found: Proportion | None) -> Proportion:
    assert found is not None
    return found
