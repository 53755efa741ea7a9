"""A layer's activation maps and their gradients, for class activation maps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked, numbered
from fulgurite.probes.attribution.graph import nodes_of
from fulgurite.probes.attribution.layout import as_maps, leaf_of
from fulgurite.probes.borrow import borrowed
from fulgurite.probes.cut import cut
from fulgurite.probes.objectives import Asked, as_list, layers_read
from fulgurite.probes.record import layers_of, record
from fulgurite.probes.tokens import token_grid


class Tap(NamedTuple):
    """A layer's path, its output as a leaf, each objective's sum, and how the output becomes maps."""

    layer: str
    leaf: Tensor
    scores: list[Tensor]
    view: Callable[[Tensor], Tensor]


@contextmanager
def tapped(network: nn.Module, images: Tensor, asked: Asked, layer: str | None) -> Iterator[Tap]:
    """Within the block, the layer and the objectives, with the graph between them alone.

    Without a layer, it is the last whose maps count: as `cut` has it, but where a class token alone is read
    from that, the last block whose other tokens count.

    Raises:
        ValueError: there is no such layer, it puts out no maps or runs twice, or the objective does not
            depend on it, or on its class token alone.
    """
    if layer is None and len({each.layers for each in as_list(asked)}) > 1:
        raise ValueError("objectives that read different layers; name the layer whose maps are weighed")
    with borrowed(network) as net:
        images = checked(images)
        if layer is None:
            yield _last(net, images, asked)
            return
        tap = _tap(net, images, asked, layer)
        if _no_place_counts(net, tap):
            block = _last_block_whose_places_count(net, images, asked)
            raise ValueError(
                f"the objective depends on the class token alone of layer {layer!r}, on no place; "
                f"wanted an earlier layer{'' if block is None else f', such as {block!r}'}"
            )
        yield tap


def _last(net: nn.Module, images: Tensor, asked: Asked) -> Tap:
    """The last layer that has maps, and whose places count."""
    tap = _tap(net, images, asked, None)
    if not _no_place_counts(net, tap):
        return tap
    if (block := _last_block_whose_places_count(net, images, asked)) is None:
        raise ValueError(
            f"the objective depends on the class token alone of layer {tap.layer!r}, on no place; "
            "name a layer whose other tokens count"
        )
    return _tap(net, images, asked, block)


def _tap(
    net: nn.Module, images: Tensor, asked: Asked, layer: str | None, classifier: str | None = None
) -> Tap:
    layers = layers_read(asked)
    with (
        cut(net, layer, until=layers, classifier=classifier) as leaves,
        record(net, layers) as seen,
        torch.no_grad(),
    ):
        net(images)
        # sum, not mean: each image's map must not depend on its batch
        scores = [each.value(seen).sum() for each in as_list(asked)]
    if classifier is None and leaves.last not in (None, leaves.assumed):
        # it was defined last and does not run last: once more, with the one that does
        return _tap(net, images, asked, layer, leaves.last)
    if not leaves and layer is not None:
        raise ValueError(f"the network did not run layer {layer!r}")
    if not leaves:
        raise ValueError(
            "no layer puts out maps larger than 1 x 1, or tokens of a grid that the network tells; wanted a "
            "convolutional network, or a transformer that has grid_size and num_prefix_tokens, as timm's have"
        )
    ((name, leaf),) = leaves.items()
    if (view := as_maps(net, name, leaf, scores, images)) is None:
        raise ValueError(
            f"layer {name!r} puts out {tuple(leaf.shape)}; wanted maps: images, channels, height, width"
            f"{_instead(net, images, asked)}"
        )
    for k, score in enumerate(scores):
        if leaf_of(leaf, nodes_of([score])) is None:
            raise ValueError(
                f"{numbered(k, scores)} does not depend on layer {name!r}; wanted an earlier layer"
            )
    return Tap(name, leaf, scores, view)


def _instead(net: nn.Module, images: Tensor, asked: Asked) -> str:
    try:
        return f"; {_last(net, images, asked).layer!r} would do"
    except ValueError:
        return ""


def _no_place_counts(net: nn.Module, tap: Tap) -> bool:
    grid = token_grid(net, tap.leaf.shape)
    if grid is None or not grid.prefix:
        return False
    found = [torch.autograd.grad(score, tap.leaf, retain_graph=True)[0] for score in tap.scores]
    # no token at all counts, where a head begins at 0
    return any(bool(slope.any()) and not bool(tap.view(slope).any()) for slope in found)


def _last_block_whose_places_count(net: nn.Module, images: Tensor, asked: Asked) -> str | None:
    """Of the parts of lists of modules, the last of whose tokens others count than the class token."""
    parts, lists = layers_of(net), nn.Sequential | nn.ModuleList
    blocks = [name for name in parts if name and isinstance(parts[name.rpartition(".")[0]], lists)]
    layers = layers_read(asked)
    with record(net, [*dict.fromkeys([*blocks, *layers])]) as seen:
        net(images.clone().requires_grad_())
        scores = [each.value(seen).sum() for each in as_list(asked)]
    tokens = {name: out for name, out in seen.items() if name in blocks and token_grid(net, out.shape)}
    if not tokens:
        return None
    slopes_of = torch.autograd.grad(scores[0], [*tokens.values()], allow_unused=True)
    counting = [
        name
        for (name, found), slope in zip(tokens.items(), slopes_of, strict=True)
        if slope is not None and (grid := token_grid(net, found.shape)) and bool(grid.maps(slope).any())
    ]
    return counting[-1] if counting else None
