"""Inputs and outputs of layers by name, recorded within a `with` block."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from fulgurite.probes.nearest_names import nearest


def bare(network: nn.Module) -> nn.Module:
    """The network itself, out of the wrappers of `torch.compile` and of distributed training."""
    while True:
        if "_orig_mod" in dict(network.named_children()):
            network = network.get_submodule("_orig_mod")
        elif isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
            network = network.module
        else:
            return network


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """Every module by its path, as `named_modules()` prints it; `""` is the network.

    What `torch.compile` adds to the paths is left out.
    """
    named = {}
    for path, module in bare(network).named_modules():
        if "_orig_mod" in path:
            path = ".".join(part for part in path.split(".") if part != "_orig_mod")
        named[path] = bare(module)
    return named


def layer_of(network: nn.Module, name: str) -> nn.Module:
    """The module at the path `name`.

    Raises:
        ValueError: there is none; the message lists the nearest paths.
    """
    if name == "":
        return bare(network)
    modules = layers_of(network)
    if name not in modules:
        raise ValueError(f"no layer {name!r} in {type(bare(network)).__name__}; {nearest(name, modules)}")
    return modules[name]


def eager() -> AbstractContextManager[object]:
    """Within the block, compiled networks run as written: a hook added after `torch.compile` never fires."""
    # without dynamo nothing is compiled, and importing it takes seconds
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def record(
    network: nn.Module, layers: Sequence[str], *, inputs: Sequence[str] = ()
) -> Iterator[Mapping[str, Tensor]]:
    """Within the block, `outputs[layer]` is that layer's latest output, graph attached, in order of calls.

    For a layer in `inputs` it is the input instead. A recorded tensor keeps its value, even if later layers
    work in place.

    Raises:
        ValueError: a name is not a layer of `network`, a layer outputs something other than one tensor, or
            `outputs[layer]` is read of a layer that did not run.
    """
    outputs = LayerOutputs(network)
    with hooked(network, layers, inputs, outputs.__setitem__) as outputs.modules:
        yield outputs


class LayerOutputs(dict[str, Tensor]):
    """Outputs of layers, in the order of their latest calls; a layer that did not run is a ValueError.

    `network` is their network, and `modules` the layers themselves, by path. `reference` is what the same
    layers output for other images to compare with, where there are some.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.modules = network, dict[str, nn.Module]()
        self.reference: LayerOutputs | None = None

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.pop(name, None)  # in the order of the latest calls, not of the first
        super().__setitem__(name, value)

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(f"nothing was read from layer {name!r}: the network did not run it")


@contextmanager
def hooked(
    network: nn.Module,
    layers: Sequence[str],
    inputs: Sequence[str],
    store: Callable[[str, Tensor], None],
    *,
    kept: bool = True,
) -> Iterator[dict[str, nn.Module]]:
    """Within the block, `store(layer, value)` gets each layer's output, or input, at every call.

    The block gets the layers whose outputs are read, by path. Unless the values are to be `kept`, outputs are
    not copied: read them at once, as an in-place ReLU may overwrite them.

    Raises:
        ValueError: as `record` does.
    """
    known = layers_of(network)  # once for all
    outward, inward = (
        {name: known[name] if name in known else layer_of(network, name) for name in names}
        for names in (layers, inputs)
    )
    handles = []
    try:
        for name, module in outward.items():
            handles.append(module.register_forward_hook(partial(_keep_output, name, store, kept)))
        for name, module in inward.items():
            handles.append(module.register_forward_pre_hook(partial(_keep_input, name, store)))
        with eager():
            yield outward
    finally:
        for handle in handles:
            handle.remove()


def _keep_output(
    name: str, store: Callable[[str, Tensor], None], kept: bool, module: nn.Module, _: object, out: object
) -> Tensor | None:
    value = one_tensor(out, name, module, "outputs")
    store(name, value)
    return value.clone() if kept else None  # a later in-place ReLU must not change what was kept


def _keep_input(name: str, store: Callable[[str, Tensor], None], module: nn.Module, args: tuple) -> tuple:
    value = one_tensor(args[0] if args else None, name, module, "takes in")
    store(name, value)
    return (value.clone(), *args[1:])


def one_tensor(value: object, name: str, module: nn.Module, does: str) -> Tensor:
    """A layer's output or input.

    Raises:
        ValueError: it is not one tensor.
    """
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{name or 'the network'} ({type(module).__name__}) {does} a {type(value).__name__}, "
            "wanted one tensor; name a layer inside it"
        )
    return value
