"""Faster gradient passes for attacks: folded BatchNorm, channels last, bfloat16, compiled."""

import copy
import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class GradientPass:
    """How the network runs for an attack's gradient passes; predictions are its own, in float32.

    Args:
        folded: BatchNorm, which in eval mode only scales and shifts, folded into the convolution before it.
        channels_last: convolutions in channels-last memory format, which is faster on most machines; on a
            CPU, those of the network itself, until the attack ends. Outputs change only by rounding.
        dtype: what convolutions and matrix products compute in, by autocast: torch.bfloat16 is faster on
            machines with matrix units for it, and slower on CPUs without (on Intel's, AMX).
        compiled: on a GPU, by `torch.compile`, and replayed as a CUDA graph, always channels last; the first
            pass takes some ten seconds. Not with deterministic algorithms: the chosen kernels may
            differ from run to run. On a CPU it changes nothing.
    """

    folded: bool = False
    channels_last: bool = False
    dtype: torch.dtype = torch.float32
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(
                f"dtype={self.dtype} of the gradient passes; wanted torch.float32 or torch.bfloat16"
            )


PLAIN = GradientPass()
CHANNELS_LAST = GradientPass(channels_last=True)
FAST = GradientPass(folded=True, channels_last=True)


def prepared(network: nn.Module, gradient_pass: GradientPass, images: Float[Tensor, "n c h w"]) -> nn.Module:
    """The network itself; or, where more than its layout changes, a copy with the same outputs, faster."""
    if not gradient_pass.folded and not (
        gradient_pass.channels_last and images.device.type != "cpu" and _is_otherwise(network)
    ):
        return network
    run = copy.deepcopy(network)
    if gradient_pass.folded:
        few = images[:4]
        with torch.no_grad():
            before = network(few)
            _fold(run, few)
            after = run(few)
        if not torch.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.abs().max())):
            raise ValueError(
                "this network's outputs change with its BatchNorm folded into the convolutions; "
                "leave out GradientPass(folded=True)"
            )
    return run.to(memory_format=torch.channels_last) if gradient_pass.channels_last else run


def _is_otherwise(network: nn.Module) -> bool:
    """Whether a convolution is not yet laid out channels last."""
    weights = (part.weight for part in network.modules() if isinstance(part, nn.Conv2d))
    return not all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def _fold(network: nn.Module, images: Float[Tensor, "n c h w"]) -> None:
    """Fold each BatchNorm into the convolution whose output it takes, if both run exactly once."""
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: Counter[nn.Module] = Counter()

    def convolved(module: nn.Module, _: object, out: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        calls[module] += 1
        made[id(out)] = module, out, out._version

    def normalises(module: nn.Module, inputs: Sequence[Tensor]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        calls[module] += 1
        if found := made.get(id(inputs[0])):
            convolution, out, version = found
            if out is inputs[0] and out._version == version:  # nothing was written into it since
                pairs.append((convolution, module))

    handles = []
    for module in network.modules():
        if type(module) is nn.Conv2d:
            handles.append(module.register_forward_hook(convolved))
        elif isinstance(module, nn.BatchNorm2d) and not module.training and module.running_var is not None:
            handles.append(module.register_forward_pre_hook(normalises))
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    for convolution, norm in pairs:
        if calls[convolution] == calls[norm] == 1:
            _merge(convolution, norm)


def _merge(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    bias = torch.zeros_like(norm.running_mean) if convolution.bias is None else convolution.bias
    shift = (bias - norm.running_mean) * scale + (0 if norm.bias is None else norm.bias)
    weight = convolution.weight * scale[:, None, None, None]
    convolution.weight, convolution.bias = (
        nn.Parameter(part, requires_grad=False) for part in (weight, shift)
    )
    # timm's norms also activate
    rest = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    norm.forward = functools.partial(_through, rest)  # pyright: ignore[reportAttributeAccessIssue]


def _through(modules: Sequence[nn.Module], images: Tensor) -> Tensor:
    for module in modules:
        images = module(images)
    return images
