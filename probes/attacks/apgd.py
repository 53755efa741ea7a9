"""Auto-PGD: a gradient attack that adapts its step size (Croce & Hein 2020)."""

from itertools import product
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.adaptive_steps import Halving, Sparse
from fulgurite.probes.attacks.attacked import Attacked, AttackOptions, attacked
from fulgurite.probes.attacks.checks import check_counts
from fulgurite.probes.attacks.losses import LOSSES, misclassified
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.restarts import Copies, RestartBatches
from fulgurite.probes.attacks.threat import L1, Linf, Threat
from fulgurite.probes.objectives import Objective
from fulgurite.probes.waiting import is_time

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

    What comes back is an image that fools the network, where one was met; where none was, the point with the
    largest loss. Croce & Hein 2020, arxiv.org/abs/2003.01690. In L1, steps along the steepest pixels, fewer
    and fewer, and at first in larger balls: Croce & Hein 2021, arxiv.org/abs/2103.01208.

    Args:
        network: maps images to logits.
        images: within the threat's bounds.
        labels: the true class of each image.
        threat: how far the images may be moved.
        steps: gradient passes, besides the first at each start.
        restarts: from how many random starts; a misclassified image is not started again.
        target_classes: attack towards so many of the other classes in turn, the likeliest first, by the
            targeted form of the loss; an image is done when it is misclassified in any way. The paper's
            APGD-T: `loss="dlr", target_classes=9`.
        drop: leave an image alone as soon as it fools the network, or if it always did: fewer passes where
            many fall. Without it the loss is made large to the end.
        how: what can be chosen of every attack, see `How`.

    Raises:
        ValueError: as `attacked`, for counts below 1, for target_classes of a target or of an objective, and
            for fewer classes than the loss needs.
    """
    check_counts(
        steps=steps, restarts=restarts, **{} if target_classes is None else {"target_classes": target_classes}
    )
    loss = how.get("loss", "cross_entropy")
    if target_classes is not None and (how.get("target") is not None or isinstance(loss, Objective)):
        raise ValueError("a target, or an objective, says itself what it is after; leave out target_classes")
    with attacked(network, images, labels, threat, **how) as run:
        logits = run.logits(run.images)
        aims = (
            [run.targets] if target_classes is None else _likeliest_others(logits, run.labels, target_classes)
        )
        if isinstance(loss, str):
            LOSSES[loss](logits, run.labels, aims[0])  # raises where it wants more classes
        found = _Found(run.images, misclassified(logits, run.labels, run.targets))
        rows = found.standing() if drop else torch.arange(len(run.images), device=run.images.device)
        # restarts outermost, so that more of them only add to what fewer find
        tries = list(product(range(restarts), enumerate(aims, 0 if target_classes is None else 1)))
        turns = RestartBatches(tries, run.most)
        while group := turns.next(len(rows)):
            salts = [restart * logits.shape[1] + rank for restart, (rank, _) in group]
            begun = torch.cat([_start(run, run.draws(salt=salt))[rows] for salt in salts])
            aim = [aim[rows] for _, (_, aim) in group if aim is not None]
            copies, everyone = Copies(rows, len(group)), rows
            ends = _search(run, copies, begun, torch.cat(aim) if aim else None, steps, drop=drop)
            for moved, values, fell in copies.apart(ends.images, ends.values, ends.fell):
                left = torch.isin(everyone, rows)
                found.add(rows, moved[left], values[left], fell[left])
                rows = found.standing()
    return found.images


def _likeliest_others(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"], count: int
) -> list[Int[Tensor, "n"]]:
    classes = logits.shape[1]
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return list(others.topk(min(count, classes - 1), 1).indices.unbind(1))


class _Found:
    """The best point for each image so far: one that fools the network before one that does not."""

    def __init__(self, images: Float[Tensor, "n c h w"], fell: Bool[Tensor, "n"]):
        self.images, self.fell = images.clone(), fell
        self.values = torch.full_like(images[:, 0, 0, 0], -torch.inf)

    def standing(self) -> Int[Tensor, "m"]:
        """Which images have no point yet that fools the network."""
        return (~self.fell).nonzero()[:, 0]

    def add(
        self,
        rows: Int[Tensor, "m"],
        moved: Float[Tensor, "m c h w"],
        values: Float[Tensor, "m"],
        fooled: Bool[Tensor, "m"],
    ) -> None:
        fell = self.fell[rows]
        better = (fooled & ~fell) | ((fooled == fell) & (values > self.values[rows]))
        taken = rows[better]
        self.images[taken], self.values[taken] = moved[better], values[better]
        self.fell[taken] = fooled[better]


def _search(
    run: Attacked,
    copies: Copies,
    moved: Float[Tensor, "m c h w"],
    aim: Int[Tensor, "m"] | None,
    steps: int,
    *,
    drop: bool,
) -> _Found:
    """One climb of each copy from where it was moved; in L1 three, in balls that shrink to the radius."""
    sparse, early = isinstance(run.threat, L1), 3 * steps // 10
    kind = Sparse if sparse else Halving
    wider = [run.threat.at(times * run.threat.reach) for times in WIDER] if sparse else []
    found = _Found(moved, torch.zeros_like(copies.rows, dtype=torch.bool))
    for ball in wider:
        climb = kind(run, ball, moved, copies.rows, aim, early)
        climb.look()
        for _ in range(early):
            climb.move()
            climb.look()
        moved = climb.best
    steps -= early * len(wider)
    climb = kind(run, run.threat, moved, copies.rows, aim, steps)
    for step in range(steps + 1):
        if step:
            climb.move()
        climb.note(run.seems_misclassified(climb.look(), climb.rows))
        if (is_time(step, climb.at.device) or step == steps) and climb.fell.any():
            fell = run.confirmed(climb.points, climb.rows, climb.fell)
            found.add(*(part[fell] for part in (copies.places, climb.points, climb.worth, fell)))
            climb.forget()
            if drop:
                climb.stay(copies.useful(fell))
                if not len(climb.rows):
                    return found
    found.add(copies.places, climb.best, climb.highest, torch.zeros_like(climb.rows, dtype=torch.bool))
    return found


def _start(run: Attacked, draws: PerImageRandom) -> Float[Tensor, "n c h w"]:
    """On the surface of the first ball, then within bounds."""
    images, threat = run.images, run.threat
    if isinstance(threat, L1):
        threat = threat.at(WIDER[0] * threat.reach)
    shape = images.shape[1:]
    noise = 2 * draws.uniform(*shape) - 1 if isinstance(threat, Linf) else draws.normal(*shape)
    if not isinstance(threat, L1):
        noise = threat.reach * noise / threat.length(noise)[:, None, None, None]
    return threat.project(images + noise, images)
