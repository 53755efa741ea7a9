"""What named layers of a network take in and put out, read inside a `with`."""

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn


def bare(network: nn.Module) -> nn.Module:
    """The network itself, out of the wrappers of `torch.compile` and of distributed training."""
    while True:
        if "_orig_mod" in network._modules:
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


def nearest(name: str, names: Iterable[str]) -> str:
    """The names most like a misspelt one, as the end of an error message."""
    known = [known for known in names if known]
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return (
        f"nearest: {', '.join(near)}"
        if near
        else f"there are: {', '.join(known[:12])}{' ...' * (len(known) > 12)}"
    )


def eager() -> AbstractContextManager[object]:
    """Within the block, compiled networks run as written: a hook added after `torch.compile` never fires."""
    # without dynamo nothing is compiled, and importing it takes seconds
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def record(
    network: nn.Module, layers: Sequence[str], *, inputs: Sequence[str] = ()
) -> Iterator[Mapping[str, Tensor]]:
    """Within the block, `seen[layer]` holds that layer's latest output, graph attached, in order of calls.

    A layer named in `inputs` is read where it takes in instead of where it puts out. What was read keeps its
    value, whatever is done in place downstream.

    Raises:
        ValueError: a name is not a layer of `network`, a layer puts out something other than one tensor, or
            `seen` is asked for a layer that did not run.
    """
    seen = Seen()
    with hooked(network, layers, inputs, seen.__setitem__):
        yield seen


@contextmanager
def cut(network: nn.Module, layer: str | None, *, until: Iterable[str] = ()) -> Iterator[dict[str, Tensor]]:
    """Within the block, a pass under `no_grad` builds a graph from the output of `layer` on, none below it.

    After the pass the mapping holds one entry: the layer's path and its output, a leaf of the graph. Without
    a layer, it is the last stage that puts out maps larger than 1 x 1 before the network's head (its
    convolution or linear layer that was defined last) begins to run, and before the layers `until` have all
    run. A stage is an outermost part, or an outermost part of what holds the head.

    Raises:
        ValueError: a name is not a layer of `network`, or the layer runs twice in a pass or puts out
            something other than one tensor.
    """
    leaves: dict[str, Tensor] = {}

    def take(name: str, module: nn.Module, out: object) -> Tensor:
        torch.set_grad_enabled(True)  # until the caller's no_grad ends
        leaves[name] = _one_tensor(out, name, module, "puts out").detach().requires_grad_()
        return torch._lazy_clone(leaves[name])  # pyright: ignore[reportPrivateImportUsage]

    def at_layer(name: str, module: nn.Module, _: object, out: object) -> Tensor:
        if name in leaves:
            raise ValueError(f"layer {name!r} runs more than once in a pass; name one around or inside it")
        return take(name, module, out)

    with ExitStack() as hooks:
        if layer is None:
            stages = _Stages(network, take, leaves, set(until))
            for name, part in stages.hooked():
                hooks.callback(part.register_forward_pre_hook(partial(stages.enter, name)).remove)
                hooks.callback(
                    part.register_forward_hook(partial(stages.leave, name), with_kwargs=True).remove
                )
        else:
            hook = layer_of(network, layer).register_forward_hook(partial(at_layer, layer))
            hooks.callback(hook.remove)
        hooks.enter_context(eager())
        yield leaves


class _Stages:
    """Takes what each stage puts out, the last for the one before, until there is nothing to wait for."""

    def __init__(
        self,
        network: nn.Module,
        take: Callable[[str, nn.Module, object], Tensor],
        leaves: dict[str, Tensor],
        waiting: set[str],
    ):
        self.take, self.leaves, self.waiting = take, leaves, waiting
        self.parts, self.running = layers_of(network), list[str]()
        kinds = nn.Conv2d | nn.Linear
        self.head = next((name for name, part in reversed(self.parts.items()) if isinstance(part, kinds)), "")
        # what holds the head or a layer that is waited for is no stage: its parts are
        inner = [self.head, *waiting]
        self.around = {
            n for n in self.parts if n == "" or any(f"{name}.".startswith(f"{n}.") for name in inner)
        }
        self.versions: dict[str, int] = {}

    def hooked(self) -> Iterator[tuple[str, nn.Module]]:
        """What may be a stage: parts of `around`, and of those their parts, where one may loop over them."""
        loops = nn.Sequential | nn.ModuleList | nn.ModuleDict
        for name, part in self.parts.items():
            holder = name.rpartition(".")[0]
            while holder not in self.around and isinstance(self.parts[holder], loops):
                holder = holder.rpartition(".")[0]
            if holder in self.around:
                yield name, part

    def enter(self, name: str, part: nn.Module, args: tuple) -> None:
        if name == self.head:
            self.waiting.clear()
        stage = self.waiting and name not in self.around and self.around.issuperset(self.running)
        self.running.append(name)
        if (
            stage
            and args
            and isinstance(args[0], Tensor)
            and any(isinstance(p, nn.Conv2d) for p in part.modules())
        ):
            # most likely it puts out maps, which are taken as a leaf: its own graph would be thrown away
            torch.set_grad_enabled(False)
            self.versions[name] = args[0]._version

    def leave(self, name: str, part: nn.Module, args: tuple, kwargs: dict, out: object) -> object:
        self.running.remove(name)
        blind = self.versions.pop(name, None)
        stage = self.waiting and name and self.around.issuperset(self.running)
        self.waiting.discard(name)
        if stage and isinstance(out, Tensor) and out.dim() == 4 and out.shape[2:].numel() > 1:
            self.leaves.clear()
            return self.take(name, part, out)
        if blind is None or not self.leaves:
            return None
        torch.set_grad_enabled(True)
        if args[0]._version != blind:
            raise ValueError(f"{name!r} overwrites what it takes in; name the layer whose maps are wanted")
        self.running.append(name)
        try:
            return part.forward(*args, **kwargs)
        finally:
            self.running.remove(name)


class Seen(dict[str, Tensor]):
    """What layers put out, in the order of their latest calls; asked for one that did not run, it says so."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.pop(name, None)  # in the order of the latest calls, not of the first
        super().__setitem__(name, value)

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(f"nothing was read from layer {name!r}: the network did not run it")


@contextmanager
def hooked(
    network: nn.Module, layers: Sequence[str], inputs: Sequence[str], keep: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Within the block, `keep(layer, value)` gets what each layer puts out, or takes in, at every call.

    Raises:
        ValueError: as `record` does.
    """
    outward = {name: layer_of(network, name) for name in layers}
    inward = {name: layer_of(network, name) for name in inputs}
    handles = []
    try:
        for name, module in outward.items():
            handles.append(module.register_forward_hook(partial(_keep_output, name, keep)))
        for name, module in inward.items():
            handles.append(module.register_forward_pre_hook(partial(_keep_input, name, keep)))
        with eager():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _keep_output(
    name: str, keep: Callable[[str, Tensor], None], module: nn.Module, _: object, out: object
) -> Tensor:
    value = _one_tensor(out, name, module, "puts out")
    keep(name, value)
    return value.clone()  # what was kept must not feel a later in-place ReLU


def _keep_input(name: str, keep: Callable[[str, Tensor], None], module: nn.Module, args: tuple) -> tuple:
    value = _one_tensor(args[0] if args else None, name, module, "takes in")
    keep(name, value)
    return (value.clone(), *args[1:])


def _one_tensor(value: object, name: str, module: nn.Module, does: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{name or 'the network'} ({type(module).__name__}) {does} a {type(value).__name__}, "
            "wanted one tensor; name a layer inside it"
        )
    return value
