"""Halves of a data set's classes, in memory: two tasks of the same kind."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fulgurite.data.datasets import InMemory, LabelledDataset, as_bytes
from fulgurite.data.image_data_module import ImageData


class Half(ImageData):
    """Some classes of other data, in memory."""

    def __init__(self, data: ImageData, parts: Sequence[InMemory], classes: Sequence[int], *, seed: int):
        super().__init__(batch_size=data.batch_size, seed=seed)
        self.classes = tuple(data.classes[k] for k in classes)
        self.channels, self.size, self.mean, self.std = data.channels, data.size, data.mean, data.std
        self._parts = [_of_classes(part, classes, self.classes) for part in parts]

    def parts(self) -> tuple[LabelledDataset, LabelledDataset, LabelledDataset]:
        """The images of these classes."""
        train, val, test = self._parts
        return train, val, test


def in_memory(data: ImageData, *, augment: Callable[[Tensor], Tensor] | None = None) -> list[InMemory]:
    """Training, validation and test images of data without augmentation, decoded once, as bytes."""
    data.setup()
    found = dict[int, InMemory]()
    for part in (data.train, data.val, data.test):
        if id(part) not in found:
            found[id(part)] = as_bytes(part, augment=augment if part is data.train else None)
    return [found[id(part)] for part in (data.train, data.val, data.test)]


def halves(classes: int, *, seed: int) -> tuple[list[int], list[int]]:
    """The classes of tasks A and B, chosen at random; of an odd number, B has one less.

    Raises:
        ValueError: fewer than two classes for each.
    """
    if classes < 4:
        raise ValueError(
            f"classes: {classes}, too few for two tasks of at least two each; wanted 4 or more, or another "
            "--source"
        )
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed)).tolist()
    middle = (classes + 1) // 2
    return sorted(order[:middle]), sorted(order[middle:])


def _of_classes(part: InMemory, classes: Sequence[int], names: tuple[str, ...]) -> InMemory:
    chosen = torch.isin(part.labels, torch.tensor(classes))
    places = torch.full((int(part.labels.max()) + 1,), -1)
    places[list(classes)] = torch.arange(len(classes))
    return InMemory(part.images[chosen], places[part.labels[chosen]], names, augment=part.augment)
