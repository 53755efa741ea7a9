"""scikit-learn's handwritten digits: 1797 images of 8 x 8 pixels, with no download."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Int
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.transforms import v2

from fulgurite.data.augment import noisy, shifted
from fulgurite.data.crops import smoothly
from fulgurite.data.datasets import InMemory
from fulgurite.data.image_data_module import ImageData, check_side
from fulgurite.data.splits import few, folded, set_aside

NAMES = tuple("0123456789")
LARGEST = 512
"""The largest side, in pixels: all images are in memory, and more than 8 pixels show no more detail."""


class Digits(ImageData):
    """The digits in grey, 70 % of each to train on, 10 % to validate, 20 % to test.

    `size` enlarges them, `channels=3` repeats the grey. Training images move by up to `shift` pixels (of a
    32-pixel image; in proportion at other sizes) and carry noise of standard deviation up to `noise`; 0 turns
    either off. `seed` determines the split.

    `only` some of the digits, as classes in the order given; each is split as it is among all ten. With
    `fold=(number, folds)`, the images outside the test part are split into folds, and that one, from 0, is
    for validation. With `per_class`, no more images of each class than that are trained on; with the same
    seed, a larger number includes the smaller one.
    """

    framing = "digit"

    def __init__(
        self,
        *,
        size: int = 32,
        channels: int = 1,
        only: Sequence[int] | None = None,
        fold: tuple[int, int] | None = None,
        per_class: int | None = None,
        shift: float = 2.0,
        noise: float = 0.3,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size=batch_size, workers=workers, seed=seed)
        if size < 8:
            raise ValueError(f"the digits have 8 x 8 pixels and can be enlarged only; got size {size}")
        check_side(size, largest=LARGEST)
        if channels not in (1, 3):
            raise ValueError(f"channels is 1 for grey, or 3 for the same grey three times; got {channels}")
        chosen = tuple(range(10) if only is None else only)
        if len(chosen) < 2 or len({*chosen} & {*range(10)}) < len(chosen):
            raise ValueError(f"only is two or more different digits of 0 to 9; got {chosen}")
        if not (0 <= shift <= 32 and 0 <= noise <= 10):
            raise ValueError(
                f"shift is from 0 to 32 pixels, noise from 0 to 10, and 0 is none; got {shift} and {noise}"
            )
        self.shift = shift * size / 32
        self.noise = noise
        self.classes = tuple(NAMES[digit] for digit in chosen)
        self.channels = channels
        self.size = size

        values, digits = load_digits(return_X_y=True)
        digits = torch.from_numpy(digits).long()
        self._images = smoothly(torch.from_numpy(values).float().reshape(-1, 1, 8, 8) / 16, size)

        places = torch.full((10,), -1)
        places[list(chosen)] = torch.arange(len(chosen))
        self._labels = places[digits]
        self._train, self._val, self._test = (
            part[self._labels[part] >= 0] for part in _divided(digits, fold=fold, seed=seed)
        )
        if per_class is not None:
            labels = self._labels[self._train]
            self._train = self._train[few(labels, self.classes, per_class=per_class, seed=seed)]
        self.mean = (self._images[self._train].mean().item(),) * channels
        self.std = (self._images[self._train].std().item(),) * channels

    def parts(self) -> tuple[InMemory, InMemory, InMemory]:
        """All in memory; only the first is augmented."""
        changes = []
        if self.shift:
            changes.append(partial(shifted, by=self.shift))
        if self.noise:
            changes.append(partial(noisy, spread=self.noise))
        augment = v2.Compose(changes) if changes else None
        return self._part(self._train, augment), self._part(self._val), self._part(self._test)

    def _part(self, chosen: Int[Tensor, "n"], augment: v2.Compose | None = None) -> InMemory:
        images, labels = self._images[chosen], self._labels[chosen]
        return InMemory(images, labels, self.classes, channels=self.channels, augment=augment)


def _divided(
    digits: Int[Tensor, "n"], *, fold: tuple[int, int] | None, seed: int
) -> tuple[Int[Tensor, "train"], Int[Tensor, "val"], Int[Tensor, "test"]]:
    rest, test = set_aside(digits, share=0.2, seed=seed)
    if fold is None:
        train, val = set_aside(digits[rest], share=0.125, seed=seed)
    else:
        train, val = folded(digits[rest], NAMES, fold=fold, seed=seed)
    return rest[train], rest[val], test
