"""Attacks that several sanity checks share, each run once, and their shares of images in words."""

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.attacked import NoGradientError, attacked
from fulgurite.probes.attacks.ensembles import Attack, default_attack
from fulgurite.probes.attacks.threat import L1, Threat
from fulgurite.probes.robustness.evaluate import answers_of, at_once, evaluate
from fulgurite.probes.robustness.report import Report, one_answer


def noise(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    *,
    tries: int = 50,
) -> Float[Tensor, "n c h w"]:
    """An attack without any sense: points drawn from the ball until one fools the network."""
    with attacked(network, images, labels, threat) as run:
        found, draws = run.images.clone(), run.draws()
        left = torch.arange(len(found), device=found.device)
        for _ in range(tries):
            found[left] = threat.sample(run.images, draws)[left]
            left = left[~run.misclassified(found[left], left)]
            if not len(left):
                break
    return found


class Case:
    """A network, images and a threat to check, and the attacks that several checks ask for."""

    def __init__(
        self,
        network: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
        threat: Threat,
        queries: int,
        batch_size: int | None,
    ):
        with attacked(network, images, labels, threat) as run:  # sees to images and labels
            self.images, self.labels = run.images, run.labels
        self.threat, self.queries = threat, queries
        self.size = at_once(network, images) if batch_size is None else batch_size
        self.network, logits = answers_of(network, self.images, self.labels, batch_size=self.size)
        self.right = int((logits.argmax(1) == self.labels).sum())
        self.same = one_answer(logits.argmax(1), self.labels)

    @property
    def steps(self) -> int:
        """Of the gradient attack to begin with."""
        return 50 if isinstance(self.threat, L1) else 20

    @property
    def way(self) -> str:
        """Its name."""
        return f"{'APGD' if isinstance(self.threat, L1) else 'PGD'}-{self.steps}"

    @cached_property
    def begun(self) -> Report:
        """The network under it."""
        return self.under(default_attack(self.threat, steps=self.steps))

    def under(self, attack: Attack, threat: Threat | None = None) -> Report:
        """The network under one attack."""
        threat = self.threat if threat is None else threat
        return self._made(self.images, self.labels, threat, {"the attack": attack})

    @property
    def beyond(self) -> str:
        """What more attacks have left to find, in words."""
        all_ = (
            "" if self.begun.stages[-1].standing.any() else ", which are all that are classified correctly,"
        )
        return f"beyond those that {self.way} fools{all_}"

    def more(self, **attacks: Attack) -> float:
        """The share of all images that the attack to begin with left correct, but not these."""
        left = self.begun.stages[-1].standing
        if not left.any():
            return 0.0
        told = self._made(self.images[left], self.labels[left], self.threat, attacks)
        return float((~told.stages[-1].standing).sum()) / len(left)

    def _made(
        self,
        images: Float[Tensor, "m c h w"],
        labels: Int[Tensor, "m"],
        threat: Threat,
        attacks: Mapping[str, Attack],
    ) -> Report:
        told = evaluate(self.network, images, labels, threat, attacks, batch_size=self.size)
        if len(told.stages) <= len(attacks):
            raise NoGradientError(told.notes[-1])
        return told

    def few(self, share: float, most: float) -> bool:
        """Whether a share of the images is at most that, or but one of more than ten."""
        return round(share * len(self.images)) <= self._most(most)

    def honest(self, most: float) -> str:
        """The same limit in words."""
        if most * len(self.images) >= 1:
            return f"honest: up to {percent(most)}"
        return "honest: up to one image" if self._most(most) else "honest: none of so few"

    def of(self, share: float) -> str:
        """A share of the images in words."""
        return f"{round(share * len(self.images))} of the {len(self.images)} images ({percent(share)})"

    def _most(self, share: float) -> int:
        count = len(self.images)
        return max(math.floor(share * count + 1e-9), int(count > 10))


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"
