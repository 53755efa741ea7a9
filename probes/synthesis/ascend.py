"""Paint the images that make an objective large."""

import copy
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from fulgurite.probes.borrow import borrowed, device_of
from fulgurite.probes.objectives import Objective
from fulgurite.probes.record import reading
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
        priors: penalties, taken off the objective.
        transform: what is done to the images before each look.
        seed: of the transform's draws.
        precise: compute in float64, on a copy of the network. Rounding in float32 depends on the number of
            threads, and an ascent can blow it up to a different image; in float64 it is the same to 1e-5.
        progress: a label for a progress bar, shown if it takes more than three seconds; none without it.
    """
    fine = None
    with borrowed(network) as net, reading(_doubled(net) if precise else net, objective.layers) as read:
        canvas = canvas.to(device_of(net), torch.float64 if precise else torch.float32).requires_grad_()
        parameters = list(canvas.parameters())
        optimizer = torch.optim.Adam(parameters, lr, fused=True)
        torch.manual_seed(seed)
        for _ in tqdm(range(steps), progress, disable=progress is None, delay=3, leave=False):
            images = canvas()
            gain = objective.value(read(transform(images))).sum()
            for prior in priors:
                gain = gain - prior(images).sum()
            finite = _climb(parameters, torch.autograd.grad(gain, parameters), optimizer)
            fine = finite if fine is None else fine & finite
            canvas.project()
        painted = canvas().detach().to(torch.float32, copy=True)
    if fine is not None and not fine.all():
        warnings.warn(
            f"{int((~fine).sum())} of {len(fine)} images met gradients that are not finite", stacklevel=2
        )
    return painted


def _doubled(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).double()


def _climb(
    parameters: list[nn.Parameter], gradients: Sequence[Tensor], optimizer: torch.optim.Optimizer
) -> Bool[Tensor, "n"]:
    """One step; says which images had finite gradients."""
    finite = torch.stack([gradient.flatten(1).sum(1).isfinite() for gradient in gradients]).all(0)
    kept = [finite.view(-1, *[1] * (gradient.dim() - 1)) for gradient in gradients]
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter, gradient, mask in zip(parameters, gradients, kept, strict=True):
        parameter.grad = torch.where(mask, -gradient, 0)
    optimizer.step()
    with torch.no_grad():  # Adam moves on by its momentum where the gradient is 0
        for parameter, old, mask in zip(parameters, before, kept, strict=True):
            parameter.copy_(torch.where(mask, parameter, old))
    return finite
