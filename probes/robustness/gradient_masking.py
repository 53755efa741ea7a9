"""Sanity checks of robust accuracy: gradient masking and obfuscated gradients."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts
from fulgurite.probes.attacks.ensembles import default_attack
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.attacks.vanishing_gradients import without_gradient
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.robustness.check_attacks import Case, noise
from fulgurite.probes.robustness.evaluate import ByLogarithm
from fulgurite.probes.robustness.report import NONE_RIGHT, Check, aligned

# shares of the images that are normal for an undefended network
VANISHED = 0.02  # gradients that are zero: an undefended network is so sure of a few
CHANCE = 0.03  # images that another step would have found as well
BLIND = 0.04  # images that another start would have found as well
OTHER_LOSS = 0.06  # cross-entropy is 0.035 short of the truth on a linear network already
LEFT = 0.02  # images that stay correct although the attack may turn them into any other
REPEATED = 1e-4  # difference of two passes, relative to the largest logit: kernels that round at random


HEAD = ("check", "figure", "verdict", "what it says")


def sanity_checks(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    *,
    queries: int = 300,
    batch_size: int | None = None,
    progress: str | None = None,
) -> list[Check]:
    """Nine checks of whether a robust accuracy, measured on such images, is reliable.

    After Athalye et al. 2018, arxiv.org/abs/1802.00420, Carlini et al. 2019, arxiv.org/abs/1902.06705, and
    AutoAttack's. Some hundred images suffice. They begin with PGD-20 (APGD-50 under L1, where PGD gets
    nowhere), and most continue with the images that stay correct: each of these costs about 170 gradient
    passes (260 under L1) and `queries` + 75 forward ones. A check that raises an error has failed, with a
    note; so has an attack where no image is classified correctly. Among more than ten images, a single one is
    no evidence.

    Args:
        network: maps images to logits.
        images: within the threat's bounds, some hundred.
        labels: the true class of each image.
        threat: for which the robust accuracy is reported.
        queries: of the black-box attack.
        batch_size: as for `evaluate`.
        progress: a label for a progress bar.

    Raises:
        ValueError: as `evaluate`: no images, images outside the bounds, labels that are not classes.
    """
    check_counts(queries=queries, **{} if batch_size is None else {"batch_size": batch_size})
    case = Case(network, images, labels, threat, queries, batch_size)
    bar = progress_bar(CHECKS.items(), progress, unit="check")
    return [_answer(name, check, case) for name, check in bar]


def rows(checks: Sequence[Check]) -> list[list[str]]:
    """A row of words for each check, under `HEAD`."""
    return [
        [check.name, f"{check.figure:.4g}", "pass" if check.passed else "FAIL", check.says]
        for check in checks
    ]


def table(checks: Sequence[Check]) -> str:
    """The same as a plain table."""
    return aligned([HEAD, *rows(checks)])


_Found = tuple[float, bool, str]


def _gradients(case: Case) -> _Found:
    parts = zip(case.images.split(case.size), case.labels.split(case.size), strict=True)
    share = float(torch.cat([without_gradient(case.network, *part) for part in parts]).double().mean())
    return (
        share,
        case.few(share, VANISHED),
        f"{case.of(share)} have a cross-entropy gradient that is zero or not finite "
        f"({case.honest(VANISHED)}); no attack can follow it",
    )


def _one_step(case: Case) -> _Found:
    share = case.more(fgsm=fgsm)
    return (
        share,
        case.few(share, CHANCE),
        f"one step, FGSM, fools {case.of(share)} {case.beyond} "
        f"({case.honest(CHANCE)}); if one step does what many cannot, the gradient misleads",
    )


def _black_box(case: Case) -> _Found:
    share = case.more(square=partial(square, queries=case.queries), noise=noise)
    return (
        share,
        case.few(share, BLIND),
        f"Square with {case.queries} queries and noise, which see no gradient, fool {case.of(share)} "
        f"{case.beyond} ({case.honest(BLIND)}); if they do, the gradient is masked",
    )


def _unbounded(case: Case) -> _Found:
    low, high = case.threat.limits(case.images)
    if case.threat.bounds is None:
        low, high = case.images.amin(), case.images.amax()
    whole = float(case.threat.length((high - low).expand_as(case.images[:1])))
    share = case.under(default_attack(case.threat, steps=case.steps), case.threat.at(whole)).accuracy()
    return (
        share,
        case.few(share, LEFT),
        f"{case.of(share)} stand where {case.attack_name} may make any other of them (radius "
        f"{whole:.4g}; {case.honest(LEFT)}); where any do, it failed, but not for the network's robustness",
    )


def _radius_zero(case: Case) -> _Found:
    share = case.under(partial(pgd, steps=1), case.threat.at(0)).gain(-1)
    return (
        share,
        share == 0,
        f"{case.of(share)} fall to an attack of radius 0 (honest: none), which moves nothing",
    )


def _more_steps(case: Case) -> _Found:
    share = case.more(longer=default_attack(case.threat, steps=100))
    return (
        share,
        case.few(share, CHANCE),
        f"100 steps fool {case.of(share)} {case.beyond} "
        f"({case.honest(CHANCE)}); if they do, still more steps would fool more",
    )


def _other_loss(case: Case) -> _Found:
    share = case.more(margin=default_attack(case.threat, steps=case.steps, loss="margin"))
    return (
        share,
        case.few(share, OTHER_LOSS),
        f"{case.attack_name} on the margin fools {case.of(share)} {case.beyond} by "
        f"cross-entropy ({case.honest(OTHER_LOSS)}); if it does, the logits' scale hides them",
    )


def _stochastic(case: Case) -> _Found:
    parts = case.images.split(case.size)
    with frozen_eval(case.network) as own, torch.no_grad():
        first, again = (torch.cat([own(part.to(device_of(own))) for part in parts]) for _ in range(2))
    sizes = [logits.abs().nan_to_num(0, 0, 0).max() for logits in (first - again, first)]
    apart = float(sizes[0] / sizes[1].clamp(min=1e-12))
    return (
        apart,
        apart <= REPEATED,
        f"the logits of two passes differ by {apart:.2g} of the largest (honest: up to {REPEATED:g}); "
        "if they do, an attack must average over many passes",
    )


def _softmax(case: Case) -> _Found:
    shares = isinstance(case.network, ByLogarithm)
    return (
        float(shares),
        not shares,
        "the network returns probabilities; their gradient vanishes where it is confident: leave softmax out"
        if shares
        else "the network returns logits, no probabilities",
    )


CHECKS: dict[str, Callable[[Case], _Found]] = {
    "zero or non-finite gradients": _gradients,
    "one step beats many": _one_step,
    "black box beats white box": _black_box,
    "unbounded attack does not reach zero": _unbounded,
    "radius 0 is not clean": _radius_zero,
    "more steps still help": _more_steps,
    "cross-entropy against margin": _other_loss,
    "stochastic network": _stochastic,
    "softmax outputs": _softmax,
}

ATTACKING = {_one_step, _black_box, _unbounded, _radius_zero, _more_steps, _other_loss}
"""The checks show nothing where there is nothing to attack."""


def _answer(name: str, check: Callable[[Case], _Found], case: Case) -> Check:
    try:
        if check in ATTACKING and not case.right:
            return Check(name, math.nan, False, f"{NONE_RIGHT}: none of {len(case.images)}")
        figure, passed, says = check(case)
        return Check(
            name, figure, passed, f"{says}; {case.same}" if check in ATTACKING and case.same else says
        )
    except Exception as error:  # if one check fails on an unusual network, the other checks still run
        return Check(name, math.nan, False, f"could not be checked: {type(error).__name__}: {error}")
