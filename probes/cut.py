"""Cuts a network at a layer: a graph of the rest alone, from that layer's output on."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor, nn

from fulgurite.probes.record import eager, layer_of, layers_of, one_tensor
from fulgurite.probes.tokens import token_grid


@contextmanager
def cut(
    network: nn.Module, layer: str | None, *, until: Iterable[str] = (), classifier: str | None = None
) -> Iterator["Leaf"]:
    """Within the block, a pass under `no_grad` builds a graph from the output of `layer` on, none below it.

    After the pass the mapping holds one entry: the layer's path and its output, a leaf of the graph. Without
    a layer, it is the last stage that outputs maps larger than 1 x 1, or tokens of a grid that the network
    defines (see `token_grid`), before the classifier (without it, the convolution or linear layer that was
    defined last) begins to run, and before the layers `until` have all run. A stage is an outermost part, or
    an outermost part of what holds the classifier; what comes before all weights, such as a normalisation, is
    no stage. `last` says after the pass whether the classifier was the last to run.

    Raises:
        ValueError: a name is not a layer of `network`, or the layer runs twice in a pass or outputs
            something other than one tensor.
    """
    leaves = Leaf()

    def take(name: str, module: nn.Module, out: object) -> Tensor:
        torch.set_grad_enabled(True)  # until the caller's no_grad ends
        leaves[name] = one_tensor(out, name, module, "outputs").detach().requires_grad_()
        return torch._lazy_clone(leaves[name])  # pyright: ignore[reportPrivateImportUsage]

    def at_layer(name: str, module: nn.Module, _: object, out: object) -> Tensor:
        if name in leaves:
            raise ValueError(f"layer {name!r} runs more than once in a pass; name one around or inside it")
        return take(name, module, out)

    with ExitStack() as hooks:
        if layer is None:
            stages = _Stages(network, take, leaves, set(until), classifier)
            for name, part in stages.layers.items():
                hooks.callback(part.register_forward_pre_hook(partial(stages.run, name)).remove)
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


class Leaf(dict[str, Tensor]):
    """A layer's output by its path.

    Where no layer was named, `last` is the last convolution or linear layer to run in the pass, and `assumed`
    the one before which stages were looked for.
    """

    last: str | None = None
    assumed: str | None = None


class _Stages:
    """Keeps the output of the latest stage, until all `until` layers have run."""

    def __init__(
        self,
        network: nn.Module,
        take: Callable[[str, nn.Module, object], Tensor],
        leaves: Leaf,
        waiting: set[str],
        classifier: str | None,
    ):
        self.network, self.take, self.leaves, self.waiting = network, take, leaves, waiting
        self.parts, self.running = layers_of(network), list[str]()
        kinds = nn.Conv2d | nn.Linear
        self.layers = {name: part for name, part in self.parts.items() if isinstance(part, kinds)}
        self.head = next(reversed(self.layers), "") if classifier is None else classifier
        leaves.assumed = self.head
        # what holds the head or a layer that is waited for is not a stage: its parts are
        inner = [self.head, *waiting]
        self.around = {
            n for n in self.parts if n == "" or any(f"{name}.".startswith(f"{n}.") for name in inner)
        }
        self.versions: dict[str, int] = {}
        self.weighted = False  # whether a stage with weights of its own has run

    def hooked(self) -> Iterator[tuple[str, nn.Module]]:
        """What may be a stage: parts of `around`, and of those their parts, where one may loop over them."""
        loops = nn.Sequential | nn.ModuleList | nn.ModuleDict
        for name, part in self.parts.items():
            holder = name.rpartition(".")[0]
            while holder not in self.around and isinstance(self.parts[holder], loops):
                holder = holder.rpartition(".")[0]
            if holder in self.around:
                yield name, part

    def run(self, name: str, _: nn.Module, __: tuple) -> None:
        self.leaves.last = name

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
            # it most likely outputs maps, which become a leaf: its own graph is not needed
            torch.set_grad_enabled(False)
            self.versions[name] = args[0]._version

    def leave(self, name: str, part: nn.Module, args: tuple, kwargs: dict, out: object) -> object:
        self.running.remove(name)
        blind = self.versions.pop(name, None)
        stage = self.waiting and name and self.around.issuperset(self.running)
        self.waiting.discard(name)
        self.weighted = self.weighted or (name != "" and any(True for _ in part.parameters()))
        # what takes in no tensor, as an encoding of positions may, outputs the same for every image
        fed = any(isinstance(value, Tensor) for value in (*args, *kwargs.values()))
        if stage and fed and self._puts_out_maps(out, part, args):
            self.leaves.clear()
            return self.take(name, part, out)
        if blind is None or not self.leaves:
            return None
        torch.set_grad_enabled(True)
        if args[0]._version != blind:
            raise ValueError(f"{name!r} overwrites its input; name the layer whose maps are wanted")
        self.running.append(name)
        try:
            return part.forward(*args, **kwargs)
        finally:
            self.running.remove(name)

    def _puts_out_maps(self, out: object, part: nn.Module, args: tuple) -> TypeGuard[Tensor]:
        if not isinstance(out, Tensor):
            return False
        if not self.weighted and args and isinstance(args[0], Tensor) and args[0].shape == out.shape:
            return False  # the image, normalised
        if out.dim() == 4 and out.shape[1:3].numel() == 1 and any(map(_is_layer_norm, part.modules())):
            return False  # 1 x 1, channels last
        if out.dim() == 4:
            return out.shape[2:].numel() > 1
        return token_grid(self.network, out.shape) is not None


def _is_layer_norm(part: nn.Module) -> bool:
    return isinstance(part, nn.LayerNorm)
