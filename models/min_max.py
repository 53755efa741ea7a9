"""Shared parts of min-max losses: attack and loss as separate steps, warm-up and random numbers."""

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.gradient_pass import CHANNELS_LAST, PLAIN, GradientPass
from fulgurite.probes.channels import at_least_float32
from fulgurite.probes.objectives import Objective

Mode = Literal["eval", "train"]
Network = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n k"]]


@runtime_checkable
class MinMax(Protocol):
    """A loss in two steps: an attack moves the images, and the loss is computed for them."""

    def moved(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, "n c h w"]:
        """The images after the attack."""
        ...

    def of(
        self,
        network: Network,
        images: Float[Tensor, "n c h w"],
        moved: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
    ) -> Float[Tensor, ""]:
        """The mean loss of images and their adversarial images, graph attached."""
        ...


class OfMoved:
    """A min-max loss by its two steps; the second is the cross-entropy of the moved images."""

    def __call__(
        self: MinMax, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """The mean loss of images that are moved first."""
        return self.of(network, images, self.moved(network, images, labels), labels)

    def of(
        self,
        network: Network,
        images: Float[Tensor, "n c h w"],  # noqa: ARG002
        moved: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
    ) -> Float[Tensor, ""]:
        """The mean cross-entropy of images that were moved before."""
        return F.cross_entropy(network(moved), labels)


GrowingLoss = TypeVar("GrowingLoss", bound=Any)


def grown(loss: GrowingLoss, progress: float) -> GrowingLoss:
    """A loss with the radius, and the step, of this share of the training: 0 at first, whole at `warmup`."""
    if progress >= loss.warmup:
        return loss
    share = progress / loss.warmup
    size = getattr(loss, "step_size", None)
    step = {} if size is None else {"step_size": share * size}
    return replace(loss, threat=loss.threat.at(share * loss.threat.epsilon), warmup=0.0, **step)


def step_generator(images: Float[Tensor, "n c h w"]) -> torch.Generator:
    """A generator for a training step, which depends on one number of torch's own random state."""
    # a seeded run repeats its draws, which differ from batch to batch
    return torch.Generator(images.device).manual_seed(int(torch.randint(2**63 - 1, ())))


def draws_from_a_generator(attack: Callable[..., Tensor]) -> bool:
    """Whether an attack takes `generator=`."""
    try:
        signature(attack).bind(*"four", generator=None)
    except TypeError:
        return False
    return True


def fastest(gradient_pass: GradientPass | None, images: Float[Tensor, "n c h w"]) -> GradientPass:
    """The given gradient pass; without it, channels last on a CPU, plain elsewhere."""
    if gradient_pass is not None:
        return gradient_pass
    return CHANNELS_LAST if images.device.type == "cpu" else PLAIN


def check_warmup(warmup: float) -> None:
    """Check that it is a share of the training.

    Raises:
        ValueError: it is none.
    """
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup={warmup}; wanted a share of the training, from 0 to 1")


def check_replays(loss: object, accumulated: int) -> None:
    """Check that a loss which replays its batches makes a step after each.

    Raises:
        ValueError: gradients of several batches are accumulated.
    """
    replays = getattr(loss, "replays", 1)
    if replays > 1 and accumulated > 1:
        raise ValueError(
            f"replays={replays} with accumulate_grad_batches={accumulated}: a batch is replayed by steps of "
            "its own; wanted accumulate_grad_batches=1"
        )


def divergence(log_probabilities: Float[Tensor, "n k"]) -> Objective:
    """The Kullback-Leibler divergence of each image's prediction from given `log_probabilities`."""

    def value(outputs) -> Float[Tensor, "n"]:
        return kl_divergence(F.log_softmax(at_least_float32(outputs[""]), 1), log_probabilities)

    return Objective(frozenset({""}), value, lambda rows, _: divergence(log_probabilities[rows]))


def kl_divergence(
    answers: Float[Tensor, "n k"], log_probabilities: Float[Tensor, "n k"]
) -> Float[Tensor, "n"]:
    """The divergence of log-probabilities `answers` from given ones, of each image."""
    return F.kl_div(answers, log_probabilities, reduction="none", log_target=True).sum(1)
