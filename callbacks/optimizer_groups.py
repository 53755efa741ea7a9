"""Learning rate, frozen share and gradient norm of each parameter group of the optimizers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fulgurite.callbacks.framework.artifacts import Table


@dataclass(frozen=True)
class Group:
    """A group of an optimiser: its learning rate, number of weights, and the share of them that is frozen.

    `pull` is the length of its gradient, the root mean square over the steps that were read.
    """

    lr: float
    weights: int
    frozen: float
    pull: float | None


class GradientNorms:
    """Sums of the squared gradient norms of each parameter group over the steps, on the device."""

    def __init__(self, sums: Mapping[str, tuple[Tensor, int]] | None = None):
        self._sums = dict(sums or {})

    def sums(self) -> dict[str, tuple[Tensor, int]]:
        """The sum of squared norms, and the number of steps, of each group: what a checkpoint keeps."""
        return dict(self._sums)

    def read(self, optimizers: Iterable[Optimizer], stepping: Optimizer) -> None:
        """Read the gradients of the groups of the coming step, without changing them."""
        for name, group in _named(optimizers).items():
            gradients = [weight.grad for weight in group["params"] if weight.grad is not None]
            mine = any(group is own for own in stepping.param_groups)
            if mine and gradients and not group.get("frozen"):
                square = torch.nn.utils.get_total_norm(gradients).double().square()
                total, steps = self._sums.get(name, (torch.zeros_like(square), 0))
                # where half precision overflows, no step is taken
                self._sums[name] = total + torch.where(square.isfinite(), square, 0), steps + 1

    def of(self, name: str) -> float | None:
        """The root mean square for a group; None where there was no gradient."""
        if name not in self._sums:
            return None
        total, steps = self._sums[name]
        return float(total / steps) ** 0.5


def optimizer_groups(
    optimizers: Iterable[Optimizer], module: nn.Module, pulls: GradientNorms
) -> dict[str, Group]:
    """The groups by name, as they are now; parameters of the module in none of them come last.

    A group is frozen as far as its weights need no gradient, or altogether if it says so by `frozen`.
    """
    known = _named(optimizers)
    learning = {id(weight) for group in known.values() for weight in group["params"]}
    rest = [weight for weight in module.parameters() if id(weight) not in learning]
    if known and rest:
        known["in no group"] = {"params": rest, "lr": 0.0, "frozen": True}
    found = {}
    for name, group in known.items():
        weights = sum(weight.numel() for weight in group["params"])
        still = [weight for weight in group["params"] if group.get("frozen") or not weight.requires_grad]
        frozen = sum(weight.numel() for weight in still) / max(1, weights)
        found[name] = Group(float(group["lr"]) if frozen < 1 else 0.0, weights, frozen, pulls.of(name))
    return found


def table(known: Mapping[str, Group]) -> Table:
    """The groups as rows."""
    rows = [
        [name, f"{own.lr:.3g}", str(own.weights), f"{own.frozen:.0%}", f"{own.pull:.3g}" if own.pull else ""]
        for name, own in known.items()
    ]
    return Table(["group", "learning rate", "weights", "frozen", "gradient"], rows)


def _named(optimizers: Iterable[Optimizer]) -> dict[str, dict[str, Any]]:
    """The groups by their names, or else by their numbers."""
    every = [group for optimizer in optimizers for group in optimizer.param_groups]
    names = [str(group.get("name", f"group {number}")) for number, group in enumerate(every)]
    return {
        f"{name} ({number})" if names.count(name) > 1 else name: group
        for number, (name, group) in enumerate(zip(names, every, strict=True))
    }
