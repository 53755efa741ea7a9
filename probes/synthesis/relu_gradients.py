"""Gradients that pass dead ReLUs: redirected (Olah et al. 2017) and leaky (Mahendran and Vedaldi 2016)."""

from functools import partial

from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attribution.autograd_graph import nodes_of
from fulgurite.probes.attribution.rectifications import is_relu


def redirect(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The values, whose gradient passes ReLUs that would block all of it.

    Where a ReLU passes no gradient back for an image, because all units on the path are dead, it passes the
    part that would increase its input. Where some of the gradient passes, nothing changes. ReLUs are found in
    autograd's graph, however they are written. Olah et al. 2017, distill.pub/2017/feature-visualization.
    """
    for node in nodes_of([values]):
        if is_relu(node):
            node.register_hook(_redirected)  # it goes with the graph
    return values


def leak(values: Float[Tensor, "n"], slope: float) -> Float[Tensor, "n"]:
    """The values, whose gradient passes ReLUs as if they were leaky: by `slope`, where they output 0.

    The values stay those of the network. ReLUs are found in autograd's graph, however they are written;
    those that saturate at 6 leak there, too. Mahendran and Vedaldi 2016, arxiv.org/abs/1512.02017.
    """
    for node in nodes_of([values]):
        if is_relu(node):
            node.register_hook(partial(_leaked, slope=slope))
    return values


def _redirected(into: tuple, out: tuple) -> tuple:
    return tuple(None if grad is None else _passed(grad, out[0]) for grad in into)


def _passed(grad: Tensor, above: Tensor) -> Tensor:
    if not grad.dim():
        return grad
    dead = (grad == 0).flatten(1).all(1) if grad.dim() > 1 else grad == 0
    return grad.where(~dead.view(-1, *[1] * (grad.dim() - 1)), above.clamp(min=0))


def _leaked(into: tuple, out: tuple, *, slope: float) -> tuple:
    """What passes is the gradient above, or 0: between these, `slope` of the way to the gradient above."""
    return tuple(
        grad if grad is None or grad.shape != out[0].shape else grad.lerp_(out[0], slope) for grad in into
    )
