"""Random numbers per image, so that an attack's result does not depend on the batch."""

import zlib
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


class PerImageRandom:
    """Random numbers, a row for each image; the random state of torch is neither read nor moved.

    Args:
        images: whom the numbers are for.
        generator: what they are drawn from. Without it, an image's numbers depend on its pixels and on `salt`
            alone: they are the same in every batch, and every time.
        salt: tells apart the draws of several restarts or attacks.
    """

    def __init__(
        self, images: Float[Tensor, "n c h w"], generator: torch.Generator | None = None, *, salt: int = 0
    ):
        self.like = images.new_zeros(())
        self.count = len(images)
        self.generator = generator
        self.own: list[torch.Generator] = []
        if generator is None:
            self.own = [_of(image, salt) for image in images.detach().cpu()]

    def uniform(self, *shape: int) -> Float[Tensor, "n *shape"]:
        """Numbers drawn evenly from [0, 1)."""
        return self._drawn(torch.rand, shape)

    def normal(self, *shape: int) -> Float[Tensor, "n *shape"]:
        """Numbers of mean 0 and variance 1."""
        return self._drawn(torch.randn, shape)

    def among(self, counts: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """A whole number for each image, from 0 to below its count."""
        return (self.uniform() * counts).long().minimum(counts - 1)

    def _drawn(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        if self.generator is not None:
            drawn = draw(self.count, *shape, generator=self.generator, device=self.generator.device)
        elif self.own:
            drawn = torch.stack([draw(*shape, generator=generator) for generator in self.own])
        else:
            drawn = torch.empty(0, *shape)
        return drawn.to(self.like)


def _of(image: Float[Tensor, "c h w"], salt: int) -> torch.Generator:
    # a generator takes 32 bits of its seed, no more
    return torch.Generator().manual_seed(zlib.crc32(image.float().contiguous().numpy().tobytes(), salt))
