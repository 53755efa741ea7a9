"""FAB: minimal adversarial perturbations along the decision boundary (Croce & Hein 2020)."""

from itertools import product
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts
from fulgurite.probes.attacks.attacked_network import Attacked, AttackOptions, LossGradient, attacked
from fulgurite.probes.attacks.hyperplane import shift_to_plane
from fulgurite.probes.attacks.nearest_adversarial import Nearest, likeliest_classes
from fulgurite.probes.attacks.restarts import Copies, RestartBatches
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.device_sync import is_time

PULL = 0.1  # the largest weight of the step from the clean image
OVERSHOOT = 1.05  # how far past the plane a step goes
BACK = 0.9  # how much of its shift a point that fools the network keeps


def fab(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    *,
    steps: int = 100,
    restarts: int = 1,
    target_classes: int = 9,
    drop: bool = True,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """Look for the nearest point that fools the network, on the boundaries to the likeliest other classes.

    The targeted form, FAB-T: each step goes to where the lead of a target class over the label would be 0 if
    it were linear, biased towards the image; a point that fools the network, by whatever class, is brought
    nearer. Croce & Hein 2020, arxiv.org/abs/1907.02044, with its parameters, and its last search: the line
    from the image to the nearest point is cut three times where it seems to cross the boundary.

    Returns that point where it lies within the radius; otherwise the nearest point found, projected into the
    ball, or the image itself where none was found.

    Args:
        network: maps images to logits.
        images: within the threat's bounds.
        labels: the true class of each image.
        threat: how far the images may be moved, and in which norm the nearest point is looked for.
        steps: towards each target class; a gradient pass and a forward pass each.
        restarts: the first starts at the image, others at random points within half the radius.
        target_classes: to how many other classes, the likeliest for the image first; no more than there are.
        drop: leave an image alone as soon as a point within the radius is found; without it, all are attacked
            to the end, so that the nearest point comes back.
        how: options of every attack, see `AttackOptions`; but no loss. With a target, the one boundary is
            that of the target.

    Raises:
        ValueError: as `attacked`, for counts below 1, and for a loss.
    """
    check_counts(steps=steps, restarts=restarts, target_classes=target_classes)
    if "loss" in how:
        raise ValueError("FAB has no loss to choose: it follows the lead of a target class; leave out loss")
    with attacked(network, images, labels, threat, **how) as run:
        enough = threat.epsilon if drop else 0.0
        logits = run.logits(run.images)
        everyone = torch.arange(len(run.images), device=run.images.device)
        nearest = Nearest(run, everyone)
        nearest.keep(run.images, everyone, run.misclassified(run.images, everyone))
        rows = everyone[nearest.distances > enough]
        attempts = list(
            product(enumerate(likeliest_classes(run, logits, target_classes).unbind(1)), range(restarts))
        )
        batches = RestartBatches(attempts, run.at_once)
        while group := batches.next(len(rows)):
            starts = [
                _start_point(run, restart, salt=place * restarts + restart) for (place, _), restart in group
            ]
            copies, attacked_rows = Copies(rows, len(group)), rows
            targets_of_copies = torch.cat([target[rows] for (_, target), _ in group])
            ends = _approach(
                run, copies, torch.cat([one[rows] for one in starts]), targets_of_copies, steps, enough
            )
            for points, distances in copies.apart(ends.points, ends.distances):
                still_open = torch.isin(attacked_rows, rows)
                nearest.note(points[still_open], rows, distances[still_open])
                rows = everyone[nearest.distances > enough]
        nearest.search(everyone[nearest.distances.isfinite() & (nearest.distances > enough)])
        inside = (nearest.distances <= threat.epsilon)[:, None, None, None]
        return torch.where(inside, nearest.points, threat.project(nearest.points, run.images))


def _start_point(run: Attacked, restart: int, *, salt: int) -> Float[Tensor, "n c h w"]:
    if not restart:
        return run.images
    return run.threat.at(run.threat.epsilon / 2).sample(run.images, run.draws(salt=salt))


def _approach(
    run: Attacked,
    copies: Copies,
    moved: Float[Tensor, "m c h w"],
    target_classes: Int[Tensor, "m"],
    steps: int,
    enough: float,
) -> Nearest:
    """Steps of each copy towards its target class, and the nearest points that fooled the network."""
    loss = "lead" if run.targets is None else "margin"
    nearest = Nearest(run, copies.rows)
    images = nearest.images
    for step in range(steps):
        result = run.loss_gradient(moved, copies.rows, loss=loss, targets=target_classes)
        moved = _stepped(run.threat, moved, images, result)
        fooled = run.misclassified(moved, copies.rows)
        nearest.keep(moved, copies.places, fooled)
        moved = torch.where(fooled[:, None, None, None], images + BACK * (moved - images), moved)
        near_enough = nearest.distances[copies.places] <= enough
        if is_time(step, moved.device) and near_enough.any():
            going = copies.useful(near_enough)
            moved, images, target_classes = (part[going] for part in (moved, images, target_classes))
            if not len(moved):
                break
    return nearest


def _stepped(
    threat: Threat, moved: Float[Tensor, "m c h w"], images: Float[Tensor, "m c h w"], result: LossGradient
) -> Float[Tensor, "m c h w"]:
    """A step past the plane: an average of those from point and image, mostly of the nearer one."""
    gaps = -result.values.nan_to_num(0, 0, 0)  # a point without a value goes back towards the image
    behind = (result.gradient * (moved - images)).flatten(1).sum(1)
    own = shift_to_plane(moved, result.gradient, gaps, threat)
    images_own = shift_to_plane(images, result.gradient, gaps + behind, threat)
    near, far = (threat.length(shift).clamp(min=1e-8) for shift in (own, images_own))
    pull = (near / (near + far)).clamp(max=PULL)[:, None, None, None]
    onto = (1 - pull) * (moved + OVERSHOOT * own) + pull * (images + OVERSHOOT * images_own)
    return threat.bounded(onto)
