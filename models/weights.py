"""Weights from a file: read without running anything, fitted to other channels and classes, loaded whole."""

import pickle
import pickletools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights in a safetensors file, a torch state dict or a Lightning checkpoint, by their bare names.

    A checkpoint of our own model yields its `network`; the prefixes of DDP and `torch.compile` are taken off.
    Half precision becomes float32. Nothing is ever unpickled: a file that needs it is refused; so is one with
    weights that are NaN or infinite.
    """
    path = Path(path)
    if (path / "run.json").is_file():
        raise ValueError(
            f"{path} is the folder of a run, no file of weights; finetune and advise take it as --backbone "
            f"{path}, others {path / 'checkpoints' / 'best.ckpt'}"
        )
    if not path.is_file():
        raise ValueError(f"no file of weights at {path}")
    content = _content(path)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, no state dict; save `network.state_dict()`"
        )
    inside = content.get("state_dict")
    state = _unwrapped(inside if isinstance(inside, Mapping) else content, checkpoint=inside is not None)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{path} holds no state dict: {name!r} is of type {type(value).__name__}; "
                "save `network.state_dict()`"
            )
    halves = (torch.float16, torch.bfloat16)
    state = {name: value.float() if value.dtype in halves else value for name, value in state.items()}
    for name, value in state.items():
        if wrong := int((~value.isfinite()).sum()):
            raise ValueError(
                f"{path} holds weights that are not finite: {wrong} of {value.numel()} in {name} are NaN or "
                "infinite; take those of a training that went well"
            )
    return state


def _content(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of how a pickle was written
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _holds_code(path, error):
            raise ValueError(_broken(path)) from error
        raise ValueError(
            f"{path} holds more than weights: it would have to be unpickled, which can run any code; "
            "where it was made, save `network.state_dict()` alone, best as safetensors"
        ) from error
    except Exception as error:  # a broken file breaks its reader in any way it likes
        raise ValueError(_broken(path)) from error


def _holds_code(path: Path, error: pickle.UnpicklingError) -> bool:
    """Whether it is a sound pickle that names what is to be run."""
    if "GLOBAL" in str(error):
        return True
    try:
        names = [code.name for code, *_ in pickletools.genops(path.read_bytes())]
    except Exception:  # no pickle
        return False
    return "GLOBAL" in names or "STACK_GLOBAL" in names


def _broken(path: Path) -> str:
    return (
        f"{path} cannot be read: it is cut off, corrupt, or neither safetensors (by its ending) nor a file "
        "of torch.save; copy or download it again"
    )


def _unwrapped(state: Mapping, *, checkpoint: bool) -> Mapping:
    state = {str(name).replace("_orig_mod.", ""): value for name, value in state.items()}
    for prefix in ("module.", "network.", "module."):
        inside = {
            name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
        }
        # a checkpoint may hold losses and metrics beside its network; a bare state dict must be all inside
        if inside and (len(inside) == len(state) or (checkpoint and prefix == "network.")):
            state = inside
    return state


def fitted(state: Mapping[str, Tensor], network: nn.Module, *, fresh_head: bool = False) -> dict[str, Tensor]:
    """The state with its stems for the network's channels, and the network's heads where the classes differ.

    With `fresh_head` they are the network's in any case, and need not be in the state.

    From 3 channels to 1 the stem's weights are summed, so that a grey image gives what its three copies gave;
    from 1 to 3 they are shared out equally. Whatever else does not fit stays, for `load` to refuse.
    """
    own = network.state_dict()
    result = dict(state)
    stems, heads = ends(network)
    for stem in stems:
        name = f"{stem}.weight"
        if name in state and name in own:
            result[name] = _rechannelled(state[name], own[name].shape[1])
    for head in heads:
        name = f"{head}.weight"
        differs = name in state and name in own and len(state[name]) != len(own[name])
        if fresh_head or differs:
            result |= {part: own[part] for part in (name, f"{head}.bias") if part in own}
    return result


def changes(state: Mapping[str, Tensor], fitted: Mapping[str, Tensor]) -> str:
    """How many of a state's tensors are taken as they are; and by name, with their shapes, which are not."""
    told = {
        "taken over": [name for name in fitted if fitted[name] is state.get(name)],
        "adapted to the channels": [],
        "fresh": [],
    }
    for name, value in fitted.items():
        before = state.get(name)
        if before is None:
            told["fresh"].append(f"{name} {_shape(value)}, which was not there")
        elif before is not value:
            grey = before.dim() > 1 and before.shape[1] != value.shape[1] and len(before) == len(value)
            kind = "adapted to the channels" if grey else "fresh"
            told[kind].append(f"{name} {_shape(before)} for {_shape(value)}")
    counts = [f"{len(told['taken over'])} tensors taken over"]
    return "; ".join(counts + [f"{kind}: {', '.join(told[kind])}" for kind in [*told][1:] if told[kind]])


def ends(network: nn.Module) -> tuple[Sequence[str], Sequence[str]]:
    """The paths of the layers that see the image, and of those that give the logits: mostly one of each.

    As timm says; elsewhere the first convolution and the last layer with weights, in the order of definition.
    """
    if config := getattr(network, "pretrained_cfg", None):
        stems, heads = (config.get(end) or () for end in ("first_conv", "classifier"))
        return [stems] if isinstance(stems, str) else stems, [heads] if isinstance(heads, str) else heads
    layers = [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return layers[:1], layers[-1:]


def _rechannelled(weight: Tensor, channels: int) -> Tensor:
    # stems that fold space into channels (timm's tresnet) hold several groups of the image's channels
    if weight.shape[1] == 3 * channels:
        return weight.unflatten(1, (-1, 3)).sum(2)
    if channels == 3 * weight.shape[1]:
        return weight.repeat_interleave(3, dim=1) / 3
    return weight


def load(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Give the network these weights, all of them; where any does not fit, say which and change nothing.

    Only the network's own normalisation and BatchNorm's counters may be missing from the state.
    """
    own = network.state_dict()
    optional = {
        "normalise.mean",
        "normalise.std",
        *(name for name in own if name.endswith("num_batches_tracked")),
    }
    problems = {
        "missing": [name for name in own if name not in state and name not in optional],
        "not the network's": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {_shape(state[name])} for {_shape(own[name])}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        told = "; ".join(
            f"{len(names)} {kind}: {_several(names)}" for kind, names in problems.items() if names
        )
        raise ValueError(
            f"the weights in {source} do not fit this {type(network).__name__}: {told}. "
            "Build the network that they were saved from"
        )
    network.load_state_dict(state, strict=False)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "()"


def _several(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
