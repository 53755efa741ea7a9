"""Indices, positions and targets of objectives, one for all images or one for each."""

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.counted import counted

Index = int | Int[Tensor, ""] | Int[Tensor, "n"]


class PerImage:
    """A tensor to compare with, one for all images or one for each; brought to a device once.

    A copy, whatever the device: no graph may keep a tensor made under inference_mode.
    """

    def __init__(self, value: Tensor, *, many: bool):
        self.many, self._on = many, dict[torch.device, Tensor]()
        with torch.inference_mode(False):
            self._own = value.detach().clone()

    def on(self, device: torch.device) -> Tensor:
        """On a device."""
        if device == self._own.device:
            return self._own
        if device not in self._on:
            with torch.inference_mode(False):
                self._on[device] = self._own.to(device)
        return self._on[device]

    def some(self, rows: Int[Tensor, "m"], count: int) -> "PerImage":
        """The values for images that are the `rows` of a batch of `count`.

        Raises:
            ValueError: it holds values for another number of images.
        """
        if not self.many:
            return self
        if len(self._own) != count:
            raise ValueError(
                f"an objective for {counted(len(self._own), 'image')} came with {count}; wanted one for each"
            )
        some = copy.copy(self)
        some._own, some._on = self.on(rows.device)[rows], {}
        return some

    def fitting(self, out: Tensor, layer: str) -> Tensor:
        """The target that an output of a layer is compared with.

        Raises:
            ValueError: the output is of another shape.
        """
        target = self.on(out.device)
        if out.shape[1:] != target.shape[-(out.dim() - 1) :]:
            raise ValueError(
                f"{layer!r} outputs {tuple(out.shape[1:])}, but {tuple(target.shape)} came to compare with"
            )
        return target


class Indices(PerImage):
    """Numbers that count from 0, read once, not at every look: of classes, channels, rows, columns.

    `name` is such as "class 3"; of many, it holds the first four.
    """

    def __init__(self, index: Index, what: str):
        numbers = [int(index)] if isinstance(index, int) or index.dim() == 0 else index.tolist()
        places = index if isinstance(index, Tensor) else torch.tensor(numbers)
        super().__init__(places.long().reshape(-1), many=not isinstance(index, int) and index.dim() > 0)
        self.what, self.lowest, self.highest = what, min(numbers, default=0), max(numbers, default=0)
        self.name = f"{what} {', '.join(map(str, numbers[:4]))}{', ...' * (len(numbers) > 4)}"

    def below(self, size: int, count: int, device: torch.device) -> int | Int[Tensor, "n"]:
        """The number, or one for each of `count` images.

        Raises:
            ValueError: there are only `size`, or there is not one for each image.
        """
        if not (self.lowest >= 0 and self.highest < size):
            wrong = self.lowest if self.lowest < 0 else self.highest
            raise ValueError(f"no {self.what} {wrong}: there are {size}, counted from 0")
        if not self.many:
            return self.lowest
        places = self.on(device)
        if len(places) != count:
            raise ValueError(
                f"{len(places)} {self.what} indices for {counted(count, 'image')}; wanted one for each, "
                "or a single int"
            )
        return places

    def pick(self, values: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
        """One value of each image."""
        places = self.below(values.shape[1], len(values), values.device)
        return values[:, places] if isinstance(places, int) else values.gather(1, places[:, None])[:, 0]
