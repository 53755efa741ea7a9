"""Data of the test modules with other labels and other forms of a batch."""

from collections.abc import Callable
from typing import Any

import somebody
from torch.utils.data import DataLoader, Dataset


class Labelled(Dataset):
    """The images of blobs, with labels that a function makes of class numbers."""

    def __init__(
        self, make: Callable[[int], Any] = lambda label: label, *, form: str = "tuple", size: int = 12
    ):
        self.blobs, self.make, self.form = somebody.Blobs(12, size=size), make, form

    def __len__(self):
        return len(self.blobs)

    def __getitem__(self, index):
        image, label = self.blobs[index]
        batch = image, self.make(label)
        return {"pixel_values": batch[0], "labels": batch[1]} if self.form == "dict" else batch


def loader(*options, **named) -> DataLoader:
    return DataLoader(Labelled(*options, **named), batch_size=4)
