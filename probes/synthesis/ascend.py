"""Gradient ascent on images: maximise an objective over a canvas."""

import copy
import math
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from fulgurite.probes.borrow import borrowed, device_of
from fulgurite.probes.objectives import Objective
from fulgurite.probes.reading import reading
from fulgurite.probes.synthesis.canvas import Canvas
from fulgurite.probes.synthesis.priors import Prior
from fulgurite.probes.synthesis.transforms import Transform, identity


def ascend(
    network: nn.Module,
    objective: Objective,
    canvas: Canvas,
    *,
    steps: int = 128,
    lr: float = 0.05,
    anneal: bool = False,
    priors: Sequence[Prior] = (),
    transform: Transform = identity,
    seed: int = 0,
    precise: bool = False,
    progress: str | None = None,
) -> Float[Tensor, "n c h w"]:
    """The images on the canvas after `steps` steps of Adam up the objective less the priors.

    All images are painted in one batch, none depends on the others, and the network runs only as deep as the
    objective reads. An image whose gradient is not finite stays as it is for that step; a warning counts
    them.

    Args:
        network: maps images in [0, 1] to logits.
        objective: a number per image to make large.
        canvas: where the images begin; its parameters are moved.
        steps: how many.
        lr: Adam's learning rate, in the canvas's own units.
        anneal: let the learning rate fall linearly towards 0, so that what single steps added by chance
            averages out.
        priors: penalties, taken off the objective.
        transform: what is done to the images before each look.
        seed: of the transform's draws.
        precise: compute in float64, on a copy of the network. Rounding in float32 depends on the number of
            threads, and an ascent can blow it up to a different image; in float64 it is the same to 1e-5.
        progress: a label for a progress bar, shown if it takes more than three seconds; none without it.
    """
    with (
        borrowed(network, channels_last=True) as net,
        reading(_doubled(net) if precise else net, objective.layers) as read,
    ):
        canvas = canvas.to(device_of(net), torch.float64 if precise else torch.float32).requires_grad_()
        parameters = list(canvas.parameters())
        climbers = [_Adam(parameter, lr) for parameter in parameters]
        torch.manual_seed(seed)
        for step in tqdm(range(steps), progress, disable=progress is None, delay=3, leave=False):
            images = canvas()
            gains = objective.value(read(transform(images)))
            for prior in priors:
                gains = gains - prior(images)
            for climber, gradient in zip(climbers, torch.autograd.grad(gains.sum(), parameters), strict=True):
                climber.step(gradient, 1 - step / steps if anneal else 1.0)
            canvas.project()
        painted = canvas().detach().to(torch.float32, copy=True)
    if climbers and (stuck := int(torch.stack([climber.stuck for climber in climbers]).any(0).sum())):
        warnings.warn(f"{stuck} of {len(painted)} images met gradients that are not finite", stacklevel=2)
    return painted


def _doubled(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).double()


class _Adam:
    """Adam upwards, image by image: one whose gradient is not finite neither moves nor remembers it.

    Kingma & Ba 2015, arxiv.org/abs/1412.6980. A step of torch.optim.Adam takes as long as a small layer, and
    moves an image on by its momentum where the gradient is set to 0.
    """

    def __init__(self, parameter: nn.Parameter, lr: float, betas: tuple[float, float] = (0.9, 0.999)):
        self.parameter, self.lr, self.betas, self.steps = parameter, lr, betas, 0
        self.mean, self.square = torch.zeros_like(parameter.data), torch.zeros_like(parameter.data)
        self.stuck = torch.zeros(len(parameter), dtype=torch.bool, device=parameter.device)

    @torch.no_grad()
    def step(self, gradient: Float[Tensor, "n ..."], rate: float = 1.0) -> None:
        """Move the images up, at this share of the learning rate."""
        self.steps += 1
        slow, slower = (1 - beta**self.steps for beta in self.betas)
        # on a CPU it is cheap to ask, and mostly nothing is wrong; elsewhere, to ask would be to wait
        fine = None if gradient.is_cpu and math.isfinite(gradient.sum()) else self._fine(gradient)
        if fine is not None:
            gradient = torch.where(fine, gradient, 0)
        self.mean.lerp_(gradient, 1 - self.betas[0])
        self.square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        spread = self.square.sqrt().mul_(slower**-0.5).add_(1e-8)
        mean = self.mean if fine is None else torch.where(fine, self.mean, 0)
        self.parameter.addcdiv_(mean, spread, value=rate * self.lr / slow)

    def _fine(self, gradient: Tensor) -> Bool[Tensor, "n ..."]:
        fine = gradient.isfinite().flatten(1).all(1)
        self.stuck |= ~fine
        return fine.view(-1, *[1] * (gradient.dim() - 1))
