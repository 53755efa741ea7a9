"""Layer table: output shape, parameters, activations, memory and multiply-adds of each layer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.activations.receptive_field import ReceptiveField
from fulgurite.probes.record import bare, layers_of
from fulgurite.probes.stages import stages
from fulgurite.probes.trace import Call, trace

HEAD = ("layer", "kind", "output", "parameters", "activations", "kept", "multiply-adds")
COUNTED = (
    "parameters: each once, though several layers share it",
    "activations: numbers in the outputs of convolutions, linear layers and pooling, and in the image",
    "kept: what autograd keeps for the backward pass, besides parameters, each tensor once",
    "multiply-adds: of convolutions and matrix products",
)
"""What the columns count, for one image."""

_WEIGHTED = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Linear, nn.Bilinear),
)
_POOLING = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.LPPool1d, nn.LPPool2d),
)


@dataclass(frozen=True)
class Row:
    """A layer, for one image. What the layers inside it have, and cost, is in their own rows.

    Attributes:
        path: the layer's; `""` is the network itself.
        kind: the class of the module.
        output: the shape that it outputs, without the dimension of images; None where it is not one tensor,
            or where the module is not called.
        calls: how often it is called in a pass.
        parameters: its numbers that are learnt; what an earlier row has is not counted again.
        activations: numbers that it outputs, over all calls: of a convolution, a linear layer, or pooling
            that changes the shape; 0 for all others, which often work in place.
        kept_bytes: memory that autograd keeps for the backward pass: of tensors that no earlier layer
            has kept.
        multiply_adds: of convolutions and matrix products.
    """

    path: str
    kind: str
    output: torch.Size | None
    calls: int
    parameters: int
    activations: int
    kept_bytes: int
    multiply_adds: int


@dataclass(frozen=True)
class LayerTable:
    """The layers of a network in the order in which they run, for one image of shape `image`.

    `stages` are the paths of the layers at which a stage ends. Totals are the sums over the rows;
    `activations` also counts the image.
    """

    image: torch.Size
    rows: Sequence[Row]
    stages: Sequence[str]

    @property
    def parameters(self) -> int:
        """Parameters of the network, each once."""
        return sum(row.parameters for row in self.rows)

    @property
    def activations(self) -> int:
        """Numbers in the image and in the outputs of convolutions, linear layers and pooling."""
        return math.prod(self.image) + sum(row.activations for row in self.rows)

    @property
    def kept_bytes(self) -> int:
        """Memory that autograd keeps for the backward pass, besides parameters."""
        return sum(row.kept_bytes for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward pass."""
        return sum(row.multiply_adds for row in self.rows)

    def by_stage(self) -> "LayerTable":
        """The same table with a row for each stage: the sum from the last stage to the end of this one.

        The last row is what follows the last stage: the classifier. Where there are no stages, it is all.
        """
        begin, parts = 0, list[Row]()
        for stage in self.stages:
            inside = [
                place
                for place, row in enumerate(self.rows)
                if row.path == stage or row.path.startswith(f"{stage}.")
            ]
            end = max([begin, *(place + 1 for place in inside)])
            if end > begin:
                parts.append(_summed(stage, self.rows[begin:end]))
            begin = end
        if rest := self.rows[begin:]:
            parts.append(_summed("classifier", rest))
        return LayerTable(self.image, parts, self.stages)

    def cells(
        self, fields: Mapping[str, ReceptiveField | None] | None = None
    ) -> tuple[list[str], list[list[str]]]:
        """Head and rows as text, with the totals as the last row.

        Args:
            fields: receptive fields by path, for two columns more: size and stride in pixels. None is the
                whole image.
        """
        lines = [
            [
                row.path or "(network)",
                row.kind,
                shape(row.output),
                f"{row.parameters:,}",
                f"{row.activations:,}",
                megabytes(row.kept_bytes),
                f"{row.multiply_adds:,}",
            ]
            for row in self.rows
        ]
        total = ["total", "", "", f"{self.parameters:,}", f"{self.activations:,}"]
        lines = [
            ["image", "", shape(self.image), "0", f"{math.prod(self.image):,}", megabytes(0), "0"],
            *lines,
        ]
        lines.append([*total, megabytes(self.kept_bytes), f"{self.multiply_adds:,}"])
        head: list[str] = [*HEAD]
        if fields is not None:
            head += ["receptive field", "stride"]
            for line, path in zip(lines, [None, *(row.path for row in self.rows), None], strict=True):
                line += _field(fields, path)
        return head, lines

    def text(self, fields: Mapping[str, ReceptiveField | None] | None = None) -> str:
        """The table in columns of text, and below it what they count."""
        held = f"; {self.activations:,} numbers are {megabytes(4 * self.activations)} in float32"
        counts = [line + held * line.startswith("activations") for line in COUNTED]
        return "\n".join([aligned(*self.cells(fields)), *counts])

    def brief(self) -> str:
        """The table in columns of text, without kinds and activations."""
        head, rows = self.cells()
        kept = [0, 2, 3, 5, 6]
        return aligned(
            [head[place] for place in kept], [[row[place] for place in kept] for row in rows], left=2
        )


def layer_table(
    network: nn.Module, images: Float[Tensor, "n c h w"], learning: Sequence[nn.Parameter] | None = None
) -> LayerTable:
    """Output, parameters and cost of each layer of a network, per image, from one pass.

    A row is a layer that calls no other, or one with parameters, memory or multiply-adds beyond those of the
    layers that it calls; so the rows add up to the totals. Parameters that no layer uses are in it too. A
    training step keeps more where layers in training mode do (BatchNorm, dropout): the pass is in eval mode.

    Args:
        network: maps images to logits.
        images: of the size to be looked at; the first one is. Images of the meta device are enough: nothing
            is then computed.
        learning: the parameters that training changes; without it, those that require a gradient now.

    Raises:
        ValueError: no images, or images of a size or of channels that the network cannot take.
    """
    if not len(images):
        raise ValueError("no images to run the network on; wanted one, which may be of the meta device")
    try:
        calls = trace(network, images[:1], learning)
    except (RuntimeError, IndexError, AssertionError) as error:
        wanted = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"{type(bare(network)).__name__} cannot be run on an image of shape {shape(images.shape[1:])}: "
            f"{wanted}"
        ) from error
    try:
        ends = stages(calls)
    except ValueError:
        ends = []
    return LayerTable(images.shape[1:], _rows(network, calls), ends)


def _rows(network: nn.Module, calls: Sequence[Call]) -> list[Row]:
    modules, called = layers_of(network), {call.path for call in calls}
    counted, own = set[int](), dict[str, int]()
    # in the order of calls, then those that are not called, such as the heads that only training uses
    order = [call.path for call in sorted(calls, key=lambda call: call.begun)]
    for path in dict.fromkeys([*order, *modules]):
        fresh = [p for p in modules[path].parameters(recurse=False) if id(p) not in counted]
        counted.update(map(id, fresh))
        own[path] = sum(parameter.numel() for parameter in fresh)
    rows = dict[str, Row]()
    for call, kept_bytes, multiply_adds, inner in sorted(_alone(calls), key=lambda part: part[0].begun):
        known = rows.get(call.path)
        activations = 0
        if isinstance(call.module, _WEIGHTED) or (
            isinstance(call.module, _POOLING) and call.inputs[:1] != (call.output,)
        ):
            activations = sum(size.numel() for size in call.outputs[:1])
        if inner and not (own[call.path] or kept_bytes or multiply_adds or known):
            continue
        rows[call.path] = Row(
            call.path,
            type(modules[call.path]).__name__,
            None if call.output is None else call.output[1:],
            1 + (known.calls if known else 0),
            own[call.path],
            activations + (known.activations if known else 0),
            kept_bytes + (known.kept_bytes if known else 0),
            multiply_adds + (known.multiply_adds if known else 0),
        )
    for path, parameters in own.items():
        if path not in called and parameters:
            rows[path] = Row(path, type(modules[path]).__name__, None, 0, parameters, 0, 0, 0)
    return list(rows.values())


def _alone(calls: Sequence[Call]) -> list[tuple[Call, int, int, bool]]:
    """Each call with its own bytes and multiply-adds, without those of the calls inside it."""
    ended, found = list[Call](), list[tuple[Call, int, int, bool]]()
    for call in calls:
        inner = [one for one in ended if one.begun > call.begun]
        ended = [one for one in ended if one.begun < call.begun] + [call]
        kept_bytes = call.saved_bytes - sum(one.saved_bytes for one in inner)
        multiply_adds = call.multiply_adds - sum(one.multiply_adds for one in inner)
        found.append((call, kept_bytes, multiply_adds, bool(inner)))
    return found


def _summed(name: str, rows: Sequence[Row]) -> Row:
    last = next((row for row in reversed(rows) if row.output is not None), rows[-1])
    return Row(
        name,
        f"{len(rows)} layers" if len(rows) > 1 else rows[0].kind,
        last.output,
        1,
        *(
            sum(getattr(row, what) for row in rows)
            for what in ("parameters", "activations", "kept_bytes", "multiply_adds")
        ),
    )


def shape(size: Sequence[int] | None) -> str:
    """A shape as `64 x 56 x 56`; a dash for none."""
    return "-" if size is None else " x ".join(map(str, size)) or "1"


def megabytes(number: int) -> str:
    """Bytes as `3.2 MB`, of a million bytes."""
    return f"{number / 1e6:,.1f} MB"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 3) -> str:
    """A table in columns; the first ones to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *rows]
    )


def _field(fields: Mapping[str, ReceptiveField | None], path: str | None) -> list[str]:
    if path is None or path not in fields:
        return ["", ""]
    field = fields[path]
    return ["whole image", ""] if field is None else [_pair(field.size), _pair(field.stride)]


def _pair(pair: tuple[int, int]) -> str:
    return f"{pair[0]}" if pair[0] == pair[1] else f"{pair[0]} x {pair[1]}"
