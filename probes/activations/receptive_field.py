"""Receptive fields of units, by the support of their gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor, nn
from torch.autograd.graph import Node

from fulgurite.probes.attribution.autograd_graph import kind, nodes_of
from fulgurite.probes.channels import channels_first
from fulgurite.probes.feature_extractor import feature_extractor
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.meta_copy import meta_copy
from fulgurite.probes.record import LayerOutputs, bare, layer_of, layers_of

LARGEST = 2048
"""Receptive fields are looked for up to this many pixels."""
_WIDTHS = (32, 64, 128, 256)
_SHARED = 2**22
# each value of the output depends on one of the input, though the slope can be 0
_POINTWISE = {
    *("Relu", "Threshold", "Hardtanh", "Clamp", "ClampMin", "ClampMax", "LeakyRelu", "Elu", "Celu", "Selu"),
    *("Hardswish", "Hardsigmoid", "Silu", "Gelu", "Mish", "Sigmoid", "Tanh", "Softplus", "Abs"),
}


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that a unit of a layer depends on, by rows and columns.

    The unit at (row, column) of the layer's map sees the pixels from `offset + stride * (row, column)` on,
    `size` of them; pixels outside the image are padding. Units whose fields differ in size (after upsampling)
    are described by the one in the middle of the map.

    Attributes:
        size: height and width, in pixels.
        stride: from one unit's field to the next one's.
        offset: the first row and column that the unit at (0, 0) sees; negative where it sees padding.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]

    def box(self, row: int, column: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The part of an image that a unit sees: top, left, bottom, right, the last two not included."""
        (top, bottom), (left, right) = (
            (
                min(max(self.offset[axis] + self.stride[axis] * place, 0), side),
                max(min(self.offset[axis] + self.stride[axis] * place + self.size[axis], side), 0),
            )
            for axis, place, side in ((0, row, height), (1, column, width))
        )
        return top, left, bottom, right


def receptive_field(
    network: nn.Module, layer: str, *, channels: int | None = None, largest: int = LARGEST
) -> ReceptiveField | None:
    """The receptive field of a layer's units; None if it is the whole image, depends on its size
    (adaptive pooling), or is more than `largest` pixels. Images have three channels, or one if the first
    convolution takes one, without `channels`.

    Raises:
        ValueError: as for `receptive_fields`.
    """
    first = next((own.in_channels for own in network.modules() if isinstance(own, nn.Conv2d)), 3)
    channels = channels or (1 if first == 1 else 3)  # the first by name need not be the first that runs
    return receptive_fields(network, [layer], channels=channels, largest=largest)[layer]


def receptive_fields(
    network: nn.Module, layers: Sequence[str], *, channels: int = 3, largest: int = LARGEST, side: int = 224
) -> dict[str, ReceptiveField | None]:
    """The receptive fields of layers' units, for any network, whatever its forward pass does.

    They are the pixels at which the gradient of a unit is not zero, in a copy with random positive weights,
    and with every rectification and maximum passing the gradients of all that it chooses from: what a unit
    can depend on, not what it does depend on for an image. The images are strips, which are lengthened until
    they hold the field; networks that take images of one size only (some transformers) are run on those.

    Args:
        network: maps images to logits; its weights do not matter.
        layers: by path; each outputs maps, channels first or last.
        channels: of the images.
        largest: the longest strip, in pixels.
        side: of the images that the network takes, if it takes no strips and does not state their size.

    Raises:
        ValueError: no such layer, one that outputs no maps, or a network that takes none of the images.
    """
    for layer in layers:
        layer_of(network, layer)
    copy = _positive(network)
    declared = getattr(network, "image_size", None)
    own, once = declared if isinstance(declared, int) else side, list(dict.fromkeys(layers))
    rows, columns = (_spans(copy, once, channels, axis, largest, own) for axis in (0, 1))
    return {layer: _field(rows.get(layer), columns.get(layer)) for layer in layers}


@dataclass(frozen=True)
class _Span:
    """A receptive field along one axis."""

    size: int
    stride: int
    offset: int


def _field(rows: _Span | None, columns: _Span | None) -> ReceptiveField | None:
    if rows is None or columns is None:
        return None
    return ReceptiveField(
        (rows.size, columns.size), (rows.stride, columns.stride), (rows.offset, columns.offset)
    )


def _spans(
    network: nn.Module, layers: Sequence[str], channels: int, axis: int, largest: int, own: int
) -> dict[str, _Span]:
    """The fields along one axis of the layers whose fields end within an image."""
    found, before, length, problem = dict[str, _Span](), dict[str, _Span](), 64, ""
    waiting = list(layers)
    while waiting and length <= largest:
        strips = [(length, width) if axis == 0 else (width, length) for width in _WIDTHS]
        for size in [*strips, (own, own)]:
            try:
                spans = _spans_in(network, waiting, channels, size, axis)
                break
            except (RuntimeError, AssertionError, IndexError) as error:  # the network refuses this size
                problem = str(error).strip().split("\n")[0]
        else:
            raise ValueError(f"{type(network).__name__} runs on no image of {channels} channels: {problem}")
        # a field that grows with the image is not the layer's: it must be the same at another size
        found.update(
            (layer, span) for layer, (span, fixed) in spans.items() if fixed or before.get(layer) == span
        )
        before = {layer: span for layer, (span, _) in spans.items()}
        waiting = [layer for layer in waiting if layer not in found]
        # no strips: the network takes one size only, or none so short
        length = length * 2 if size in strips or length < own else largest + 1
    return found


def _spans_in(
    network: nn.Module, layers: Sequence[str], channels: int, size: tuple[int, int], axis: int
) -> dict[str, tuple[_Span, bool]]:
    """The fields along one axis of the layers whose fields end within an image of this size.

    With each, whether all steps before the layer have windows that do not depend on the image's size.
    """
    with frozen_eval(network) as net, feature_extractor(net, layers) as extract:
        torch.manual_seed(0)
        images = torch.rand(1, channels, *size).add_(0.5).requires_grad_()
        outputs = extract(images)
        maps = {layer: _maps(outputs, layer) for layer in layers}
        hooks = [
            node.register_hook(_support_hook(node))
            for node in nodes_of(maps.values())
            if kind(node) != "AccumulateGrad"
        ]
        try:
            spans = {layer: _span(own, images, axis) for layer, own in maps.items()}
        finally:
            for hook in hooks:
                hook.remove()
    return {layer: (span, _fixed(maps[layer])) for layer, span in spans.items() if span is not None}


def _fixed(maps: Tensor) -> bool:
    return not any(kind(node).startswith("Adaptive") for node in nodes_of([maps]))


def _maps(outputs: LayerOutputs, layer: str) -> Tensor:
    out = outputs[layer]
    if out.dim() != 4:
        raise ValueError(
            f"layer {layer!r} ({type(outputs.modules[layer]).__name__}) has no spatial extent: it outputs "
            f"{tuple(out.shape[1:])} for an image; wanted a layer with maps, such as a convolution"
        )
    if not out.requires_grad:
        raise ValueError(f"layer {layer!r} does not depend on the image, so that it has no receptive field")
    return channels_first(out, outputs.modules[layer])


def _span(maps: Tensor, images: Tensor, axis: int) -> _Span | None:
    """The field of the middle unit, and the step to the next; None if one of them reaches the border."""
    units = maps.shape[2 + axis]
    if units < 2:
        return None
    middle, across = (units - 1) // 2, (maps.shape[3 - axis] - 1) // 2
    edges = list[tuple[int, int]]()
    for unit in (middle, middle + 1):
        row, column = (unit, across) if axis == 0 else (across, unit)
        (slope,) = torch.autograd.grad(maps[0, :, row, column].sum(), images, retain_graph=True)
        seen = (slope[0] != 0).any(0).any(1 - axis).nonzero()[:, 0].tolist()
        if not seen or seen[0] == 0 or seen[-1] == images.shape[2 + axis] - 1:
            return None
        edges.append((seen[0], seen[-1]))
    (first, last), (following, _) = edges
    stride = following - first
    return _Span(last - first + 1, stride, first - stride * middle)


def _positive(network: nn.Module) -> nn.Module:
    """A copy on the CPU with random positive weights, whose outputs stay near 1."""
    network, copy = bare(network), meta_copy(network)
    generator, known = torch.Generator().manual_seed(0), dict[int, Tensor]()

    def filled(own: Tensor) -> Tensor:
        if id(own) not in known:
            few = own.numel() > _SHARED  # one number for all weights of a large layer takes no memory
            drawn = torch.rand(1 if few else own.shape, generator=generator) + 0.5
            fan_in = own[0].numel() if own.dim() > 1 and len(own) else 1
            known[id(own)] = nn.Parameter((drawn / fan_in).expand(own.shape), requires_grad=False)
        return known[id(own)]

    originals = layers_of(network)
    for path, module in layers_of(copy).items():
        for name, own in vars(originals[path]).items():
            if isinstance(own, Tensor):
                vars(module)[name] = own.detach().cpu()
        for name, own in originals[path].named_parameters(recurse=False, remove_duplicate=False):
            setattr(module, name, filled(own))
        for name, own in originals[path].named_buffers(recurse=False, remove_duplicate=False):
            usual = {"running_mean": torch.zeros_like, "running_var": torch.ones_like}
            setattr(module, name, usual.get(name, torch.clone)(own.detach()).cpu())
    return copy


def _support_hook(node: Node) -> Callable[[tuple, tuple], tuple]:
    """A hook that replaces a step's gradients: random where its inputs can matter, 0 elsewhere.

    Random numbers, so that none cancel (as in normalisation, whose gradients sum to 0), of size 1, so that
    none vanish in deep networks.
    """
    pass_on = _CHOOSING.get(kind(node))

    def hook(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> tuple:
        if pass_on is not None and inputs[0] is not None and outputs[0] is not None:
            inputs = (pass_on(node, inputs[0], outputs[0]), *inputs[1:])
        return tuple(None if one is None else _random_where(one != 0) for one in inputs)

    return hook


def _random_where(support: Bool[Tensor, "..."]) -> Tensor:
    return torch.empty(support.shape).uniform_(0.5, 1.5) * support


def _same(_: Node, given: Tensor, wanted: Tensor) -> Tensor:
    return wanted if wanted.shape == given.shape else given


def _windows(node: Node, given: Tensor, wanted: Tensor) -> Tensor:
    """Passes the gradient to all values of a window, not only to its maximum."""
    size, step, padding, gap = (
        getattr(node, f"_saved_{name}") for name in ("kernel_size", "stride", "padding", "dilation")
    )
    size, step, padding, gap = (
        tuple(pair) * (2 // len(pair)) if pair else size for pair in (size, step, padding, gap)
    )
    rows = wanted.reshape(-1, 1, *wanted.shape[-2:])
    spread = F.conv_transpose2d(rows, torch.ones(1, 1, *size), stride=step, dilation=gap)
    height, width = given.shape[-2:]
    spread = F.pad(spread, (0, padding[1] + width, 0, padding[0] + height))
    return spread[..., padding[0] : padding[0] + height, padding[1] : padding[1] + width].reshape(given.shape)


def _adaptive_windows(_: Node, given: Tensor, wanted: Tensor) -> Tensor:
    with torch.enable_grad():
        maps = torch.zeros_like(given).requires_grad_()
        return torch.autograd.grad(
            F.adaptive_avg_pool2d(maps, (wanted.shape[-2], wanted.shape[-1])), maps, wanted
        )[0]


def _along(node: Node, given: Tensor, wanted: Tensor) -> Tensor:
    """Passes the gradient to all values along the dimensions over which the maximum is taken."""
    dims = node._saved_dim  # pyright: ignore[reportAttributeAccessIssue]
    dims = [dims] if isinstance(dims, int) else list(dims)
    # negative dimensions come back as unsigned numbers
    dims = sorted((dim - 2**64 if dim > 2**63 else dim) % given.dim() for dim in dims)
    if wanted.dim() < given.dim():
        for dim in dims:
            wanted = wanted.unsqueeze(dim)
    return wanted.expand(given.shape)


_CHOOSING = {
    **dict.fromkeys(_POINTWISE, _same),
    "MaxPool2DWithIndices": _windows,
    "AdaptiveMaxPool2D": _adaptive_windows,
    "Max": _along,
    "Amax": _along,
}
