"""Validation of the arguments of attacks."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulgurite.probes.attacks.gradient_pass import GradientPass
from fulgurite.probes.attacks.losses import LOSSES
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.attribution.gradient import checked, shaped
from fulgurite.probes.counted import counted
from fulgurite.probes.objectives import Objective
from fulgurite.probes.record import nearest


def check_threat(threat: object) -> None:
    """Check that this is a threat.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(threat, Threat):
        raise ValueError(f'{threat!r} is not a threat; wanted such as Linf("8/255")')


def check_counts(**counts: int) -> None:
    """Check that a count is a whole number of at least 1.

    Raises:
        ValueError: it is not.
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < 1:
            raise ValueError(f"{name}={count!r}; wanted a whole number of at least 1")


def check_numbers(**numbers: float | None) -> None:
    """Check that these are finite numbers of at least 0, or None.

    Raises:
        ValueError: they are not.
    """
    for name, number in numbers.items():
        if number is not None and not (
            isinstance(number, Real) and not isinstance(number, bool) and 0 <= float(number) < math.inf
        ):
            raise ValueError(f"{name}={number!r}; wanted a finite number of at least 0")


def check_attacks(attacks: object) -> None:
    """Check that these are attacks by name, in a dict.

    Raises:
        ValueError: they are not, or there are none.
    """
    if not isinstance(attacks, Mapping):
        raise ValueError(
            f'attacks that are a {type(attacks).__name__}; wanted them by name, such as {{"PGD": pgd}}'
        )
    if not attacks:
        raise ValueError('no attacks; wanted at least one, such as {"PGD": pgd}; None is the ensemble')
    for name, attack in attacks.items():
        if not callable(attack):
            raise ValueError(f"the attack {name!r} is {attack!r}; wanted a function, such as pgd")


def check_radii(radii: object) -> list[Any]:
    """The radii, several or one, in a list.

    Raises:
        ValueError: it is not a list.
    """
    if not isinstance(radii, Sequence | Tensor) or isinstance(radii, str | bytes) or not len(radii):
        raise ValueError(f"radii={radii!r}; wanted several, such as [0, 0.1, 0.2]")
    return list(radii)


def check_choices(
    threat: object,
    loss: str | Objective,
    target: int | Int[Tensor, "n"] | None,
    mode: str,
    gradient_pass: GradientPass,
) -> None:
    """Check that the options of an attack exist and are compatible.

    Raises:
        ValueError: it does not.
    """
    check_threat(threat)
    if not isinstance(loss, Objective) and (not isinstance(loss, str) or loss not in LOSSES):
        raise ValueError(f"no loss {loss!r}; {nearest(str(loss), LOSSES)}, or an objective")
    if isinstance(loss, Objective) and target is not None:
        raise ValueError("an objective already sets the goal; leave out target")
    if mode not in ("eval", "train"):
        raise ValueError(f'mode={mode!r}; wanted "eval" or "train"')
    if not isinstance(gradient_pass, GradientPass):
        raise ValueError(
            f"gradient_pass={gradient_pass!r}; wanted such as FAST or GradientPass(channels_last=True)"
        )
    if mode == "train" and (gradient_pass.folded or gradient_pass.compiled):
        raise ValueError(
            'a network is folded and compiled in eval mode only; leave out mode="train", or give '
            "GradientPass() without folded and compiled"
        )


def check_images(images: Float[Tensor, "n c h w"], threat: Threat) -> Float[Tensor, "n c h w"]:
    """The images, in float32.

    Raises:
        ValueError: there are none, they are not finite, or lie outside the bounds.
    """
    images = shaped(images).float()
    if not len(images):
        raise ValueError("no images to attack; the batch is empty")
    low, high = threat.limits(images)
    # one check for both, as each waits for the device: comparisons with NaN are false
    if not ((images >= low) & (images <= high) & (images.abs() < torch.inf)).all():
        images = checked(images)  # raises, with what is not finite
        raise ValueError(
            f"images from {images.min():.3g} to {images.max():.3g}, outside the threat's bounds "
            f"{threat.bounds}; attacks are in pixels: give images in [0, 1] and normalise in the network "
            "(models.networks.normalised), or say bounds="
        )
    return images


def check_answers(logits: Any, labels: Int[Tensor, "n"], targets: Int[Tensor, "n"] | None = None) -> None:
    """As `check_logits`, and check that they are no probabilities.

    Raises:
        ValueError: they are.
    """
    if _checked_logits(logits, labels, targets):
        raise ValueError(
            "the network returns probabilities, whose gradients vanish where it is confident; attack it "
            "without its softmax, or by their logarithm, which are logits too"
        )


def check_logits(logits: Any, labels: Int[Tensor, "n"]) -> None:
    """Check that a network's predictions are logits without NaN, and that it has the classes of the labels.

    Raises:
        ValueError: they are not, or are of one class alone.
    """
    _checked_logits(logits, labels, None)


def _checked_logits(logits: Any, labels: Int[Tensor, "n"], targets: Int[Tensor, "n"] | None) -> bool:
    """Whether they are probabilities, once they are checked."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        got = (
            f"a tensor of shape {tuple(logits.shape)}"
            if isinstance(logits, Tensor)
            else type(logits).__name__
        )
        raise ValueError(f"the network returned {got}; wanted logits of shape [images, classes]")
    if logits.shape[1] < 2:
        raise ValueError("the network has only one class; there is no other class to fool it into")
    # one check for all, as each waits for the device
    largest = [numbers.max() for numbers in (labels, targets) if numbers is not None]
    odd, probable = logits.isnan().any(), _are_probabilities(logits)
    *numbers, odd, probable = torch.stack([*largest, odd.long(), probable.long()]).tolist()
    for what, number in zip(("label", "target"), numbers, strict=False):
        if number >= logits.shape[1]:
            raise ValueError(f"{what} {number}, but the network has {logits.shape[1]} classes")
    if odd:
        raise ValueError(outputs_nan(int(logits.isnan().any(1).sum()), counted(len(logits), "image")))
    return bool(probable)


def outputs_nan(count: int, of: str) -> str:
    """What is said of a network that outputs NaN for so many."""
    return (
        f"the network outputs NaN for {count} of {of}; wanted logits that are numbers: its weights may have "
        "diverged in training"
    )


def are_probabilities(logits: Float[Tensor, "n k"]) -> bool:
    """Whether all rows are at least 0 and sum to 1."""
    return bool(_are_probabilities(logits))


def _are_probabilities(logits: Float[Tensor, "n k"]) -> Bool[Tensor, ""]:
    logits = logits.detach().float()
    sums_to_one = ((logits.sum(1) - 1).abs() < 1e-5).all()
    return (logits >= 0).all() & sums_to_one & (logits.shape[1] > 1)


def class_numbers(
    values: int | Int[Tensor, "n"], images: Float[Tensor, "n c h w"], what: str
) -> Int[Tensor, "n"]:
    """A class for each image, from labels or targets: one for each, or one for all.

    Raises:
        ValueError: they are not class numbers, or not as many as images.
    """
    try:
        numbers = torch.as_tensor(values, device=images.device)
    except (TypeError, ValueError, RuntimeError):
        numbers = None
    if numbers is None or isinstance(values, bool):
        raise ValueError(f"{what} {values!r}; wanted a class number for each image, or one for all")
    if (
        numbers.is_floating_point()
        or numbers.dtype == torch.bool
        or numbers.shape not in ((), (len(images),))
    ):
        raise ValueError(
            f"{what} that are {numbers.dtype} {tuple(numbers.shape)} for {len(images)} images; wanted a "
            "class number for each"
        )
    numbers = numbers.long().expand(len(images))
    if int(numbers.min()) < 0:
        raise ValueError(f"{what} down to {int(numbers.min())}; classes are numbered from 0")
    return numbers
