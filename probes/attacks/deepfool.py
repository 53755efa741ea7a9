"""DeepFool: steps onto the nearest of the linearised decision boundaries (Moosavi-Dezfooli 2016)."""

from dataclasses import replace
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts, check_numbers
from fulgurite.probes.attacks.attacked_network import Attacked, AttackOptions
from fulgurite.probes.attacks.hyperplane import shift_to_plane
from fulgurite.probes.attacks.nearest_adversarial import enough, likeliest_classes, minimal_attack
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.device_sync import is_time


def deepfool(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    norm: str | Threat = "l2",
    *,
    steps: int = 50,
    candidates: int = 10,
    overshoot: float = 0.02,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """Step onto the nearest linearised boundary until the network is fooled.

    A step is the shortest in the norm that leads onto it, and is clamped to the bounds of pixels. Returns the
    nearest points found on the lines from the images; an image for which none was found is returned
    unchanged. Moosavi-Dezfooli et al. 2016, arxiv.org/abs/1511.04599.

    Args:
        network: maps images to logits.
        images: within the norm's bounds.
        labels: the true class of each image.
        norm: "l2" or "linf", or such a threat, whose radius does not matter.
        steps: at most; each takes a gradient pass for each candidate.
        candidates: how many other classes, the likeliest for the image, are considered at each step.
        overshoot: the share by which the whole shift is lengthened, so that the point is past the boundary.
        how: options of every attack, see `AttackOptions`; but no loss. With a target, the one boundary is
            that of the target.

    Raises:
        ValueError: as `attacked`, for counts below 1, another norm, and for a loss.
    """
    check_counts(steps=steps, candidates=candidates)
    check_numbers(overshoot=overshoot)
    with minimal_attack(network, images, labels, norm, known=("l2", "linf"), **how) as (nearest, rows):
        run = nearest.run
        classes, moved = likeliest_classes(run, run.logits(run.images), candidates), run.images[rows]
        for step in range(steps):
            if not len(rows):
                break
            moved = run.threat.bounded(moved + _onto_the_nearest(run, moved, rows, classes[rows]))
            past = run.images[rows] + (1 + overshoot) * (moved - run.images[rows])
            fooled = nearest.look(run.threat.bounded(past), rows)
            if is_time(step, moved.device):
                rows, moved = rows[~fooled], moved[~fooled]
    return nearest.points


def _onto_the_nearest(
    run: Attacked, moved: Float[Tensor, "m c h w"], rows: Int[Tensor, "m"], classes: Int[Tensor, "m r"]
) -> Float[Tensor, "m c h w"]:
    """The shortest of the shifts onto the boundaries to these classes; bounds cut it off only afterwards."""
    best, least = torch.zeros_like(moved), torch.full_like(moved[:, 0, 0, 0], torch.inf)
    free, loss = replace(run.threat, bounds=None), "lead" if run.targets is None else "margin"
    for target in classes.unbind(1):
        result = run.loss_gradient(moved, rows, loss=loss, targets=target)
        gaps = (2 * enough(result.logits) - result.values).nan_to_num(0, 0, 0)
        shift = shift_to_plane(moved, result.gradient, gaps, free)
        flat = (result.gradient == 0).flatten(1).all(1)
        length = run.threat.length(shift).masked_fill(flat, torch.inf)
        nearer = length < least
        best, least = (
            torch.where(nearer[:, None, None, None], shift, best),
            torch.where(nearer, length, least),
        )
    return best
