"""Shared parts of adversarial-training recipes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch

from fulgurite.callbacks.adversarial_examples import AdversarialExamples
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.overfitting import CatastrophicOverfitting
from fulgurite.callbacks.robustness import Robustness
from fulgurite.callbacks.saliency_alignment import SaliencyAlignment
from fulgurite.callbacks.weight_average import WeightAverage
from fulgurite.models.free_training import Free
from fulgurite.models.losses import Adversarial, Fast, Loss, Trades
from fulgurite.models.mart import Mart
from fulgurite.models.noisy_training import Noisy
from fulgurite.models.weight_perturbation import WeightPerturbed
from fulgurite.probes.attacks.argument_checks import check_counts
from fulgurite.probes.attacks.gradient_pass import PLAIN, GradientPass
from fulgurite.probes.attacks.threat import THREATS, Threat, threat_within
from fulgurite.recipes.recipe import Recipe, classifier_of

Method = Literal["madry", "trades", "mart", "fast", "free", "noise", "plain"]
Norm = Literal["linf", "l2", "l1"]
Answer = Literal["warn", "stop", "pgd"]
STEPS = 1000  # of PGD; papers train with 7 to 50


def robust(
    recipe: Recipe,
    gradient_pass: GradientPass | None = None,
    layer: str = "",
    *,
    method: Method = "madry",
    threat: Norm = "linf",
    radius: float | str,
    steps: int,
    beta: float = 6.0,
    replays: int = 4,
    sigma: float = 0.25,
    warmup: float = 0.0,
    awp: float = 0.0,
    ema: float | None = None,
    overfitting: Answer = "warn",
    patience: int | None = None,
    ensemble_every: int | None = None,
    robust_images: int | None = None,
) -> Recipe:
    """The same recipe with another loss; changes its model.

    The best checkpoint and early stopping depend on robust validation accuracy, which falls again after its
    best epoch (Rice et al. 2020, arxiv.org/abs/2002.11569).

    Args:
        recipe: what is trained.
        gradient_pass: how the gradient passes run.
        layer: where probes read class scores.
        method: madry trains on the worst images, trades on clean ones and on how far predictions move, mart
            on both where the clean ones are doubtful, fast on images after one step, free on images that each
            step moves together with the weights, noise on noisy ones (see `test --smooth`), plain on clean
            ones.
        threat: the norm of the perturbation: its largest pixel (linf), or its length (l2, l1).
        radius: the bound on that norm; pixels are in [0, 1]. `robust accuracy` is measured within it, too: by
            PGD of 10 steps on validation images, of 20 on test images (under l1, APGD).
        steps: of PGD, in madry, trades and mart.
        beta: the weight of robustness in trades and mart.
        replays: steps on each batch in free, each at the cost of a plain one.
        sigma: the standard deviation of the noise, in noise.
        warmup: the share of the training over which the radius grows from 0.
        awp: adversarial weight perturbation: the share of their length by which the weights of a layer are
            moved, such as 0.005; none at 0. Costs one more forward and backward pass.
        ema: validate, save and test a moving average of the weights, of which this share stays at each step,
            such as 0.995; none without it.
        overfitting: the reaction to catastrophic overfitting of fast: a warning (warn), the end of the
            training (stop), or training on with madry (pgd).
        patience: epochs without a better robust validation accuracy after which training stops.
        ensemble_every: runs of Robustness from one with AutoAttack's ensemble to the next; none without it.
        robust_images: validation images that robust accuracy is measured on, as many of each class, the same
            ones each time; all without it. Of test images all are attacked.
    """
    within = threat_within(THREATS[threat], radius, f"radius={radius}")
    if steps > STEPS:
        raise ValueError(f"steps={steps} in every step of the training; wanted at most {STEPS}")
    if ensemble_every is not None:
        check_counts(ensemble_every=ensemble_every)
    if robust_images is not None:
        check_counts(robust_images=robust_images)
    growing, min_max = warmup * recipe.epochs, method not in ("plain", "noise")
    if growing and min_max and patience is not None and patience <= growing:
        raise ValueError(
            f"patience={patience}, but the radius grows for {growing:.0f} epochs, and robust accuracy is "
            f"not comparable before their end; wanted more than {growing:.0f}"
        )
    if overfitting != "warn" and not min_max:
        raise ValueError(
            f'overfitting={overfitting!r} answers to min-max training, but method="{method}" has none'
        )
    if overfitting == "pgd" and method != "fast":
        raise ValueError(f'overfitting="pgd" falls back from method="fast", but this is {method!r}')
    if awp and not min_max:
        raise ValueError(
            f'awp={awp} perturbs the weights for min-max training, but method="{method}" has none'
        )
    average = [] if ema is None else [WeightAverage(ema)]
    model = classifier_of(recipe)
    model.threat, model.robust_images = within, robust_images
    probes = [*recipe.probes, *_probes(within, recipe.probes, layer, ensemble_every)]
    if not min_max:
        model.loss = Noisy(sigma) if method == "noise" else model.loss
        return replace(recipe, probes=probes, callbacks=[*average, *recipe.callbacks], patience=patience)
    loss = loss_of(
        *(method, within),
        steps=steps,
        beta=beta,
        replays=replays,
        warmup=warmup,
        gradient_pass=gradient_pass,
    )
    model.loss = WeightPerturbed(loss, awp) if awp else loss
    watch = [*average, *recipe.callbacks, CatastrophicOverfitting(within, answer=overfitting)]
    return replace(recipe, probes=probes, callbacks=watch, monitor="val/robust accuracy", patience=patience)


def _probes(
    threat: Threat, others: Sequence[ProbeCallback], layer: str, ensemble_every: int | None
) -> list[ProbeCallback]:
    """The probes of robustness, as often as the others, without a budget; none where there are no others."""
    if not others:
        return []
    every = others[0].every
    return [
        AdversarialExamples(threat, every=every),
        Robustness(
            threat, images=128, ensemble_every=ensemble_every, curve_every=10, checks_every=10, every=every
        ),
        SaliencyAlignment(layer=layer, every=every),
    ]


def loss_of(
    method: Method,
    threat: Threat,
    *,
    steps: int,
    beta: float,
    replays: int,
    warmup: float,
    gradient_pass: GradientPass | None,
) -> Loss:
    """The loss of a method."""
    how = {"warmup": warmup, "gradient_pass": gradient_pass}
    losses: dict[str, Callable[[], Loss]] = {
        "madry": lambda: Adversarial(threat, steps=steps, **how),
        "trades": lambda: Trades(threat, beta=beta, steps=steps, **how),
        "mart": lambda: Mart(threat, beta=beta, steps=steps, **how),
        "free": lambda: Free(threat, replays=replays, warmup=warmup),
        "fast": lambda: Fast(threat, warmup=warmup, gradient_pass=gradient_pass or PLAIN),
    }
    return losses[method]()


def gradient_pass_of(*, bf16: bool, folded: bool = False) -> GradientPass:
    """The fastest gradient passes: channels last, optionally bfloat16, and compiled on a GPU."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    return GradientPass(folded=folded, channels_last=True, dtype=dtype, compiled=not folded)
