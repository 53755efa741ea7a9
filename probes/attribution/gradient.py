"""Input gradients of an objective: gradient, saliency, input x gradient."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.channels import at_least_float32
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import Objectives, as_list, layers_read, squeeze_single
from fulgurite.probes.record import record


def gradient(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objectives
) -> Float[Tensor, "*k n c h w"]:
    """The derivative of the objective by each pixel, signed: how fast the score grows with the pixel.

    An image's gradient does not depend on the others of its batch, but for rounding, which can tip a ReLU.
    For a sequence of objectives, there is one more dimension in front, and still only one forward pass.
    """
    with frozen_eval(network) as net:
        pixels = checked(images).clone().requires_grad_()
        return squeeze_single(gradients(objective_sums(net, pixels, objective), pixels), objective)


def checked(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The images in at least float32, as their maps will be, with no graph behind them.

    Raises:
        ValueError: they are not images, or not finite.
    """
    images = shaped(images)
    # a sum is cheap; that of huge values may overflow, though
    if not math.isfinite(images.sum()) and (wrong := int((~images.isfinite()).flatten(1).any(1).sum())):
        raise ValueError(f"NaN or infinity in {wrong} of {counted(len(images), 'image')}")
    return images


def shaped(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The same, without a check of the values.

    Raises:
        ValueError: they are not images.
    """
    if not isinstance(images, Tensor):
        raise ValueError(
            f"images that are a {type(images).__name__}; wanted a tensor, such as torch.stack(list)"
        )
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"images that are {images.dtype} {tuple(images.shape)}; wanted floats in [0, 1] of shape "
            "[n, channels, height, width]; one image is images[None], bytes are divided by 255"
        )
    return at_least_float32(images.detach())


def objective_sums(
    network: nn.Module, pixels: Float[Tensor, "n c h w"], objective: Objectives
) -> list[Float[Tensor, ""]]:
    """Each objective's sum over the images, with the graph back to the pixels, from one forward pass."""
    return objective_sums_and_outputs(network, pixels, objective)[0]


def objective_sums_and_outputs(
    network: nn.Module, pixels: Float[Tensor, "n c h w"], objective: Objectives
) -> tuple[list[Float[Tensor, ""]], list[Tensor]]:
    """Each objective's sum over the images, and the outputs of the layers that the objectives read."""
    with record(network, layers_read(objective)) as outputs:
        network(pixels)
    # sum, not mean: each image's gradient must not depend on its batch
    scores = [each.value(outputs).sum() for each in as_list(objective)]
    for k, score in enumerate(scores):
        if not score.requires_grad:
            raise ValueError(f"{numbered(k, scores)} does not depend on the images")
    return scores, [*outputs.values()]


def numbered(k: int, scores: Sequence[Tensor]) -> str:
    """The objective in words: by its number, where there are several."""
    return f"objective {k} (of {len(scores)}, from 0)" if len(scores) > 1 else "the objective"


def gradients(scores: Sequence[Float[Tensor, ""]], leaf: Float[Tensor, "*s"]) -> Float[Tensor, "k *s"]:
    """The gradient of each score by a leaf of its graph, which is freed after that.

    Raises:
        ValueError: a score does not depend on the leaf.
    """
    grads = []
    for k, score in enumerate(scores):
        (grad,) = torch.autograd.grad(score, leaf, retain_graph=k < len(scores) - 1, allow_unused=True)
        if grad is None:
            raise ValueError(f"{numbered(k, scores)} does not depend on the images")
        grads.append(grad)
    return torch.stack(grads)


def input_x_gradient(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objectives
) -> Float[Tensor, "*k n c h w"]:
    """Each pixel times the derivative by it, signed: to first order, what the pixel adds compared with black.

    Shrikumar et al. 2017, arxiv.org/abs/1605.01713.
    """
    return checked(images) * gradient(network, images, objective)


def saliency(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objectives
) -> Float[Tensor, "*k n 1 h w"]:
    """How much each pixel matters: the largest absolute derivative among its channels, at least 0.

    Meant for a class score before the softmax. Simonyan et al. 2014, arxiv.org/abs/1312.6034.
    """
    return strongest(gradient(network, images, objective))


def strongest(maps: Float[Tensor, "*k n c h w"]) -> Float[Tensor, "*k n 1 h w"]:
    """The largest absolute value among the channels."""
    return maps.abs().amax(-3, keepdim=True)
