"""Auto-PGD: a gradient attack that adapts its step size (Croce & Hein 2020)."""

from itertools import product
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.adaptive_steps import Halving, Sparse
from fulgurite.probes.attacks.argument_checks import check_counts
from fulgurite.probes.attacks.attacked_network import Attacked, AttackOptions, attacked
from fulgurite.probes.attacks.losses import LOSSES, misclassified
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.restarts import Copies, RestartBatches
from fulgurite.probes.attacks.threat import L1, Linf, Threat
from fulgurite.probes.device_sync import is_time
from fulgurite.probes.objectives import Objective

WIDER = (3, 2)  # times the radius, in L1: the balls before the threat's own


def apgd(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    *,
    steps: int = 100,
    restarts: int = 1,
    target_classes: int | None = None,
    drop: bool = True,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """Steps along the gradient with momentum; where they no longer help, shorter ones from the best point.

    Returns an image that fools the network where one was found, and otherwise the point with the largest
    loss. Croce & Hein 2020, arxiv.org/abs/2003.01690. In L1, steps along the steepest pixels, fewer and
    fewer, and at first in larger balls: Croce & Hein 2021, arxiv.org/abs/2103.01208.

    Args:
        network: maps images to logits.
        images: within the threat's bounds.
        labels: the true class of each image.
        threat: how far the images may be moved.
        steps: gradient passes, besides the first at each start.
        restarts: from how many random starts; a misclassified image is not started again.
        target_classes: attack towards this many of the other classes in turn, the likeliest first, by the
            targeted form of the loss; an image is done when it is misclassified in any way. The paper's
            APGD-T: `loss="dlr", target_classes=9`.
        drop: leave an image alone as soon as it fools the network, or if it always did: fewer passes where
            many images are misclassified. Without it, the loss is maximised to the last step.
        how: options of every attack, see `AttackOptions`.

    Raises:
        ValueError: as `attacked`, for counts below 1, for target_classes of a target or of an objective, and
            for fewer classes than the loss needs.
    """
    check_counts(
        steps=steps, restarts=restarts, **{} if target_classes is None else {"target_classes": target_classes}
    )
    loss = how.get("loss", "cross_entropy")
    if target_classes is not None and (how.get("target") is not None or isinstance(loss, Objective)):
        raise ValueError("a target or an objective already sets the goal; leave out target_classes")
    with attacked(network, images, labels, threat, **how) as run:
        logits = run.logits(run.images)
        aims = (
            [run.targets] if target_classes is None else _likeliest_others(logits, run.labels, target_classes)
        )
        if isinstance(loss, str):
            LOSSES[loss](logits, run.labels, aims[0])  # raises where it wants more classes
        found = _BestPoints(run.images, misclassified(logits, run.labels, run.targets))
        rows = found.remaining() if drop else torch.arange(len(run.images), device=run.images.device)
        # restarts outermost, so that more of them only add to what fewer find
        attempts = list(product(range(restarts), enumerate(aims, 0 if target_classes is None else 1)))
        batches = RestartBatches(attempts, run.at_once)
        while group := batches.next(len(rows)):
            salts = [restart * logits.shape[1] + rank for restart, (rank, _) in group]
            starts = torch.cat([_start(run, run.draws(salt=salt))[rows] for salt in salts])
            target_of_copy = [
                target_of_copy[rows] for _, (_, target_of_copy) in group if target_of_copy is not None
            ]
            copies, everyone = Copies(rows, len(group)), rows
            ends = _search(
                run, copies, starts, torch.cat(target_of_copy) if target_of_copy else None, steps, drop=drop
            )
            for moved, values, adversarial in copies.apart(ends.images, ends.values, ends.adversarial):
                still_open = torch.isin(everyone, rows)
                found.add(rows, moved[still_open], values[still_open], adversarial[still_open])
                rows = found.remaining()
    return found.images


def _likeliest_others(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"], count: int
) -> list[Int[Tensor, "n"]]:
    classes = logits.shape[1]
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return list(others.topk(min(count, classes - 1), 1).indices.unbind(1))


class _BestPoints:
    """The best point for each image so far: one that fools the network before one that does not."""

    def __init__(self, images: Float[Tensor, "n c h w"], adversarial: Bool[Tensor, "n"]):
        self.images, self.adversarial = images.clone(), adversarial
        self.values = torch.full_like(images[:, 0, 0, 0], -torch.inf)

    def remaining(self) -> Int[Tensor, "m"]:
        """Which images have no point yet that fools the network."""
        return (~self.adversarial).nonzero()[:, 0]

    def add(
        self,
        rows: Int[Tensor, "m"],
        moved: Float[Tensor, "m c h w"],
        values: Float[Tensor, "m"],
        fooled: Bool[Tensor, "m"],
    ) -> None:
        adversarial = self.adversarial[rows]
        better = (fooled & ~adversarial) | ((fooled == adversarial) & (values > self.values[rows]))
        improved = rows[better]
        self.images[improved], self.values[improved] = moved[better], values[better]
        self.adversarial[improved] = fooled[better]


def _search(
    run: Attacked,
    copies: Copies,
    moved: Float[Tensor, "m c h w"],
    target_of_copy: Int[Tensor, "m"] | None,
    steps: int,
    *,
    drop: bool,
) -> _BestPoints:
    """One ascent of each copy from its start; in L1 three, in balls that shrink to the radius."""
    sparse, early = isinstance(run.threat, L1), 3 * steps // 10
    kind = Sparse if sparse else Halving
    wider = [run.threat.at(times * run.threat.epsilon) for times in WIDER] if sparse else []
    found = _BestPoints(moved, torch.zeros_like(copies.rows, dtype=torch.bool))
    for ball in wider:
        ascent = kind(run, ball, moved, copies.rows, target_of_copy, early)
        ascent.evaluate()
        for _ in range(early):
            ascent.move()
            ascent.evaluate()
        moved = ascent.best
    steps -= early * len(wider)
    ascent = kind(run, run.threat, moved, copies.rows, target_of_copy, steps)
    for step in range(steps + 1):
        if step:
            ascent.move()
        ascent.note(run.seems_misclassified(ascent.evaluate(), ascent.rows))
        if (is_time(step, ascent.at.device) or step == steps) and ascent.adversarial.any():
            adversarial = run.confirmed(ascent.points, ascent.rows, ascent.adversarial)
            found.add(
                *(
                    part[adversarial]
                    for part in (copies.places, ascent.points, ascent.point_values, adversarial)
                )
            )
            ascent.forget()
            if drop:
                ascent.keep_rows(copies.useful(adversarial))
                if not len(ascent.rows):
                    return found
    found.add(copies.places, ascent.best, ascent.highest, torch.zeros_like(ascent.rows, dtype=torch.bool))
    return found


def _start(run: Attacked, draws: PerImageRandom) -> Float[Tensor, "n c h w"]:
    """On the surface of the first ball, then within bounds."""
    images, threat = run.images, run.threat
    if isinstance(threat, L1):
        threat = threat.at(WIDER[0] * threat.epsilon)
    shape = images.shape[1:]
    noise = 2 * draws.uniform(*shape) - 1 if isinstance(threat, Linf) else draws.normal(*shape)
    if not isinstance(threat, L1):
        noise = threat.epsilon * noise / threat.length(noise)[:, None, None, None]
    return threat.project(images + noise, images)
