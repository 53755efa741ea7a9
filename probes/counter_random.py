"""Philox: random numbers that depend only on a seed and a counter, drawn on any device.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": ten rounds of Philox 4 x 32. What is drawn
for a number does not depend on what else is drawn, in which order, or where: words are the same bit for bit
on every device, and numbers computed from them differ by rounding only.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ROUNDS = 10
_FACTORS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF  # 32 bits


def words(seed: int, numbers: Int[Tensor, "m"], count: int) -> Int[Tensor, "m count"]:
    """For each number, this many words: evenly from 0 to 2^32 - 1."""
    blocks = torch.arange(-(-count // 4), device=numbers.device)
    wide = numbers[:, None].expand(-1, len(blocks))
    state = [blocks.expand_as(wide), wide & _WORD, (wide >> 32) & _WORD, torch.zeros_like(wide)]
    keys = [seed & _WORD, (seed >> 32) & _WORD]
    for _ in range(_ROUNDS):
        # products of 32 bits wrap around in 64: shifted and masked, their halves are those without signs
        low, high = state[0] * _FACTORS[0], state[2] * _FACTORS[1]
        state = [
            ((high >> 32) & _WORD).bitwise_xor_(state[1]).bitwise_xor_(keys[0]),
            high & _WORD,
            ((low >> 32) & _WORD).bitwise_xor_(state[3]).bitwise_xor_(keys[1]),
            low & _WORD,
        ]
        keys = [(key + step) & _WORD for key, step in zip(keys, _KEY_STEPS, strict=True)]
    return torch.stack(state, 2).flatten(1)[:, :count]


def uniform(seed: int, numbers: Int[Tensor, "m"], *shape: int) -> Float[Tensor, "m *shape"]:
    """For each number, a tensor drawn evenly from [0, 1), in float32."""
    return _unit(words(seed, numbers, math.prod(shape))).view(-1, *shape)


def normal(seed: int, numbers: Int[Tensor, "m"], *shape: int) -> Float[Tensor, "m *shape"]:
    """For each number, a tensor of mean 0 and variance 1, in float32, by the method of Box and Muller."""
    count = math.prod(shape)
    drawn = words(seed, numbers, 2 * -(-count // 2)).unflatten(1, (2, -1))
    # from (0, 1], whose logarithms are finite
    lengths = (_unit(drawn[:, 0]) + 2**-24).log().mul_(-2).sqrt_()
    turns = _unit(drawn[:, 1]).mul_(2 * math.pi)
    pairs = torch.cat([lengths * turns.cos(), lengths * turns.sin()], 1)
    return pairs[:, :count].reshape(-1, *shape)


def _unit(drawn: Tensor) -> Tensor:
    return (drawn >> 8).float().mul_(2**-24)  # as many bits as float32 keeps
