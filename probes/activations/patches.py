"""Strongest patches: the parts of a data set's images that excite units of a layer most (Girshick 2014)."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.activations.receptive_field import LARGEST, ReceptiveField, receptive_fields
from fulgurite.probes.activations.top_responses import TopResponses, top_responses
from fulgurite.probes.counted import counted
from fulgurite.probes.distributed import merge_processes, shard
from fulgurite.probes.indexed_images import Data, Examples, indexed, numbered
from fulgurite.probes.render import RGB, picture

AROUND = 1.6
"""The side of what is shown of an image, in sides of the receptive field."""
Box = tuple[int, int, int, int]
"""Top, left, bottom, right, in pixels; the last two are not included."""


@dataclass(frozen=True)
class Patch:
    """A part of an image to which a unit responds.

    Args:
        image: the image's id.
        value: the unit's response.
        box: what the unit sees of the image: its receptive field, as far as it lies on the image.
        window: the part of the image in `pixels`: the box, and some of what is around it.
        pixels: the window.
        label: the number of the image's class, if it has one.
    """

    image: int
    value: float
    box: Box
    window: Box
    pixels: RGB
    label: int | None


@dataclass(frozen=True)
class Patches:
    """The strongest patches of units of a layer, strongest first: a row for each unit.

    Args:
        layer: its path.
        channels: the numbers of those units that are channels.
        of_channels: their patches.
        of_directions: the patches of random directions in the space of all channels.
        field: the receptive field of a unit; None if it is the whole image.
    """

    layer: str
    channels: tuple[int, ...]
    of_channels: Sequence[Sequence[Patch]]
    of_directions: Sequence[Sequence[Patch]]
    field: ReceptiveField | None


def strongest_patches(
    network: nn.Module,
    data: Data,
    layers: Sequence[str],
    *,
    units: Sequence[int] | None = None,
    directions: int = 0,
    k: int = 9,
    seed: int = 0,
    processes: bool = False,
    batch_size: int | None = None,
    progress: str | None = None,
) -> dict[str, Patches]:
    """The patches that excite units of layers most, over a whole data set: `k` of each unit, from `k` images.

    A unit is a channel, at any position, or a random direction in the space of a layer's channels: a vector
    of length 1, drawn evenly from the sphere, whose response is its product with the channels at a position.
    If channels respond to one class more often than directions do, they are a better basis than others, which
    Szegedy et al. 2013 doubted: see `class_purity`. All units are found in one pass, in memory that does not
    grow with the number of images; then the images of the strongest patches are read again. Girshick et al.
    2014, arxiv.org/abs/1311.2524; Springenberg et al. 2015, arxiv.org/abs/1412.6806; Szegedy et al. 2013,
    arxiv.org/abs/1312.6199.

    Args:
        network: maps images in [0, 1] to logits; in eval mode, and unchanged after it.
        data: a data set, a DataLoader, images, or batches that can be read twice: see `numbered`.
        layers: by path; each outputs maps, or tokens that lie on a grid.
        units: the numbers of channels; all of them without it. Memory grows with their patches.
        directions: how many random directions.
        k: how many patches of each unit.
        seed: of the directions.
        processes: every process of a distributed run calls this with the same data set, reads its share of
            the images, and gets the result of a single process; otherwise, each call reads all images.
        batch_size: how many images at a time; as many as suit the device without it.
        progress: a label for a progress bar; none without it.

    Raises:
        ValueError: no such layer or channel, a layer without spatial extent, fewer images than `k`, responses
            that are NaN, batches that can be read only once, or as `stream` says.
    """
    dataset, _ = indexed(data)
    if isinstance(data, Iterator):
        raise ValueError(
            f"a {type(data).__name__} gives its images once, and patches are read again; wanted a data set, "
            "or a list of batches"
        )
    if processes and not isinstance(dataset, Sized):
        raise ValueError("processes share images by their numbers; wanted a data set that is read by index")
    found = top_responses(
        network,
        data,
        layers,
        units=units,
        directions=directions,
        k=k,
        seed=seed,
        ids=shard(len(dataset)) if processes and isinstance(dataset, Sized) else None,
        batch_size=batch_size,
        progress=progress,
    )
    if processes:
        for own in found.values():
            merge_processes(own.top)
    _check_images(found)
    some = next(_examples(data, next(iter(found.values())).top.ids[0, :1].tolist()))
    return cut_patches(data, found, fields_of(network, found, some.images.shape[1:]))


def cut_patches(
    data: Data, found: Mapping[str, TopResponses], fields: Mapping[str, ReceptiveField | None]
) -> dict[str, Patches]:
    """The patches at which units respond most, from the images themselves.

    Args:
        data: the images, by the ids of the responses.
        found: what `top_responses` gives.
        fields: the receptive field of each layer; None where it is the whole image.

    Raises:
        ValueError: there were fewer images than patches of each unit, or the data lack one.
    """
    _check_images(found)
    wanted = sorted({number for own in found.values() for number in own.top.ids.flatten().tolist()})
    cuts = dict[tuple[str, int, int], Patch]()
    for numbers, images, labels in _examples(data, wanted):
        for place, number in enumerate(numbers.tolist()):
            label = None if labels is None else int(labels[place])
            for layer, own in found.items():
                for unit, rank in (own.top.ids == number).nonzero().tolist():
                    value, position = own.top.values[unit, rank], own.top.positions[unit, rank].tolist()
                    box, window = _boxes(images[place], fields[layer], position)
                    cuts[layer, unit, rank] = Patch(
                        number, float(value), box, window, _part(images[place], window), label
                    )
    if len(cuts) < sum(own.top.ids.numel() for own in found.values()):
        raise ValueError("the data lack images that they gave before; wanted the same ones each time")
    return {layer: _patches(own, cuts, fields[layer]) for layer, own in found.items()}


def check_enough(images: int, k: int) -> None:
    """Check that there are as many images as patches of each unit, as each is from another one.

    Raises:
        ValueError: there are fewer.
    """
    if images < k:
        raise ValueError(
            f"{counted(images, 'image')} for {k} patches of each unit; wanted at least {k}, or fewer patches"
        )


def fields_of(
    network: nn.Module, found: Mapping[str, TopResponses], shape: Sequence[int], *, largest: int = LARGEST
) -> dict[str, ReceptiveField | None]:
    """The receptive fields of layers, for images of a shape [channels, height, width].

    None where they are the whole image, or more than `largest` pixels.
    """
    mapped, fields = [layer for layer, own in found.items() if own.maps is not None], {}
    if mapped:
        fields = receptive_fields(network, mapped, channels=shape[0], largest=largest, side=shape[1])
    return {layer: fields.get(layer) for layer in found}


def class_purity(labels: Int[Tensor, "units k"], values: Float[Tensor, "units k"] | None = None) -> float:
    """The share of a unit's patches that are of its most frequent class, averaged over units.

    Between 1 / k and 1. The labels are those of the images of each unit's patches, the values its responses:
    patches with a response of 0, such as all those of a silent unit, are arbitrary, and are left out. NaN
    where no unit responds.

    Raises:
        ValueError: there are no patches.
    """
    return float(unit_purities(labels, values).nanmean())


def unit_purities(
    labels: Int[Tensor, "units k"], values: Float[Tensor, "units k"] | None = None
) -> Float[Tensor, "units"]:
    """The class purity of each unit, as `class_purity` has it; NaN of a silent one."""
    if not labels.numel():
        raise ValueError("no patches; wanted at least one")
    responds = torch.ones_like(labels, dtype=torch.bool) if values is None else values != 0
    counts = ((labels[:, :, None] == labels[:, None]) & responds[:, None]).sum(2) * responds
    return counts.amax(1).double() / responds.sum(1)


def labels_of(units: Sequence[Sequence[Patch]]) -> Int[Tensor, "units k"] | None:
    """The numbers of the classes of patches, a row for each unit; None where there are none."""
    known = [[patch.label for patch in patches if patch.label is not None] for patches in units]
    complete = units and all(len(own) == len(patches) > 0 for own, patches in zip(known, units, strict=True))
    return torch.tensor(known) if complete else None


def _check_images(found: Mapping[str, TopResponses]) -> None:
    for own in found.values():
        check_enough(int((own.top.ids[:1] >= 0).sum()), own.top.k)


def _examples(data: Data, wanted: Sequence[int]) -> Iterator[Examples]:
    """The images of these ids."""
    dataset, _ = indexed(data)
    device = torch.device("cpu")
    if dataset is not None:
        yield from numbered(data, wanted, device=device)
        return
    for numbers, images, labels in numbered(data, device=device):
        rows = torch.isin(numbers, torch.tensor(wanted))
        if bool(rows.any()):
            yield Examples(numbers[rows], images[rows], None if labels is None else labels[rows])


def _part(image: Float[Tensor, "c h w"], box: Box) -> RGB:
    top, left, bottom, right = box
    return picture(image[:, top:bottom, left:right])


def _boxes(
    image: Float[Tensor, "c h w"], field: ReceptiveField | None, position: Sequence[int]
) -> tuple[Box, Box]:
    """What the unit sees of the image, and what is shown of it."""
    height, width = image.shape[1:]
    if field is None:
        return (0, 0, height, width), (0, 0, height, width)
    row, column = position
    return field.box(row, column, height, width), _window(field, position, (height, width))


def _window(field: ReceptiveField, position: Sequence[int], image: tuple[int, int]) -> Box:
    """A square around the field, moved so that it lies on the image."""
    wanted = round(AROUND * max(field.size))
    starts, sides = list[int](), list[int]()
    for axis in (0, 1):
        side = min(wanted, image[axis])
        middle = field.offset[axis] + field.stride[axis] * position[axis] + field.size[axis] / 2
        starts.append(min(max(round(middle - side / 2), 0), image[axis] - side))
        sides.append(side)
    return starts[0], starts[1], starts[0] + sides[0], starts[1] + sides[1]


def _patches(
    own: TopResponses, cuts: Mapping[tuple[str, int, int], Patch], field: ReceptiveField | None
) -> Patches:
    rows = [[cuts[own.layer, unit, rank] for rank in range(own.top.k)] for unit in range(len(own.top.ids))]
    channels = len(own.channels)
    return Patches(own.layer, own.channels, rows[:channels], rows[channels:], field)
