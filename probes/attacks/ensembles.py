"""AutoAttack's ensemble and other sets of attacks by name."""

import warnings
from collections.abc import Callable
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.gradient_pass import CHANNELS_LAST, PLAIN, GradientPass
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import L1, Threat

Attack = Callable[[nn.Module, Float[Tensor, "n c h w"], Int[Tensor, "n"], Threat], Float[Tensor, "n c h w"]]

FEW_CLASSES = (
    "the targeted DLR loss needs at least 4 classes, and the network has fewer; APGD-T uses the margin"
)


def ensemble(
    threat: Threat, classes: int, *, gradient_pass: GradientPass = CHANNELS_LAST, at_once: int | None = None
) -> dict[str, Attack]:
    """The standard attacks of AutoAttack, in order of cost: none needs tuning.

    Croce & Hein 2020, arxiv.org/abs/2003.01690; for L1, 2021, arxiv.org/abs/2103.01208. With fewer than four
    classes, the targeted DLR loss does not exist; the margin replaces it, with a warning.

    Args:
        threat: what they are for.
        classes: how many the network has.
        gradient_pass: how the gradient passes run.
        at_once: the number of images that fit: with fewer left, attempts share a batch, see `AttackOptions`.
    """
    restarts, target_classes = (5, 5) if isinstance(threat, L1) else (1, 9)
    loss, named = ("dlr", "APGD-T (DLR)") if classes >= 4 else ("margin", "APGD-T (margin)")
    if loss == "margin":
        warnings.warn(FEW_CLASSES, stacklevel=2)
    return {
        "APGD-CE": partial(apgd, restarts=restarts, gradient_pass=gradient_pass, at_once=at_once),
        named: partial(
            apgd, loss=loss, target_classes=target_classes, gradient_pass=gradient_pass, at_once=at_once
        ),
        "FAB-T": partial(fab, gradient_pass=gradient_pass, at_once=at_once),
        "Square": partial(square, gradient_pass=gradient_pass),
    }


def standard(
    threat: Threat, classes: int, *, gradient_pass: GradientPass = CHANNELS_LAST, at_once: int | None = None
) -> dict[str, Attack]:
    """FGSM and PGD-20, to compare with what others report, and then the ensemble."""
    return {
        **quick(threat, gradient_pass=gradient_pass),
        **ensemble(threat, classes, gradient_pass=gradient_pass, at_once=at_once),
    }


def quick(threat: Threat, *, gradient_pass: GradientPass = CHANNELS_LAST) -> dict[str, Attack]:
    """FGSM and PGD-20."""
    return {
        "FGSM": partial(fgsm, gradient_pass=gradient_pass),
        named(threat, 20): default_attack(threat, steps=20, gradient_pass=gradient_pass),
    }


def default_attack(
    threat: Threat,
    *,
    steps: int,
    loss: str = "cross_entropy",
    drop: bool = True,
    gradient_pass: GradientPass = PLAIN,
) -> Attack:
    """The gradient attack to begin with: PGD; under L1, where its equal steps get nowhere, APGD."""
    kind = apgd if isinstance(threat, L1) else pgd
    return partial(kind, steps=steps, loss=loss, drop=drop, gradient_pass=gradient_pass)


def run_default_attack(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    *,
    steps: int = 20,
) -> Float[Tensor, "n c h w"]:
    """`default_attack` for a threat that is given only when it runs."""
    return default_attack(threat, steps=steps)(network, images, labels, threat)


def named(threat: Threat, steps: int) -> str:
    """The name of `default_attack`, such as PGD-20."""
    return f"{'APGD' if isinstance(threat, L1) else 'PGD'}-{steps}"
