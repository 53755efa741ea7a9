"""Equivariance of layers: features of transformed images mapped back by linear maps (Lenc & Vedaldi 2015)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.channels import features
from fulgurite.probes.feature_extractor import Calls, feature_extractor
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.indexed_images import Data, first_images
from fulgurite.probes.representation.hog import HOG
from fulgurite.probes.representation.image_transforms import (
    ImageTransform,
    image_transform,
    usual_transforms,
)
from fulgurite.probes.representation.linear import Proportion, ridge
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
from fulgurite.probes.tokens import token_grid

ORIGINAL, NONE, POSITIONS, TRAINED = "not transformed", "transformed, no map", "permutation", "trained"
HOG_ROW = "HOG"


@dataclass(frozen=True)
class Equivariance:
    """The accuracy on transformed images whose features at a layer are mapped back.

    Args:
        layers: by path; the last may be "HOG", the classical features with a linear classifier of their own.
        original: the accuracy on the images as they are, for each layer: the network's, or HOG's.
        none: by transformation: the accuracy on transformed images without a map, for each layer.
        maps: by transformation: what each kind of map recovers at each layer; `error` is the squared error of
            the features over their variance.
    """

    layers: tuple[str, ...]
    original: list[Proportion]
    none: dict[str, list[Proportion]] = field(default_factory=dict)
    maps: dict[str, Recovered] = field(default_factory=dict)

    def bars(self, transform: str) -> dict[str, list[float]]:
        """The accuracies for each layer, by what was done, for a picture; NaN where there is no such map."""
        found = {ORIGINAL: self.original, NONE: self.none[transform], **self.maps[transform].accuracy}
        return {
            name: [torch.nan if own is None else own.accuracy for own in values]
            for name, values in found.items()
        }

    def table(self) -> list[list[str]]:
        """A head, and a row for each transformation and layer: for a CSV file."""
        kinds = list(next(iter(self.maps.values())).accuracy)
        head = ["transformation", "layer", ORIGINAL, NONE, *kinds, *(f"error, {kind}" for kind in kinds)]
        rows = [head]
        for name, own in self.maps.items():
            bars = self.bars(name)
            for place, layer in enumerate(self.layers):
                values = [bars[kind][place] for kind in (ORIGINAL, NONE, *kinds)]
                values += [own.error[kind][place] for kind in kinds]
                rows.append([name, layer, *(f"{value:.6g}" for value in values)])
        return rows

    def text(self) -> str:
        """The accuracies for people."""
        rows = [row[: 4 + len(next(iter(self.maps.values())).accuracy)] for row in self.table()]
        cells = [rows[0], *([*row[:2], *(_percent(cell) for cell in row[2:])] for row in rows[1:])]
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if column > 1 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        )


def equivariance(
    network: nn.Module,
    fit: Data,
    test: Data,
    transforms: Sequence[str] | None = None,
    *,
    layers: Sequence[str] | None = None,
    kernels: Sequence[int] = (1, 3),
    epochs: int = 0,
    hog: bool = False,
    progress: Callable[[Sequence[str]], Iterable[str]] = lambda steps: steps,
) -> Equivariance:
    """Whether what a transformation of the image does to a layer can be undone there by a linear map.

    A layer is equivariant if a map M recovers its features of an image from those of the transformed image:
    F(x) = M F(g x). M first brings each position back to where it was ("permutation", which for flips it
    is), and then puts the maps through a filter bank, fitted by ridge regression ("1 x 1", "3 x 3"), or
    "trained" besides on the labels through the rest of the network. How well F(x) is recovered is measured by
    the accuracy of the network from there on, between that without a map and that on images as they are. A
    layer is invariant if no map is needed. Before global pooling, "permutation" is the same as no map. Lenc &
    Vedaldi 2015, arxiv.org/abs/1411.5908.

    For each transformation two passes over the images to fit to, and two for each layer over the test images:
    for checkpoints, or every k epochs.

    Args:
        network: maps images to logits.
        fit: labelled images to fit the maps to.
        test: others, to score on.
        transforms: by name, see `image_transform`; a choice of each kind without it.
        layers: by path; without it the stages, those through which everything passes.
        kernels: the sides of the filters, odd; tokens are mapped one by one alone, and a map that would read
            more than 4096 values is left out.
        epochs: of training a map 1 x 1 through the rest of the network; 0 for none.
        hog: whether to add a row for HOG features, with a linear classifier fitted to the same images.
        progress: wraps the transformations, to show how far it is.

    Raises:
        ValueError: no such layer or transformation, images without class numbers, tokens that lie on no grid
            that the network defines, or a layer that other paths lead around.
    """
    example = first_images(test, device=device_of(network), size=2)
    transforms = usual_transforms(example.shape) if transforms is None else transforms
    known = [image_transform(word) for word in dict.fromkeys(transforms)]
    if not known or any(side < 1 or side % 2 == 0 for side in kernels):
        raise ValueError(f"transforms={transforms!r}, kernels={kernels!r}; wanted some, and odd sides")
    example = example.to(device_of(network))
    own = [*layers] if layers is not None else passed_through(network, stages(network, example), example)
    kinds = {POSITIONS: MapKind(0), **{f"{side} x {side}": MapKind(side) for side in kernels}}
    if epochs:
        kinds[TRAINED] = MapKind(1, epochs=epochs)
    parts = [(network, own)]
    if hog:
        parts.append((hog_classifier(fit, device_of(network)), ["0"]))
    found = Equivariance((*own, *([HOG_ROW] * hog)), [])
    for net, names in parts:
        found.original.extend([_accuracy(net, test)] * len(names))
    by_name = {transform.name: transform for transform in known}
    for name in progress(list(by_name)):
        transform = by_name[name]
        found.none[name], found.maps[name] = (
            [],
            Recovered({kind: [] for kind in kinds}, {kind: [] for kind in kinds}),
        )
        for net, names in parts:
            found.none[name].extend([_accuracy(net, test, transform)] * len(names))
            with frozen_eval(net) as frozen:
                made = recovered(_Undone(frozen, names, transform), frozen, names, fit, test, kinds)
            for kind in kinds:
                found.maps[name].accuracy[kind].extend(made.accuracy[kind])
                found.maps[name].error[kind].extend(made.error[kind])
    return found


def hog_classifier(fit: Data, device: torch.device) -> nn.Sequential:
    """HOG features, eight cells a side, and a linear classifier fitted to images (ridge regression)."""
    parts = list(examples(fit, nn.Conv2d(1, 1, 1).to(device)))
    images, labels = (torch.cat([part[place] for part in parts]) for place in (0, 1))
    hog = HOG(cell=max(1, min(images.shape[2:]) // 8))
    values = torch.cat([hog(part).flatten(1) for part in images.split(256)])
    head = ridge(values, labels).layer()
    return nn.Sequential(hog, nn.Flatten(), head).to(device).eval()


class _Undone:
    """Features of transformed images, with positions where they came from, and features of the images."""

    def __init__(self, network: nn.Module, layers: Sequence[str], transform: ImageTransform):
        self.network, self.layers, self.transform = network, layers, transform
        self.calls = dict[tuple[str, ...], Calls]()

    def __call__(self, images: Tensor, places: Sequence[int]) -> list[Pair]:
        layers = [self.layers[place] for place in places]
        calls = self.calls.setdefault(tuple(sorted(set(layers))), Calls())
        size = (images.shape[2], images.shape[3])
        with feature_extractor(self.network, set(layers), counts=calls) as extract:
            moved = extract(self.transform(images))
            given = [self._undone(features(moved, layer), layer, size) for layer in layers]
            plain = extract(images)
            return [(own, as_maps(features(plain, layer))) for own, layer in zip(given, layers, strict=True)]

    def _undone(self, found: Tensor, layer: str, size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
        if found.dim() != 3:
            return self.transform.undone(as_maps(found), size)
        # tokens: the patches are moved, a class token is not
        grid = token_grid(self.network, (len(found), found.shape[2], found.shape[1]))
        if grid is None:
            raise ValueError(f"{layer!r} outputs tokens that lie on no grid that the network states")
        patches = found[..., grid.prefix :].unflatten(2, grid.size)
        back = self.transform.undone(patches, size).flatten(2)
        return as_maps(torch.cat([found[..., : grid.prefix], back], 2))


def _accuracy(network: nn.Module, data: Data, transform: ImageTransform | None = None) -> Proportion:
    right, total = 0, 0
    with frozen_eval(network) as net, torch.no_grad():
        for images, labels in examples(data, net):
            logits = net(images if transform is None else transform(images))
            right, total = right + int((logits.argmax(1) == labels).sum()), total + len(images)
    return Proportion(right, total)


def _percent(cell: str) -> str:
    return "-" if cell == "nan" else f"{float(cell):.1%}"
