"""A network under attack: logits, gradients of a loss, and confirmation of adversarial images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import (
    check_answers,
    check_choices,
    check_counts,
    check_images,
    class_numbers,
)
from fulgurite.probes.attacks.compiled_pass import compiled_pass
from fulgurite.probes.attacks.gradient_pass import PLAIN, GradientPass, prepared
from fulgurite.probes.attacks.losses import LOSSES, misclassified
from fulgurite.probes.attacks.per_image_rng import PerImageRandom, numbers_from
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import Objective
from fulgurite.probes.record import record


class AttackOptions(TypedDict, total=False):
    """Options of every attack.

    Args:
        loss: what is made large: "cross_entropy", "margin" or "dlr" (see `losses`), or any objective.
        target: a class, or one for each image, that the network is to predict; without it, any but the label.
        mode: "eval", or "train": modules stay in the mode they are in, and their running statistics as they
            were.
        gradient_pass: how the gradient passes run.
        generator: the source of random numbers, from which one number is drawn; without it, the random
            numbers of an image depend on its pixels alone.
        at_once: how many images may go through the network together. Where fewer are left, several attempts
            at each (restarts, target classes) run in one batch, with the same results up to rounding. All
            images by default.
    """

    loss: str | Objective
    target: int | Int[Tensor, "n"] | None
    mode: Literal["eval", "train"]
    gradient_pass: GradientPass
    generator: torch.Generator | None
    at_once: int | None


class NoGradientError(ValueError):
    """The network's prediction does not depend on the images by differentiable steps."""


class LossGradient(NamedTuple):
    """The result of a gradient pass for each image: loss, its gradient by the image, logits."""

    values: Float[Tensor, "n"]
    gradient: Float[Tensor, "n c h w"]
    logits: Float[Tensor, "n k"]


class Attacked:
    """A network under attack: images, labels and targets, with logits and gradients of the network.

    At most `at_once` images are to be processed together.
    """

    def __init__(
        self,
        own: nn.Module,
        gradient_pass: GradientPass,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
        targets: Int[Tensor, "n"] | None,
        threat: Threat,
        loss: str | Objective,
        generator: torch.Generator | None,
        at_once: int,
    ):
        self.images, self.labels, self.targets, self.threat = images, labels, targets, threat
        self.at_once = at_once
        self._own, self._gradient_pass, self._loss = own, gradient_pass, loss
        # drawn once, so that the generator's next numbers do not depend on the number of attempts
        self._numbers = None if generator is None else numbers_from(images, generator)
        self._logits_checked = False
        self._run, self._compiled = own, None
        if gradient_pass.compiled and images.is_cuda and not torch.are_deterministic_algorithms_enabled():
            self._compiled = compiled_pass(own, gradient_pass.dtype)
        else:
            self._run = prepared(own, gradient_pass, images)

    def draws(self, *, salt: int = 0) -> PerImageRandom:
        """Random numbers for all images, different ones for each salt."""
        if self._numbers is None:
            self._numbers = PerImageRandom(self.images).numbers
        return PerImageRandom.of(self.images, self._numbers, salt=salt)

    def logits(self, moved: Float[Tensor, "m c h w"]) -> Float[Tensor, "m k"]:
        """The network's own predictions, in float32."""
        with torch.no_grad():
            return self._checked_logits(self._own(moved))

    def misclassified(self, moved: Float[Tensor, "m c h w"], rows: Int[Tensor, "m"]) -> Bool[Tensor, "m"]:
        """Whether moved copies of `images[rows]` fool the network itself."""
        return misclassified(self.logits(moved), self.labels[rows], self._targets(rows))

    def seems_misclassified(self, logits: Float[Tensor, "m k"], rows: Int[Tensor, "m"]) -> Bool[Tensor, "m"]:
        """Whether copies of `images[rows]` are misclassified by these logits of a gradient pass."""
        return misclassified(logits, self.labels[rows], self._targets(rows))

    def confirmed(
        self, moved: Float[Tensor, "m c h w"], rows: Int[Tensor, "m"], fooled: Bool[Tensor, "m"]
    ) -> Bool[Tensor, "m"]:
        """Which images that the gradient pass misclassifies the network itself misclassifies too."""
        same_network = (
            self._run is self._own and self._gradient_pass.dtype == torch.float32 and not self._compiled
        )
        if not same_network and fooled.any():
            fooled = fooled.clone()
            fooled[fooled.clone()] = self.misclassified(moved[fooled], rows[fooled])
        return fooled

    def loss_gradient(
        self,
        moved: Float[Tensor, "m c h w"],
        rows: Int[Tensor, "m"],
        *,
        loss: str | Objective | None = None,
        targets: Int[Tensor, "m"] | None = None,
    ) -> LossGradient:
        """The loss for moved copies of `images[rows]`, its gradient by them, and the logits, in one pass.

        Args:
            moved: the copies.
            rows: the images that they are copies of.
            loss: used instead of the attack's own.
            targets: used instead of the attack's own.
        """
        loss = self._loss if loss is None else loss
        targets = self._targets(rows) if targets is None else targets
        leaf = moved.detach()
        if self._gradient_pass.channels_last or self._compiled:
            leaf = leaf.contiguous(memory_format=torch.channels_last)
        leaf = leaf.requires_grad_()
        with torch.autocast(
            leaf.device.type, torch.bfloat16, enabled=self._gradient_pass.dtype == torch.bfloat16
        ):
            if isinstance(loss, Objective):
                with record(self._run, sorted({"", *loss.layers})) as outputs:
                    logits = self._run(leaf)
                values = loss.of(rows, len(self.images)).value(outputs)
            else:
                logits = (self._compiled or self._run)(leaf)
                values = None
        logits = self._checked_logits(logits)
        if values is None:
            values = LOSSES[str(loss)](logits, self.labels[rows], targets)
        if not values.requires_grad:
            raise NoGradientError(
                "the output has no gradient with respect to the images; the attack that needs none is square"
            )
        # sum, not mean: each image's gradient must not depend on its batch
        (gradient,) = torch.autograd.grad(values.sum(), leaf, materialize_grads=True)
        return LossGradient(values.detach().float(), gradient.nan_to_num(0, 0, 0), logits.detach())

    def _targets(self, rows: Int[Tensor, "m"]) -> Int[Tensor, "m"] | None:
        return None if self.targets is None else self.targets[rows]

    def _checked_logits(self, logits: Any) -> Float[Tensor, "m k"]:
        if not self._logits_checked:
            self._logits_checked = True
            try:
                check_answers(logits, self.labels, self.targets)
            except ValueError:
                # NaN counts as misclassified for moved images; for the clean images it is an error
                odd = isinstance(logits, Tensor) and bool(logits.isnan().any())
                with torch.no_grad():
                    check_answers(self._own(self.images) if odd else logits, self.labels, self.targets)
        return logits.float()


@contextmanager
def attacked(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    *,
    loss: str | Objective = "cross_entropy",
    target: int | Int[Tensor, "n"] | None = None,
    mode: Literal["eval", "train"] = "eval",
    gradient_pass: GradientPass = PLAIN,
    generator: torch.Generator | None = None,
    at_once: int | None = None,
) -> Iterator[Attacked]:
    """Within the block, the network gives gradients and logits under attack; at its end it is as before.

    No parameter ever gets a gradient, the random state of torch is not touched, and it works in any hook of
    Lightning, under inference mode too. For the options, see `AttackOptions`.

    Raises:
        ValueError: images outside the bounds, labels or targets that are not classes, an unknown loss, a
            network that returns probabilities.
    """
    check_choices(threat, loss, target, mode, gradient_pass)
    if at_once is not None:
        check_counts(at_once=at_once)
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise ValueError(f"generator={generator!r}; wanted such as torch.Generator().manual_seed(0), or None")
    with torch.inference_mode(False):
        images = check_images(images, threat).clone()
        labels = class_numbers(labels, images, "labels").clone()
        targets = None if target is None else class_numbers(target, images, "targets").clone()
    if targets is not None and (targets == labels).all():
        raise ValueError("the targets are the labels themselves; wanted classes that the images are not of")
    modes = "eval" if mode == "eval" else "unchanged"
    # in train mode, logits depend on the other images of the batch
    together = 1 if mode == "train" else len(images) if at_once is None else at_once
    with frozen_eval(network, modes=modes, channels_last=gradient_pass.channels_last) as own:
        yield Attacked(own, gradient_pass, images, labels, targets, threat, loss, generator, together)
