"""Traversal of autograd's graph from a score back to an image."""

from collections.abc import Callable, Iterable

from torch import Tensor
from torch.autograd.graph import Node

_KINDS: dict[
    type, str
] = {}  # autograd builds a step's name anew at each access, which takes as long as a small kernel


def nodes_of(outputs: Iterable[Tensor]) -> list[Node]:
    """Every step that autograd will take back from the outputs, in an order that the graph alone decides."""
    return list(reached([output.grad_fn for output in outputs], lambda node: children(node)))


def children(node: Node) -> list[Node]:
    """The steps that a step passes its gradient on to."""
    return [child for child, _ in node.next_functions if child is not None]


def kind(node: Node) -> str:
    """The forward operation of a step: `Relu`, `Convolution`, `MaxPool2DWithIndices` ..."""
    if (known := _KINDS.get(own := type(node))) is not None:
        return known
    found = node.name().rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")
    if own.__module__ == "builtins" and own.__name__ != "CppFunction":
        _KINDS[own] = found  # a class of its own for each kind of step
    return found


def shape(node: Node, place: int = 0) -> tuple[int, ...]:
    """The shape of what the step computed on the way forward: of its output number `place`."""
    return tuple(node._input_metadata[place].shape)


def reached(starts: Iterable[Node | None], onwards: Callable[[Node], Iterable[Node]]) -> dict[Node, None]:
    """The starts and all that can be reached from them, each once, in a fixed order."""
    found: dict[Node, None] = {}
    waiting = [node for node in starts if node is not None]
    while waiting:
        if (node := waiting.pop()) not in found:
            found[node] = None
            waiting += onwards(node)
    return found
