"""Attacks that several sanity checks share, each run once, and their shares of images in words."""

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.attacked_network import NoGradientError, attacked
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
    attempts: int = 50,
) -> Float[Tensor, "n c h w"]:
    """A random attack: points drawn from the ball until one fools the network."""
    with attacked(network, images, labels, threat) as run:
        found, draws = run.images.clone(), run.draws()
        left = torch.arange(len(found), device=found.device)
        for _ in range(attempts):
            found[left] = threat.sample(run.images, draws)[left]
            left = left[~run.misclassified(found[left], left)]
            if not len(left):
                break
    return found


class Case:
    """A network, images and a threat to check, and the attacks that several checks use."""

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
    def attack_name(self) -> str:
        """Its name."""
        return f"{'APGD' if isinstance(self.threat, L1) else 'PGD'}-{self.steps}"

    @cached_property
    def base_report(self) -> Report:
        """The network under it."""
        return self.under(default_attack(self.threat, steps=self.steps))

    def under(self, attack: Attack, threat: Threat | None = None) -> Report:
        """The network under one attack."""
        threat = self.threat if threat is None else threat
        return self._made(self.images, self.labels, threat, {"the attack": attack})

    @property
    def beyond(self) -> str:
        """The images that other attacks can still fool, in words."""
        all_ = (
            ""
            if self.base_report.stages[-1].standing.any()
            else ", which are all that are classified correctly,"
        )
        return f"beyond those that {self.attack_name} fools{all_}"

    def more(self, **attacks: Attack) -> float:
        """The share of all images that the first attack left correct, but these attacks did not."""
        left = self.base_report.stages[-1].standing
        if not left.any():
            return 0.0
        report = self._made(self.images[left], self.labels[left], self.threat, attacks)
        return float((~report.stages[-1].standing).sum()) / len(left)

    def _made(
        self,
        images: Float[Tensor, "m c h w"],
        labels: Int[Tensor, "m"],
        threat: Threat,
        attacks: Mapping[str, Attack],
    ) -> Report:
        report = evaluate(self.network, images, labels, threat, attacks, batch_size=self.size)
        if len(report.stages) <= len(attacks):
            raise NoGradientError(report.notes[-1])
        return report

    def few(self, share: float, limit: float) -> bool:
        """Whether a share of the images is at most that, or only one image of more than ten."""
        return round(share * len(self.images)) <= self._max_count(limit)

    def honest(self, limit: float) -> str:
        """The same limit in words."""
        if limit * len(self.images) >= 1:
            return f"honest: up to {percent(limit)}"
        return "honest: up to one image" if self._max_count(limit) else "honest: none of so few"

    def of(self, share: float) -> str:
        """A share of the images in words."""
        return f"{round(share * len(self.images))} of the {len(self.images)} images ({percent(share)})"

    def _max_count(self, share: float) -> int:
        count = len(self.images)
        return max(math.floor(share * count + 1e-9), int(count > 10))


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"
