"""L-BFGS for images, each with its own history and line search."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fulgurite.probes.synthesis.optimizers import By, ImageOptimizer

RISE, CURVE = 1e-4, 0.9  # of the Wolfe conditions
PATIENCE = 12  # trials of a line search, before it starts again along the gradient


def lbfgs(*, memory: int = 10, first: float = 0.01, longest: float = math.inf) -> By:
    """L-BFGS (Liu & Nocedal 1989) with a bisection for the weak Wolfe conditions (Lewis & Overton 2013).

    Each step evaluates one point of each image's line search, so that a step costs one pass of the network as
    with other optimisers, a batch gives the same results as its images one by one, and nothing waits for a
    GPU. A search that fails starts again along the gradient, without history. Where steps are clamped to a
    lowest and a highest value, the conditions are those of the clamped step, and values that the gradient
    holds at a bound are left out of the next search. The objective must be the same at each evaluation: no
    random transform, no tiles.

    Args:
        memory: how many of an image's last steps make up its history.
        first: root mean square of the first step, in the canvas's own units.
        longest: root mean square of the first trial of each search, at most: where a sigmoid follows, too
            large a step ends in its flat part, without a gradient.
    """
    if memory < 1:
        raise ValueError(f"memory={memory}; wanted at least 1 step")
    return partial(_LBFGS, memory=memory, first=first, longest=longest)


class _LBFGS(ImageOptimizer):
    def __init__(self, parameters: Sequence[nn.Parameter], *, memory: int, first: float, longest: float):
        super().__init__(parameters)
        self.point = self._flat(self.parameters)  # the start of the line search, with its value and gradient
        count, size = self.point.shape
        numbers = self.point.new_zeros(count)
        self.value, self.gradient = numbers.clone(), torch.zeros_like(self.point)
        self.direction = torch.zeros_like(self.point)
        self.length, self.low, self.high = numbers + 1, numbers.clone(), numbers + math.inf
        self.trials = numbers.clone()
        self.proposed, self.wall = self.point, torch.zeros_like(self.point)
        self.known = torch.zeros_like(self.stuck)
        self.first, self.memory, self.longest = numbers + first, memory, longest
        self.shifts = self.point.new_zeros(count, memory, size)  # a ring for each image
        self.bends = torch.zeros_like(self.shifts)
        self.inverse = self.point.new_zeros(count, memory)  # 1 / (shift . bend); 0 where there is no step yet
        self.newest = torch.full_like(self.stuck, memory - 1, dtype=torch.long)

    def _flat(self, tensors: Sequence[Tensor]) -> Float[Tensor, "n d"]:
        return torch.cat([tensor.detach().flatten(1) for tensor in tensors], 1)

    @torch.no_grad()
    def step(self, values: Float[Tensor, "n"], gradients: Sequence[Tensor], done: float) -> None:
        del done
        now, gradient = self._flat(self.parameters), self._flat(gradients)
        finite = values.isfinite() & gradient.isfinite().all(1)
        self.stuck |= ~finite & ~self.known
        shift = now - self.point
        rise = (self.gradient * shift).sum(1)
        slack = 4 * torch.finfo(now.dtype).eps * self.value.abs()  # values are rounded
        risen = finite & (rise > 0) & (values >= self.value + RISE * rise - slack)
        flatter = (gradient * shift).sum(1) <= CURVE * rise
        late = self.trials >= PATIENCE
        accepted = finite & ~self.known | risen & self.known & (flatter | late)
        restart = self.known & ~risen & late
        self._remember(accepted & self.known, shift, self.gradient - gradient)
        self.wall = torch.where(accepted[:, None], self._walls(now, shift), self.wall)
        self.point = torch.where(accepted[:, None], now, self.point)
        self.gradient = torch.where(accepted[:, None], gradient, self.gradient)
        self.value = torch.where(accepted, values, self.value)
        self.known = self.known | accepted
        self._forget(restart)
        self._search(accepted | restart, risen)
        self.proposed = self.point + self.length[:, None] * self.direction
        self._move(self.proposed)

    def _walls(self, now: Tensor, shift: Tensor) -> Float[Tensor, "n d"]:
        """Where values were cut off, 1 at the highest and -1 at the lowest there are; they may stay there."""
        over = (self.proposed - now).sign()
        upper = (over > 0) & (now == now.amax(1, keepdim=True))
        lower = (over < 0) & (now == now.amin(1, keepdim=True))
        return torch.where(upper | lower, over, torch.where(shift == 0, self.wall, 0))

    def _search(self, restarted: Bool[Tensor, "n"], risen: Bool[Tensor, "n"]) -> None:
        """The next length: of a new search, or between what is known to be too short and too long."""
        self.direction = torch.where(restarted[:, None], self._bounded(self._quasi_newton()), self.direction)
        self.low = torch.where(restarted, 0, torch.where(risen, self.length, self.low))
        self.high = torch.where(restarted, math.inf, torch.where(risen, self.high, self.length))
        between = torch.where(self.high.isinf(), 2 * self.low, (self.low + self.high) / 2)
        self.length = torch.where(restarted, 1, between)
        self.trials = torch.where(restarted, 0, self.trials + 1)

    def _remember(self, which: Bool[Tensor, "n"], shift: Tensor, bend: Tensor) -> None:
        product = (shift * bend).sum(1)
        which = which & (product > 1e-10 * bend.square().sum(1))
        rows = torch.arange(len(which), device=which.device)
        places = torch.where(which, (self.newest + 1) % self.memory, self.newest)
        for ring, entry in ((self.shifts, shift), (self.bends, bend)):
            ring[rows, places] = torch.where(which[:, None], entry, ring[rows, places])
        self.inverse[rows, places] = torch.where(which, 1 / product, self.inverse[rows, places])
        self.newest = places

    def _forget(self, which: Bool[Tensor, "n"]) -> None:
        self.inverse = torch.where(which[:, None], 0, self.inverse)
        self.first = torch.where(which, self.first / 10, self.first)

    def _quasi_newton(self) -> Float[Tensor, "n d"]:
        """The gradient times the inverse curvature: the two-loop recursion over each image's history."""
        rows = torch.arange(len(self.newest), device=self.newest.device)
        places = [(self.newest - age) % self.memory for age in range(self.memory)]
        free = self.gradient * self.wall <= 0
        gradient = self.gradient * free
        direction, weights = gradient.clone(), []
        for place in places:
            weight = self.inverse[rows, place] * (self.shifts[rows, place] * direction).sum(1)
            direction -= weight[:, None] * self.bends[rows, place] * free
            weights.append(weight)
        bend, inverse = self.bends[rows, self.newest], self.inverse[rows, self.newest]
        size = gradient.shape[1] ** 0.5 / gradient.norm(dim=1).clamp(min=torch.finfo(bend.dtype).tiny)
        scale = torch.where(inverse > 0, 1 / (inverse * bend.square().sum(1)), self.first * size)
        direction *= scale[:, None]
        for place, weight in zip(reversed(places), reversed(weights), strict=True):
            back = self.inverse[rows, place] * (self.bends[rows, place] * direction).sum(1)
            direction += (weight - back)[:, None] * self.shifts[rows, place] * free
        direction *= direction * self.wall <= 0
        steepest = (self.first * size)[:, None] * gradient
        upwards = direction.isfinite().all(1) & ((direction * gradient).sum(1) > 0)
        return torch.where(upwards[:, None], direction, steepest)

    def _bounded(self, direction: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        if self.longest == math.inf:
            return direction
        length = direction.square().mean(1, keepdim=True).sqrt()
        return direction * (self.longest / length.clamp(min=self.longest))

    def _move(self, points: Float[Tensor, "n d"]) -> None:
        start = 0
        for own in self.parameters:
            size = own[0].numel() if len(own) else 0
            own.copy_(points[:, start : start + size].view_as(own))
            start += size

    @torch.no_grad()
    def finish(self) -> None:
        """Go back from an unevaluated point of a line search to the last accepted one."""
        self._move(self.point)
