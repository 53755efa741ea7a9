"""Gradient attacks: FGSM, PGD and momentum PGD."""

from typing import Literal, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.attacked import Attacked, AttackOptions, attacked
from fulgurite.probes.attacks.checks import check_counts, check_numbers, check_threat
from fulgurite.probes.attacks.restarts import Copies, RestartBatches
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.waiting import is_time

Start = Literal["image", "random"]


def fgsm(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    *,
    start: Start = "image",
    step_size: float | None = None,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """One step along the gradient, as far as the threat allows.

    Goodfellow et al. 2015, arxiv.org/abs/1412.6572; from a random start, Wong et al. 2020,
    arxiv.org/abs/2001.03994.

    Args:
        network: maps images to logits.
        images: within the threat's bounds.
        labels: the true class of each image.
        threat: how far the images may be moved.
        start: "random" starts at a point drawn from the ball.
        step_size: of the step, in the threat's norm; the radius, or 1.25 times that from a random start.
        how: what can be chosen of every attack, see `How`.
    """
    check_threat(threat)
    size = step_size if step_size is not None else threat.reach * (1.25 if start == "random" else 1)
    return pgd(network, images, labels, threat, steps=1, step_size=size, start=start, **how)


def pgd(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    *,
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    momentum: float = 0.0,
    start: Start = "random",
    drop: bool = False,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """Steps along the gradient, each followed by a projection into the ball and the bounds.

    With one restart and without `drop`, what comes back is where the last step ended. Else it is an image
    that fools the network, where one was found; where none was, the end of the restart with the largest
    loss. Madry et al. 2018, arxiv.org/abs/1706.06083; with momentum, MI-FGSM of Dong et al. 2018,
    arxiv.org/abs/1710.06081.

    Args:
        network: maps images to logits.
        images: within the threat's bounds.
        labels: the true class of each image.
        threat: how far the images may be moved.
        steps: gradient passes.
        step_size: of a step, in the threat's norm; 2.5 radii over all steps without it.
        restarts: from how many random starts; a misclassified image is not started again.
        momentum: how much of the last step's direction stays.
        start: "image" starts at the image itself, so that there is but one start.
        drop: leave an image alone as soon as it fools the network: fewer passes where many fall. For
            evaluation; in training it is a weaker attack.
        how: what can be chosen of every attack, see `How`.

    Raises:
        ValueError: as `attacked`, and for counts below 1.
    """
    check_threat(threat)
    check_steps(steps, step_size, restarts=restarts, momentum=momentum, start=start)
    size = 2.5 * threat.reach / steps if step_size is None else step_size
    with attacked(network, images, labels, threat, **how) as run:
        rows = torch.arange(len(run.images), device=run.images.device)
        best = run.images.clone()
        values = torch.full_like(best[:, 0, 0, 0], -torch.inf)
        turns = RestartBatches(range(restarts), run.most)
        while group := turns.next(len(rows)):
            starts = [_start(run, start, restart)[rows] for restart in group]
            copies, all_rows = Copies(rows, len(group)), rows
            ended, standing = _climb(run, copies, torch.cat(starts), steps, size, momentum, drop=drop)
            if restarts == 1 and not drop:
                return ended
            for moved, stood in copies.apart(ended, standing):
                left = torch.isin(all_rows, rows)
                rows = _kept(run, moved[left], stood[left], rows, best, values)
    return best


def check_steps(
    steps: int,
    step_size: float | None,
    *,
    restarts: int = 1,
    momentum: float = 0.0,
    start: Start = "random",
) -> None:
    """See that steps like these can be made.

    Raises:
        ValueError: they cannot.
    """
    check_counts(steps=steps, restarts=restarts)
    check_numbers(step_size=step_size, momentum=momentum)
    if start not in ("image", "random"):
        raise ValueError(f'start={start!r}; wanted "image" or "random"')
    if start == "image" and restarts > 1:
        raise ValueError(
            f'{restarts} restarts from the same image are all alike; start="random" tells them apart'
        )


def _start(run: Attacked, start: Start, restart: int) -> Float[Tensor, "n c h w"]:
    return run.threat.sample(run.images, run.draws(salt=restart)) if start == "random" else run.images


def _climb(
    run: Attacked,
    copies: Copies,
    begun: Float[Tensor, "m c h w"],
    steps: int,
    size: float,
    momentum: float,
    *,
    drop: bool,
) -> tuple[Float[Tensor, "m c h w"], Bool[Tensor, "m"]]:
    """Where the steps from `begun` end, and which copies did not fool the network on the way."""
    ended, standing = begun.clone(), torch.ones_like(copies.rows, dtype=torch.bool)
    moved, within = begun, run.threat.around(run.images[copies.rows])
    heading = torch.zeros_like(moved) if momentum else None
    points, fell = moved, ~standing  # where a copy first fooled the network, and whether it has
    for step in range(steps):
        slope = run.slope(moved, copies.rows)
        gradient = slope.gradient
        if drop:
            seems = run.seems_misclassified(slope.logits, copies.rows) & ~fell
            points, fell = torch.where(seems[:, None, None, None], moved, points), fell | seems
            if (is_time(step, moved.device) or step == steps - 1) and fell.any():
                fell = run.confirmed(points, copies.rows, fell)
                places = copies.places[fell]
                ended[places], standing[places] = points[fell], False
                going = copies.useful(fell)
                moved, gradient, points, fell = (part[going] for part in (moved, gradient, points, fell))
                heading = None if heading is None else heading[going]
                if not len(moved):
                    return ended, standing
                within = run.threat.around(run.images[copies.rows])
        if heading is not None:
            sizes = gradient.flatten(1).abs().mean(1).clamp(min=torch.finfo(gradient.dtype).tiny)
            heading = momentum * heading + gradient / sizes[:, None, None, None]
            gradient = heading
        moved = within(moved.add_(run.threat.step(gradient), alpha=size))
        del slope, gradient  # what stays in memory between two passes is in the way of the next
    ended[copies.places] = moved
    return ended, standing


def _kept(
    run: Attacked,
    ended: Float[Tensor, "m c h w"],
    standing: Bool[Tensor, "m"],
    rows: Int[Tensor, "m"],
    best: Float[Tensor, "n c h w"],
    values: Float[Tensor, "n"],
) -> Int[Tensor, "k"]:
    """Keep what fools the network or has the largest loss so far; the rows that have not fallen."""
    best[rows[~standing]] = ended[~standing]
    rows, ended = rows[standing], ended[standing]
    if not len(rows):
        return rows
    slope = run.slope(ended, rows)
    fooled = run.confirmed(ended, rows, run.seems_misclassified(slope.logits, rows))
    better = fooled | (slope.values > values[rows])
    best[rows[better]], values[rows[better]] = ended[better], slope.values[better]
    return rows[~fooled]
