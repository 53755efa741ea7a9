"""Gradient attacks: FGSM, PGD and momentum PGD."""

from typing import Literal, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts, check_numbers, check_threat
from fulgurite.probes.attacks.attacked_network import Attacked, AttackOptions, attacked
from fulgurite.probes.attacks.restarts import Copies, RestartBatches
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.device_sync import is_time

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
        how: options of every attack, see `AttackOptions`.
    """
    check_threat(threat)
    size = step_size if step_size is not None else threat.epsilon * (1.25 if start == "random" else 1)
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

    With one restart and without `drop`, returns the point after the last step. Otherwise returns an image
    that fools the network where one was found, and where none was, the end of the restart with the largest
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
        start: "image" starts at the image itself, which allows only one restart.
        drop: leave an image alone as soon as it fools the network: fewer passes where many fall. For
            evaluation; in training it is a weaker attack.
        how: options of every attack, see `AttackOptions`.

    Raises:
        ValueError: as `attacked`, and for counts below 1.
    """
    check_threat(threat)
    check_steps(steps, step_size, restarts=restarts, momentum=momentum, start=start)
    size = 2.5 * threat.epsilon / steps if step_size is None else step_size
    with attacked(network, images, labels, threat, **how) as run:
        rows = torch.arange(len(run.images), device=run.images.device)
        best = run.images.clone()
        values = torch.full_like(best[:, 0, 0, 0], -torch.inf)
        batches = RestartBatches(range(restarts), run.at_once)
        while group := batches.next(len(rows)):
            starts = [_start(run, start, restart)[rows] for restart in group]
            copies, all_rows = Copies(rows, len(group)), rows
            end_points, not_fooled = _take_steps(
                run, copies, torch.cat(starts), steps, size, momentum, drop=drop
            )
            if restarts == 1 and not drop:
                return end_points
            for moved, open_part in copies.apart(end_points, not_fooled):
                left = torch.isin(all_rows, rows)
                rows = _keep_best(run, moved[left], open_part[left], rows, best, values)
    return best


def check_steps(
    steps: int,
    step_size: float | None,
    *,
    restarts: int = 1,
    momentum: float = 0.0,
    start: Start = "random",
) -> None:
    """Check the options of the steps.

    Raises:
        ValueError: one is out of range.
    """
    check_counts(steps=steps, restarts=restarts)
    check_numbers(step_size=step_size, momentum=momentum)
    if start not in ("image", "random"):
        raise ValueError(f'start={start!r}; wanted "image" or "random"')
    if start == "image" and restarts > 1:
        raise ValueError(f'{restarts} restarts from the same image are all the same; use start="random"')


def _start(run: Attacked, start: Start, restart: int) -> Float[Tensor, "n c h w"]:
    return run.threat.sample(run.images, run.draws(salt=restart)) if start == "random" else run.images


def _take_steps(
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
    end_points, not_fooled = begun.clone(), torch.ones_like(copies.rows, dtype=torch.bool)
    moved, within = begun, run.threat.around(run.images[copies.rows])
    velocity = torch.zeros_like(moved) if momentum else None
    points, adversarial = moved, ~not_fooled  # where a copy first fooled the network, and whether it has
    for step in range(steps):
        result = run.loss_gradient(moved, copies.rows)
        gradient = result.gradient
        if drop:
            newly_adversarial = run.seems_misclassified(result.logits, copies.rows) & ~adversarial
            points, adversarial = (
                torch.where(newly_adversarial[:, None, None, None], moved, points),
                adversarial | newly_adversarial,
            )
            if (is_time(step, moved.device) or step == steps - 1) and adversarial.any():
                adversarial = run.confirmed(points, copies.rows, adversarial)
                places = copies.places[adversarial]
                end_points[places], not_fooled[places] = points[adversarial], False
                going = copies.useful(adversarial)
                moved, gradient, points, adversarial = (
                    part[going] for part in (moved, gradient, points, adversarial)
                )
                velocity = None if velocity is None else velocity[going]
                if not len(moved):
                    return end_points, not_fooled
                within = run.threat.around(run.images[copies.rows])
        if velocity is not None:
            sizes = gradient.flatten(1).abs().mean(1).clamp(min=torch.finfo(gradient.dtype).tiny)
            velocity = momentum * velocity + gradient / sizes[:, None, None, None]
            gradient = velocity
        moved = within(moved.add_(run.threat.step(gradient), alpha=size))
        del result, gradient  # memory that is held between two passes is missing for the next
    end_points[copies.places] = moved
    return end_points, not_fooled


def _keep_best(
    run: Attacked,
    end_points: Float[Tensor, "m c h w"],
    not_fooled: Bool[Tensor, "m"],
    rows: Int[Tensor, "m"],
    best: Float[Tensor, "n c h w"],
    values: Float[Tensor, "n"],
) -> Int[Tensor, "k"]:
    """Keep what fools the network or has the largest loss so far; returns the rows still correct."""
    best[rows[~not_fooled]] = end_points[~not_fooled]
    rows, end_points = rows[not_fooled], end_points[not_fooled]
    if not len(rows):
        return rows
    result = run.loss_gradient(end_points, rows)
    fooled = run.confirmed(end_points, rows, run.seems_misclassified(result.logits, rows))
    better = fooled | (result.values > values[rows])
    best[rows[better]], values[rows[better]] = end_points[better], result.values[better]
    return rows[~fooled]
