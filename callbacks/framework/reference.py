"""A second network to compare with: the initial one, that of a checkpoint, or any other."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.tasks import LogitsOf, answers


class Reference:
    """The network that a probe compares with; it is in the checkpoint, so that a resumed run has the same.

    Args:
        what: "start" for the network as it was when the probe first ran; a file with weights for the same
            network (a Lightning checkpoint, a state dict, safetensors); or a function that makes another
            network, which is called once.
    """

    def __init__(self, what: Literal["start"] | str | Path | Callable[[], nn.Module] = "start"):
        if not (callable(what) or isinstance(what, str | Path)):
            raise ValueError(
                f'{what!r} to compare with; wanted "start", a file of weights, or a function that makes a '
                "network"
            )
        self.what = what
        self.weights: dict[str, Tensor] = {}
        self._other: nn.Module | None = None

    @property
    def known(self) -> bool:
        """Whether there is something to compare with; a finished network may lack its initial weights."""
        return self.what != "start" or bool(self.weights)

    def begin(self, network: nn.Module) -> None:
        """Keep the weights of the first look, or read those of the file, unless they are known.

        Raises:
            ValueError: the file does not hold weights of this network.
        """
        if self.weights or callable(self.what):
            return
        own = {name: tensor for name, tensor, _, _ in _tensors(network)}
        if self.what == "start":
            self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in own.items()}
        else:
            self.weights = _read(Path(self.what), own)

    @contextmanager
    def network(self, network: nn.Module, logits_of: LogitsOf | None = None) -> Iterator[nn.Module]:
        """The other network, in eval mode and frozen, with logits by `logits_of` as the network has them.

        Unless a function makes it, it is the same module with other weights, until the end of the block.
        """
        if callable(self.what):
            if self._other is None:
                self._other = self.what()
            device = next((tensor.device for _, tensor, _, _ in _tensors(network)), torch.device("cpu"))
            with frozen_eval(self._other.to(device)) as other, answers(other, logits_of):
                yield other
            return
        own = list(_tensors(network))
        if missing := [name for name, _, _, _ in own if name not in self.weights]:
            raise ValueError(f"the network to compare with has no {missing[0]!r}")
        try:
            for name, tensor, module, key in own:
                weight = self.weights[name].to(tensor)
                learnt = isinstance(tensor, nn.Parameter)
                setattr(module, key, nn.Parameter(weight, requires_grad=False) if learnt else weight)
            yield network
        finally:
            for _, tensor, module, key in own:
                setattr(module, key, tensor)

    def state_dict(self) -> dict[str, Tensor]:
        """The weights of the first look; nothing for a file or a function."""
        return dict(self.weights) if self.what == "start" else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with them."""
        if self.what == "start":
            self.weights = dict(state)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module, str]]:
    """Parameters and buffers by name, each with the module that holds it, and its name there."""
    for path, module in network.named_modules():
        own = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        for key, tensor in list(own):
            yield f"{path}.{key}".lstrip(".").replace("_orig_mod.", ""), tensor, module, key


def _read(file: Path, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not file.is_file():
        raise ValueError(f"no file {file}; wanted weights to compare with")
    try:
        found: Any = (
            safetensors.torch.load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        raise ValueError(f"{file} holds no weights that can be read: {type(error).__name__}") from error
    found = found.get("state_dict", found) if isinstance(found, Mapping) else {}
    found = {str(name).replace("_orig_mod.", ""): value for name, value in found.items()}
    learnt = [name for name, tensor in own.items() if isinstance(tensor, nn.Parameter)] or list(own)
    ends = [name[: -len(learnt[0])] for name in found if name.endswith(learnt[0])] if learnt else []
    for prefix in sorted(ends, key=len):
        state = {name: found.get(prefix + name, tensor) for name, tensor in own.items()}
        if all(prefix + name in found for name in learnt) and all(
            isinstance(value, Tensor) and value.shape == own[name].shape for name, value in state.items()
        ):
            return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
    raise ValueError(f"{file} does not hold the weights of this network, such as {learnt[0]!r}")
