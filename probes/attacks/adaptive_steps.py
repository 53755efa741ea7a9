"""Auto-PGD's steps: sizes that adapt to how the loss rises (Croce & Hein 2020, 2021)."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulgurite.probes.attacks.attacked_network import Attacked
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.device_sync import AT_HAND


class AdaptiveSteps(ABC):
    """The state of the ascent: every tensor has a row for each image that is still attacked."""

    def __init__(
        self,
        run: Attacked,
        threat: Threat,
        begun: Float[Tensor, "m c h w"],
        rows: Int[Tensor, "m"],
        aim: Int[Tensor, "m"] | None,
        steps: int,
    ):
        self.run, self.threat = run, threat
        self.rows, self.images, self.aim = rows, run.images[rows], aim
        self.within = threat.around(self.images)
        self.at = self.within(begun)
        self.gradient = torch.zeros_like(begun)
        self.values = begun.new_full((len(rows),), torch.inf)
        self.best, self.best_gradient, self.highest = self.at.clone(), self.gradient.clone(), -self.values
        self.points, self.point_values, self.adversarial = (
            self.at,
            self.values,
            torch.zeros_like(rows, dtype=torch.bool),
        )
        self.rises, self.since = torch.zeros_like(rows), 0
        self.sizes, self.period = torch.full_like(self.values, threat.epsilon), steps
        self.begin(steps)

    def evaluate(self) -> Float[Tensor, "m k"]:
        """The logits at the current images, from a gradient pass that also updates the state."""
        result = self.run.loss_gradient(self.at, self.rows, targets=self.aim)
        self.rises += result.values > self.values
        self.gradient, self.values = result.gradient, result.values
        better = result.values > self.highest
        self.highest = torch.where(better, result.values, self.highest)
        better = better[:, None, None, None]
        self.best = torch.where(better, self.at, self.best)
        self.best_gradient = torch.where(better, result.gradient, self.best_gradient)
        return result.logits

    def note(self, fooled: Bool[Tensor, "m"]) -> None:
        """Keep the point of the largest loss of those that have fooled the network since `forget`."""
        better = fooled & (~self.adversarial | (self.values > self.point_values))
        self.points = torch.where(better[:, None, None, None], self.at, self.points)
        self.point_values, self.adversarial = (
            torch.where(better, self.values, self.point_values),
            self.adversarial | fooled,
        )

    def forget(self) -> None:
        """Forget the adversarial points so far."""
        self.adversarial = torch.zeros_like(self.adversarial)

    def move(self) -> None:
        """A step; at checkpoints, with another size or again from the best point."""
        if self.since == self.period:
            again = self.adapt()[:, None, None, None]
            self.at = torch.where(again, self.best, self.at)
            self.gradient = torch.where(again, self.best_gradient, self.gradient)
            self.since = 0
        self.at = self.step()
        self.since += 1

    def keep_rows(self, going: Bool[Tensor, "m"]) -> None:
        """Go on with some of the images only."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[going])
        self.within = self.threat.around(self.images)

    @abstractmethod
    def begin(self, steps: int) -> None:
        """Choose the first step sizes, and the number of steps to the first checkpoint."""

    @abstractmethod
    def step(self) -> Float[Tensor, "m c h w"]:
        """The images after a step."""

    @abstractmethod
    def adapt(self) -> Bool[Tensor, "m"]:
        """Adapt the step sizes; which images are to continue from their best points."""


class Halving(AdaptiveSteps):
    """With momentum; steps are halved where the loss rose too rarely, or not at all."""

    def begin(self, steps: int) -> None:
        """The first step sizes, and the number of steps to the first checkpoint."""
        self.sizes *= 2
        self.period = max(int(0.22 * steps), 1)
        self.shorter, self.shortest = max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
        self.before: Tensor | None = None
        self.halved = torch.ones_like(self.rows, dtype=torch.bool)
        self.known = self.highest.clone()

    def step(self) -> Float[Tensor, "m c h w"]:
        """The images after a step."""
        steps = self.sizes[:, None, None, None] * self.threat.step(self.gradient)
        stepped = self.within(steps.add_(self.at))
        if self.before is not None:
            ahead = self.at.lerp(stepped, 0.75).add_(self.at - self.before, alpha=0.25)
            stepped = self.within(ahead)
        self.before = self.at
        return stepped

    def adapt(self) -> Bool[Tensor, "m"]:
        """Adapt the step sizes; which images are to continue from their best points."""
        stuck = ~self.halved & (self.highest <= self.known)
        self.halved = (self.rises <= 0.75 * self.period) | stuck
        self.sizes = torch.where(self.halved, self.sizes / 2, self.sizes)
        self.known = self.highest.clone()
        self.rises = torch.zeros_like(self.rises)
        self.period = max(self.period - self.shorter, self.shortest)
        return self.halved


class Sparse(AdaptiveSteps):
    """Along the steepest pixels, two thirds as many as the best point moves."""

    def begin(self, steps: int) -> None:
        """The first step sizes, and the number of steps to the first checkpoint."""
        self.period = max(int(0.04 * steps), 1)
        self.moved = self._moved()

    def step(self) -> Float[Tensor, "m c h w"]:
        """The images after a step."""
        grads = self.gradient.flatten(1)
        counts = ((2 * self.moved + 2) // 3).clamp(min=1)[:, None]
        sizes = grads.abs()
        # on a CPU the largest count is read quickly; on a GPU it is faster to sort all
        many = int(counts.max()) if sizes.device.type in AT_HAND else sizes.shape[1]
        least = sizes.topk(many, 1).values.gather(1, counts - 1)
        signs = grads.sign() * (sizes >= least)
        steps = self.sizes[:, None] * signs / signs.abs().sum(1, keepdim=True).clamp(min=1)
        return self.within(self.at + steps.view_as(self.at))

    def adapt(self) -> Bool[Tensor, "m"]:
        """Adapt the step sizes; which images are to continue from their best points."""
        moved = self._moved()
        sparser = moved < 0.95 * self.moved
        self.moved = moved
        longest = self.threat.epsilon
        self.sizes = torch.where(sparser, longest, (self.sizes / 1.5).clamp(min=longest / 10))
        return sparser

    def _moved(self) -> Int[Tensor, "m"]:
        return (self.best != self.images).flatten(1).sum(1)
