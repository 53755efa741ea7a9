"""A layer's activation maps and their gradients, for class activation maps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fulgurite.probes.attribution.autograd_graph import nodes_of
from fulgurite.probes.attribution.channel_layout import as_maps, leaf_of
from fulgurite.probes.attribution.gradient import checked, numbered
from fulgurite.probes.cut import cut
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import Objectives, as_list, layers_read
from fulgurite.probes.record import layers_of, record
from fulgurite.probes.tokens import token_grid
from fulgurite.probes.trace import trace

AFTER = 3
"""Layers with weights that may follow the last maps unasked: those of a classifier."""


class ActivationGraph(NamedTuple):
    """A layer's path, its output as a leaf, each objective's sum, and how the output becomes maps."""

    layer: str
    leaf: Tensor
    scores: list[Tensor]
    to_maps: Callable[[Tensor], Tensor]


@contextmanager
def activation_graph(
    network: nn.Module, images: Tensor, objective: Objectives, layer: str | None
) -> Iterator[ActivationGraph]:
    """Within the block, the layer and the objectives, with the graph between them alone.

    Without a layer, it is the last with maps that influence the objective: the layer of `cut`, or, if the
    objective reads its class token alone, the last block with other tokens that matter.

    Raises:
        ValueError: there is no such layer, it outputs no maps or runs twice, or the objective does not
            depend on it, or on its class token alone.
    """
    if layer is None and len({each.layers for each in as_list(objective)}) > 1:
        raise ValueError("objectives that read different layers; name the layer for the maps")
    with frozen_eval(network) as net:
        images = checked(images)
        if layer is None:
            yield _last(net, images, objective)
            return
        graph = _graph(net, images, objective, layer)
        if _no_place_counts(net, graph):
            block = _last_block_whose_places_count(net, images, objective)
            raise ValueError(
                f"the objective depends on the class token alone of layer {layer!r}, on no place; "
                f"wanted an earlier layer{'' if block is None else f', such as {block!r}'}"
            )
        yield graph


def _last(net: nn.Module, images: Tensor, objective: Objectives) -> ActivationGraph:
    """The last layer with maps that influence the objective."""
    graph = _graph(net, images, objective, None)
    _check_late(net, images, graph)
    if not _no_place_counts(net, graph):
        return graph
    if (block := _last_block_whose_places_count(net, images, objective)) is None:
        raise ValueError(
            f"the objective depends on the class token alone of layer {graph.layer!r}, on no place; "
            "name a layer with other tokens that matter"
        )
    return _graph(net, images, objective, block)


def _check_late(net: nn.Module, images: Tensor, graph: ActivationGraph) -> None:
    """Check that the last maps are not too early: most layers after them, or half, with tokens of no grid.

    Raises:
        ValueError: they do; the order is that in which the network was defined.
    """
    parts = [
        (name, any(True for _ in module.parameters(recurse=False))) for name, module in net.named_modules()
    ]
    last = max(place for place, (name, _) in enumerate(parts) if f"{name}.".startswith(f"{graph.layer}."))
    before = sum(weighted for _, weighted in parts[: last + 1])
    total = sum(weighted for _, weighted in parts)
    height, width = graph.to_maps(graph.leaf).shape[-2:]
    # smaller ones may be the last, of small images
    most_come_later = min(height, width) > 8 and total - before > max(8, 3 * before)
    half_comes_later = total - before > max(AFTER, before)
    if most_come_later or (half_comes_later and _tokens_follow(net, images, graph, height, width)):
        raise ValueError(
            f"the last layer that outputs maps is {graph.layer!r}, after {before} of {total} layers with "
            "weights; later ones output tokens of a grid that is not known; name the layer for the maps"
        )


def _tokens_follow(net: nn.Module, images: Tensor, graph: ActivationGraph, height: int, width: int) -> bool:
    """Whether a later layer outputs a vector for each place of the maps, or the maps are attention's."""
    calls = trace(net, images[:1])
    begun = max(call.begun for call in calls if call.path == graph.layer)
    later = [(call.path, call.output) for call in calls if call.begun > begun and call.output is not None]
    if any(len(shape) == 4 and path != graph.layer for path, shape in later):
        return False  # maps do follow, if only of 1 x 1: what is of three axes are windows of them
    lengths = {shape[1] for _, shape in later if len(shape) == 3}
    places = range(height * width, height * width + 9)  # class and register tokens are more
    return graph.leaf.dim() == 4 and (bool(lengths.intersection(places)) or height in lengths)


def _graph(
    net: nn.Module, images: Tensor, objective: Objectives, layer: str | None, classifier: str | None = None
) -> ActivationGraph:
    layers = layers_read(objective)
    with (
        cut(net, layer, until=layers, classifier=classifier) as leaves,
        record(net, layers) as outputs,
        torch.no_grad(),
    ):
        net(images)
        # sum, not mean: each image's map must not depend on its batch
        scores = [each.value(outputs).sum() for each in as_list(objective)]
    if classifier is None and leaves.last not in (None, leaves.assumed):
        # the layer defined last does not run last: try again with the one that does
        return _graph(net, images, objective, layer, leaves.last)
    if not leaves and layer is not None:
        raise ValueError(f"the network did not run layer {layer!r}")
    if not leaves:
        raise ValueError(
            "no layer outputs maps larger than 1 x 1, or tokens of a grid that the network states; wanted a "
            "convolutional network, or a transformer that has grid_size and num_prefix_tokens, as timm's have"
        )
    ((name, leaf),) = leaves.items()
    if (to_maps := as_maps(net, name, leaf, scores, images)) is None:
        raise ValueError(
            f"layer {name!r} outputs {tuple(leaf.shape)}; wanted maps: images, channels, height, width"
            f"{_instead(net, images, objective)}"
        )
    for k, score in enumerate(scores):
        if leaf_of(leaf, nodes_of([score])) is None:
            raise ValueError(
                f"{numbered(k, scores)} does not depend on layer {name!r}; wanted an earlier layer"
            )
    return ActivationGraph(name, leaf, scores, to_maps)


def _instead(net: nn.Module, images: Tensor, objective: Objectives) -> str:
    try:
        return f"; {_last(net, images, objective).layer!r} would do"
    except ValueError:
        return ""


def _no_place_counts(net: nn.Module, graph: ActivationGraph) -> bool:
    grid = token_grid(net, graph.leaf.shape)
    if grid is None or not grid.prefix:
        return False
    grads_of_scores = [torch.autograd.grad(score, graph.leaf, retain_graph=True)[0] for score in graph.scores]
    # no token matters where a head is initialised to 0
    return any(bool(grad.any()) and not bool(graph.to_maps(grad).any()) for grad in grads_of_scores)


def _last_block_whose_places_count(net: nn.Module, images: Tensor, objective: Objectives) -> str | None:
    """The last block, in a list of modules, with tokens besides the class token that matter."""
    parts, lists = layers_of(net), nn.Sequential | nn.ModuleList
    blocks = [name for name in parts if name and isinstance(parts[name.rpartition(".")[0]], lists)]
    layers = layers_read(objective)
    with record(net, [*dict.fromkeys([*blocks, *layers])]) as outputs:
        net(images.clone().requires_grad_())
        scores = [each.value(outputs).sum() for each in as_list(objective)]
    tokens = {name: out for name, out in outputs.items() if name in blocks and token_grid(net, out.shape)}
    if not tokens:
        return None
    grads = torch.autograd.grad(scores[0], [*tokens.values()], allow_unused=True)
    counting = [
        name
        for (name, grads_of_scores), grad in zip(tokens.items(), grads, strict=True)
        if grad is not None
        and (grid := token_grid(net, grads_of_scores.shape))
        and bool(grid.maps(grad).any())
    ]
    return counting[-1] if counting else None
