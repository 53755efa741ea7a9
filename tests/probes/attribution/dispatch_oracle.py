"""The backward rules again, slower, simpler, and close to the papers: they replace what autograd calls.

Where the probe puts hooks on autograd's graph, these change the one operation that takes a ReLU or a
max-pooling back, whoever calls it. They know ReLU and ReLU6 alone, not clamps; nor adaptive max-pooling.
"""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class Rule(TorchDispatchMode):
    """While autograd runs in here, ReLUs and max-poolings pass back by another rule; `met` counts them."""

    def __init__(self, relu: str, pool: str = "switches"):
        super().__init__()
        self.relu, self.pool, self.met = relu, pool, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        plain = function(*args, **(kwargs or {}))
        if function in (aten.threshold_backward.default, aten.hardtanh_backward.default):
            self.met += 1
            return {"salinet": plain, "deconvnet": args[0].clamp(min=0), "desalinet": plain.clamp(min=0)}[
                self.relu
            ]
        if function is aten.max_pool2d_with_indices_backward.default and self.pool == "centre":
            self.met += 1
            return to_the_centres(*args[:6])
        return plain


def by_dispatch(
    network: nn.Module, images: Tensor, place: int, *, relu: str = "salinet", pool: str = "switches"
) -> Tensor:
    """The map of the logit at `place`, of a network in eval mode in which there are ReLUs or max-poolings."""
    pixels = images.clone().requires_grad_()
    score = network(pixels)[:, place].sum()
    with Rule(relu, pool) as rule:
        found = torch.autograd.grad(score, pixels)[0]
    assert rule.met
    return found


def to_the_centres(grad: Tensor, images: Tensor, kernel, stride, padding, dilation) -> Tensor:
    """Every window gives what it gets to its middle; of an even number, to the second of the two."""
    passed = torch.zeros_like(images)
    for row in range(grad.shape[2]):
        for column in range(grad.shape[3]):
            y, x = (
                min(
                    max(at * (stride or kernel)[i] - padding[i] + dilation[i] * (kernel[i] // 2), 0), side - 1
                )
                for i, (at, side) in enumerate(zip((row, column), images.shape[2:], strict=True))
            )
            passed[:, :, y, x] += grad[:, :, row, column]
    return passed
