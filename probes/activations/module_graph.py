"""Module graph of a network: which modules' outputs are each module's inputs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import Node

from fulgurite.probes.attribution.autograd_graph import children
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.record import hooked, layers_of
from fulgurite.probes.trace import trace

IMAGES, OUTPUT = "images", "output"
"""The first and the last node."""


@dataclass(frozen=True)
class GraphNode:
    """A leaf module (one without submodules), the images, or the network's output.

    Attributes:
        path: the module's path, `IMAGES` or `OUTPUT`.
        kind: its class.
        shape: of its output.
        inputs: the nodes whose outputs it takes in, whatever is done to them on the way.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    inputs: tuple[str, ...]


def module_graph(network: nn.Module, images: Float[Tensor, "n c h w"]) -> list[GraphNode]:
    """The leaf modules that run, in the order of their last calls, and where each input comes from.

    Read off autograd's graph of one pass: additions, concatenations and other functions between modules are
    followed through. Modules that do not depend on the images, or that do not map one tensor to one tensor,
    have no node.
    """
    found, made = dict[str, GraphNode](), dict[Node, str]()
    with frozen_eval(network) as net, torch.enable_grad():
        images = images[:1].detach().clone().requires_grad_()
        leaves = _leaves(net, images.detach())
        outputs, inputs = dict[str, Tensor](), dict[str, set[str]]()

        def took(path: str, value: Tensor) -> None:
            inputs.setdefault(path, set()).update(_sources(value, made, images))

        def gave(path: str, value: Tensor) -> None:
            outputs.pop(path, None)  # in the order of the last calls
            outputs[path] = value
            if value.grad_fn is not None:
                made[value.grad_fn] = path

        with hooked(net, leaves, (), gave), hooked(net, (), leaves, took):
            end = net(images)
        parts = layers_of(net)
        found[IMAGES] = GraphNode(IMAGES, "Input", tuple(images.shape), ())
        for path, value in outputs.items():
            came = tuple(name for name in [IMAGES, *outputs] if name in inputs.get(path, ()))
            found[path] = GraphNode(path, type(parts[path]).__name__, tuple(value.shape), came)
        if isinstance(end, Tensor):
            last = _sources(end, made, images)
            came = tuple(name for name in [IMAGES, *outputs] if name in last)
            found[OUTPUT] = GraphNode(OUTPUT, "Output", tuple(end.shape), came)
    return list(found.values())


def _leaves(network: nn.Module, images: Tensor) -> list[str]:
    """The leaf modules that run and, at each call, map tensors to one tensor."""
    calls = [call for call in trace(network, images) if not any(True for _ in call.module.children())]
    other = {call.path for call in calls if call.output is None or not call.inputs}
    return [path for path in dict.fromkeys(call.path for call in calls) if path and path not in other]


def _sources(value: Tensor, made: dict[Node, str], images: Tensor) -> set[str]:
    """The nodes that a value was computed from, as far back as the nearest ones."""
    if value is images:
        return {IMAGES}
    found, seen = set[str](), set[Node]()
    waiting = [] if value.grad_fn is None else [value.grad_fn]
    while waiting:
        if (node := waiting.pop()) in seen:
            continue
        seen.add(node)
        if node in made:
            found.add(made[node])
        elif getattr(node, "variable", None) is images:
            found.add(IMAGES)
        else:
            waiting += children(node)
    return found
