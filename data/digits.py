"""Handwritten digits that ship with scikit-learn: 1797 of 8 x 8 pixels, ready without a download."""

from functools import partial

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from fulgurite.data.augment import noisy, shifted
from fulgurite.data.images import ImageData
from fulgurite.data.labelled import InMemory
from fulgurite.data.splits import set_aside


class Digits(ImageData):
    """The digits in one channel, 70 % of each to train on, 10 % to validate, 20 % to test.

    `size` enlarges them. Training images move by up to `shift` pixels (of a 32-pixel image; in proportion at
    other sizes) and carry noise of standard deviation up to `noise`; 0 turns either off. `seed` decides the
    split.
    """

    def __init__(
        self,
        *,
        size: int = 32,
        shift: float = 2.0,
        noise: float = 0.3,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size=batch_size, workers=workers, seed=seed)
        if size < 8:
            raise ValueError(f"the digits have 8 x 8 pixels and can be enlarged only; got size {size}")
        if shift < 0 or noise < 0:
            raise ValueError(f"shift and noise cannot be negative, 0 turns them off; got {shift} and {noise}")
        self.shift = shift * size / 32
        self.noise = noise
        self.classes = tuple("0123456789")
        self.channels = 1
        self.size = size

        values, labels = load_digits(return_X_y=True)
        self._labels = torch.from_numpy(labels).long()
        self._images = torch.from_numpy(values).float().reshape(-1, 1, 8, 8) / 16
        if size > 8:
            # bicubic overshoots
            self._images = F.interpolate(self._images, size=size, mode="bicubic").clamp(0, 1)

        rest, self._test = set_aside(self._labels, share=0.2, seed=seed)
        train, val = set_aside(self._labels[rest], share=0.125, seed=seed)
        self._train, self._val = rest[train], rest[val]
        self.mean = (self._images[self._train].mean().item(),)
        self.std = (self._images[self._train].std().item(),)

    def parts(self) -> tuple[InMemory, InMemory, InMemory]:
        """All in memory; only the first is augmented."""
        changes = []
        if self.shift:
            changes.append(partial(shifted, by=self.shift))
        if self.noise:
            changes.append(partial(noisy, spread=self.noise))
        augment = v2.Compose(changes) if changes else None
        return (
            InMemory(self._images[self._train], self._labels[self._train], self.classes, augment=augment),
            InMemory(self._images[self._val], self._labels[self._val], self.classes),
            InMemory(self._images[self._test], self._labels[self._test], self.classes),
        )
