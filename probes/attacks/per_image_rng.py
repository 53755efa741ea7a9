"""Random numbers per image, so that an attack's result does not depend on the batch."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes import counter_random

_SPREAD = -0x61C8864680B583EB  # 2^64 over the golden ratio, as a number with a sign; odd
_ROWS = 2**31  # more than there are images in a batch


class PerImageRandom:
    """Random numbers, a row for each image; the random state of torch is neither read nor moved.

    They are drawn where the images are, and are the same on every device but for rounding.

    Args:
        images: one row of numbers is drawn for each.
        generator: one number is drawn from it, on which all others depend. Without it, an image's numbers
            depend on its pixels and on `salt` alone: they are the same in every batch, and every time.
        salt: distinguishes the random numbers of restarts or attacks.
    """

    def __init__(
        self, images: Float[Tensor, "n c h w"], generator: torch.Generator | None = None, *, salt: int = 0
    ):
        self.like, self.salt, self.calls = images.new_zeros(()), salt, 0
        if generator is None:
            self.numbers = _of_pixels(images.detach())
        else:
            self.numbers = numbers_from(images, generator)

    @classmethod
    def of(cls, images: Tensor, numbers: Int[Tensor, "n"], *, salt: int) -> "PerImageRandom":
        """Draws that depend on one number for each image and on `salt`."""
        made = cls.__new__(cls)
        made.like, made.salt, made.calls, made.numbers = images.new_zeros(()), salt, 0, numbers
        return made

    def uniform(self, *shape: int) -> Float[Tensor, "n *shape"]:
        """Numbers drawn evenly from [0, 1)."""
        return counter_random.uniform(self._seed(), self.numbers, *shape).to(self.like)

    def normal(self, *shape: int) -> Float[Tensor, "n *shape"]:
        """Numbers of mean 0 and variance 1."""
        return counter_random.normal(self._seed(), self.numbers, *shape).to(self.like)

    def among(self, counts: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """A whole number for each image, from 0 to below its count."""
        return (self.uniform() * counts).long().minimum(counts - 1)

    def _seed(self) -> int:
        self.calls += 1
        return self.calls << 32 | self.salt % 2**32


def numbers_from(images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Int[Tensor, "n"]:
    """A number for each image, from one that is drawn from the generator; nobody waits for it."""
    drawn = torch.randint(2**31, (), generator=generator, device=generator.device).to(images.device)
    return drawn * _ROWS + torch.arange(len(images), device=images.device)


def _of_pixels(images: Float[Tensor, "n c h w"]) -> Int[Tensor, "n"]:
    """A hash of all pixels of each image, by integer sums: the same on every device."""
    bits = images.float().contiguous().flatten(1).view(torch.int32).long()
    odd = 2 * torch.arange(bits.shape[1], device=images.device) + 1
    mixed = (bits ^ (odd * _SPREAD)) * _SPREAD
    mixed = mixed ^ (mixed >> 29)
    return (mixed * odd).sum(1) if math.prod(images.shape[1:]) else bits.new_zeros(len(bits))
