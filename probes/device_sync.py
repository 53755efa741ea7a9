"""Reading values from a device: free on a CPU; on a GPU each read waits, so loops read rarely."""

import torch
from torch import Tensor

AT_HAND = {"cpu"}  # kinds of devices on which reading a value does not wait
EVERY = 8  # iterations from one read to the next, on other devices


def known(condition: Tensor) -> bool | None:
    """Whether a condition holds; None where reading it would wait."""
    return bool(condition) if condition.device.type in AT_HAND else None


def is_time(turn: int, device: torch.device) -> bool:
    """Whether a loop may read a value in this iteration, counted from 0: always on a CPU."""
    return device.type in AT_HAND or turn % EVERY == EVERY - 1
