"""Optimisers for images: Adam, SGD with momentum, learning-rate schedules, and normalised gradients.

Each moves every image of a batch on its own; L-BFGS is in `lbfgs.py`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fulgurite.probes.synthesis.arguments import check_between

Schedule = Callable[[float], float]  # the part of the steps that is done, in [0, 1), to a factor
Normalisation = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]


def constant_rate(done: float) -> float:
    """The same learning rate at all steps."""
    del done
    return 1.0


def linear_decay(done: float) -> float:
    """A learning rate that falls linearly to 0, so that the noise of single steps averages out."""
    return 1 - done


def cosine_decay(done: float) -> float:
    """A learning rate that falls towards 0 along half a cosine. Loshchilov & Hutter 2017."""
    return (1 + math.cos(math.pi * done)) / 2


def as_it_is(gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The gradient without normalisation."""
    return gradient


def unit_gradient(gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The gradient scaled to a root mean square of one per image; 0 stays 0.

    Penalties that sum over pixels then have the same weight on every network, at every stage of its training
    and at every size: to a gradient of length one they would weigh the more, the more pixels there are.
    """
    length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
    return gradient * (gradient.shape[1:].numel() ** 0.5 / length.clamp_(min=1e-12))


def unit_length(gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The gradient scaled to a Euclidean length of one per image, as for L2 attacks; 0 stays 0."""
    return gradient / torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True).clamp_(min=1e-12)


def unit_mean(gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The gradient scaled to a mean absolute value of one per image, as in DeepDream; 0 stays 0."""
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_(min=1e-12)


class ImageOptimizer(ABC):
    """Moves the parameters behind a batch of images up a gradient, each image on its own.

    An image whose gradient is not finite stays as it is, and so does the state of its optimiser.

    Args:
        parameters: the first dimension of each counts the images.
        normalise: what is done to the objective's gradient with respect to the images, before those of the
            priors are added.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], normalise: Normalisation = as_it_is):
        self.parameters, self.normalise = list(parameters), normalise
        first = self.parameters[0]
        self.stuck = torch.zeros(len(first), dtype=torch.bool, device=first.device)
        """The images that have met gradients that are not finite."""

    @abstractmethod
    def step(self, values: Float[Tensor, "n"], gradients: Sequence[Tensor], done: float) -> None:
        """Move the images up.

        Args:
            values: the objective of each image as it is now.
            gradients: of the values with respect to the parameters.
            done: the part of the steps that is done, in [0, 1).
        """

    def finish(self) -> None:  # noqa: B027 - most have nothing to finish
        """Called after the last step."""

    def _finite(self, gradients: Sequence[Tensor]) -> Bool[Tensor, "n"] | None:
        """Which images have finite gradients; None where all have, if that costs no wait for a GPU."""
        # on a CPU a check is cheap, and all are usually finite; on other devices it would wait
        if all(gradient.is_cpu and math.isfinite(gradient.sum()) for gradient in gradients):
            return None
        finite = torch.stack([gradient.isfinite().flatten(1).all(1) for gradient in gradients]).all(0)
        self.stuck |= ~finite
        return finite


By = Callable[[Sequence[nn.Parameter]], ImageOptimizer]


def adam(
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    schedule: Schedule = constant_rate,
    normalise: Normalisation = as_it_is,
) -> By:
    """Adam at this learning rate, in the canvas's own units. Kingma & Ba 2015, arxiv.org/abs/1412.6980.

    Raises:
        ValueError: a rate that is not above 0.
    """
    check_between("lr", lr, 0, above=True)
    return partial(_Adam, lr=lr, betas=betas, schedule=schedule, normalise=normalise)


def sgd(
    lr: float,
    *,
    momentum: float = 0.0,
    schedule: Schedule = constant_rate,
    normalise: Normalisation = as_it_is,
) -> By:
    """Gradient steps, with optional momentum.

    With `normalise=unit_mean` these are DeepDream's steps, with `unit_length` those of L2 attacks.

    Raises:
        ValueError: a rate that is not above 0, or a negative momentum.
    """
    check_between("lr", lr, 0, above=True)
    check_between("momentum", momentum, 0)
    return partial(_Sgd, lr=lr, momentum=momentum, schedule=schedule, normalise=normalise)


def check_optimiser(by: object) -> None:
    """Check that `by` makes an optimiser of images.

    Raises:
        ValueError: it is a name, an optimiser of torch, or a function like `adam` that was not called.
    """
    uncalled = getattr(by, "__name__", "") in ("adam", "sgd", "lbfgs")
    if not callable(by) or uncalled or (isinstance(by, type) and not issubclass(by, ImageOptimizer)):
        raise ValueError(
            f"by={by!r}; wanted an optimiser with its options, such as by=adam(0.05) or by=lbfgs()"
        )


class _Adam(ImageOptimizer):
    # a step of torch.optim.Adam takes as long as a small layer, and moves an image on by its momentum where
    # the gradient is set to 0

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        schedule: Schedule,
        normalise: Normalisation,
    ):
        super().__init__(parameters, normalise)
        self.lr, self.betas, self.schedule, self.steps = lr, betas, schedule, 0
        self.means = [torch.zeros_like(parameter.data) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter.data) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, values: Float[Tensor, "n"], gradients: Sequence[Tensor], done: float) -> None:
        del values
        self.steps += 1
        slow, slower = (1 - beta**self.steps for beta in self.betas)
        rate, finite = self.schedule(done), self._finite(gradients)
        for own, gradient, mean, square in zip(
            self.parameters, gradients, self.means, self.squares, strict=True
        ):
            if finite is not None:
                gradient = torch.where(_broadcast(finite, gradient), gradient, 0)
            mean.lerp_(gradient, 1 - self.betas[0])
            square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
            spread = square.sqrt().mul_(slower**-0.5).add_(1e-8)
            moved = mean if finite is None else torch.where(_broadcast(finite, mean), mean, 0)
            own.addcdiv_(moved, spread, value=rate * self.lr / slow)


class _Sgd(ImageOptimizer):
    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        schedule: Schedule,
        normalise: Normalisation,
    ):
        super().__init__(parameters, normalise)
        self.lr, self.momentum, self.schedule = lr, momentum, schedule
        self.velocities = [torch.zeros_like(parameter.data) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, values: Float[Tensor, "n"], gradients: Sequence[Tensor], done: float) -> None:
        del values
        rate, finite = self.schedule(done), self._finite(gradients)
        for own, gradient, velocity in zip(self.parameters, gradients, self.velocities, strict=True):
            moved = self.momentum * velocity + gradient
            if finite is not None:
                velocity.copy_(torch.where(_broadcast(finite, moved), moved, velocity))
                moved = torch.where(_broadcast(finite, moved), moved, 0)
            else:
                velocity.copy_(moved)
            own.add_(moved, alpha=rate * self.lr)


def _broadcast(finite: Bool[Tensor, "n"], like: Tensor) -> Bool[Tensor, "n ..."]:
    return finite.view(-1, *[1] * (like.dim() - 1))
