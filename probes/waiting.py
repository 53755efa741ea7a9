"""Questions to a device: asked where the answer is at hand, elsewhere seldom, as each waits for it."""

import torch
from torch import Tensor

AT_HAND = {"cpu"}  # kinds of devices whose values are there as soon as they are asked for
EVERY = 8  # turns of a loop from one question to the next, elsewhere


def known(condition: Tensor) -> bool | None:
    """Whether a condition holds; None where to ask would be to wait."""
    return bool(condition) if condition.device.type in AT_HAND else None


def is_time(turn: int, device: torch.device) -> bool:
    """Whether a loop may ask in this turn, counted from 0: in each where it costs nothing."""
    return device.type in AT_HAND or turn % EVERY == EVERY - 1
