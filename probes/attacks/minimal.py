"""Minimal-distance attacks by name, and the distances of the adversarial images that they find."""

from collections.abc import Callable
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.attacked_network import AttackOptions
from fulgurite.probes.attacks.carlini_wagner import carlini_wagner, szegedy
from fulgurite.probes.attacks.ddn import ddn, fmn
from fulgurite.probes.attacks.deepfool import deepfool
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.losses import misclassified
from fulgurite.probes.attacks.nearest_adversarial import minimal_attack, norm_of
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.frozen_eval import frozen_eval

Minimal = Callable[..., Float[Tensor, "n c h w"]]
"""An attack `(network, images, labels, norm) -> images`; images for which nothing was found are unchanged."""
FAR = 1e6  # in the images' units


def minimal_fab(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    norm: str | Threat = "l2",
    *,
    steps: int = 100,
    target_classes: int = 9,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """FAB without a radius: the nearest point that it finds, however far; see `fab`.

    Args:
        network: maps images to logits.
        images: within the norm's bounds.
        labels: the true class of each image.
        norm: by name, or such a threat, whose radius does not matter.
        steps: towards each target class.
        target_classes: to how many other classes, the likeliest for the image first.
        how: options of every attack, see `AttackOptions`; but no loss. With a target, the one boundary is
            that of the target.

    Raises:
        ValueError: as `attacked`, for counts below 1, and for a loss.
    """
    with minimal_attack(network, images, labels, norm, **how) as (nearest, rows):
        moved = fab(
            *(network, images, labels, norm_of(norm).at(FAR)),
            steps=steps,
            target_classes=target_classes,
            drop=False,
            **how,
        )[rows].to(nearest.images)
        # FAB ends so close to the boundary that another batch's rounding may undo it
        for more in (0, *(10**-power for power in range(5, 0, -1))):
            stretched = nearest.images[rows] + (1 + more) * (moved - nearest.images[rows])
            nearest.look(nearest.run.threat.bounded(stretched), rows)
    return nearest.points


MINIMAL: dict[str, Minimal] = {
    "deepfool": deepfool,
    "ddn": ddn,
    "fmn": fmn,
    "cw": carlini_wagner,
    "szegedy": szegedy,
    "fab": minimal_fab,
}

NORMS = dict.fromkeys(MINIMAL, ("l2",)) | {
    "deepfool": ("l2", "linf"),
    "fmn": ("linf", "l2", "l1"),
    "fab": ("linf", "l2", "l1"),
}
"""The norms that each attack supports."""


def found_distances(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    moved: Float[Tensor, "n c h w"],
    norm: str | Threat = "l2",
) -> Float[Tensor, "n"]:
    """Distance of each adversarial image: 0 if the image was misclassified before, inf if none was found.

    The network itself decides what is misclassified, in eval mode and float32, not the attack.
    """
    threat = norm_of(norm)
    with frozen_eval(network) as own, torch.no_grad():
        clean, adversarial = (misclassified(own(part).float(), labels) for part in (images, moved))
    lengths = threat.distance(moved, images).where(adversarial, torch.inf)
    return lengths.masked_fill(clean, 0)
