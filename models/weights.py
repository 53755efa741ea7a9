"""Loading weights from files without unpickling, adapted to other channels and classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fulgurite.models.weights_file import contents

_WHOLE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights in a safetensors file, a torch state dict or a Lightning checkpoint, by their bare names.

    A checkpoint of our own model yields its `network`; the prefixes of DDP and `torch.compile` are taken off.
    Half precision becomes float32. Nothing is ever unpickled: a file that needs it is refused.

    Raises:
        ValueError: no such file, no weights in it, or weights that are not finite or not dense numbers.
    """
    path = Path(path)
    content = contents(path)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, no state dict; save `network.state_dict()`"
        )
    inside = content.get("state_dict")
    state = inside if isinstance(inside, Mapping) else content
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = repr(name)[:100] if isinstance(name, str) else f"what goes by a {type(name).__name__}"
            raise ValueError(
                f"{path} holds no state dict: {what} is of type {type(value).__name__}; "
                "save `network.state_dict()`"
            )
    if not state:
        raise ValueError(f"{path} holds no weights; save `network.state_dict()`")
    _check_size(path, state)
    bare = _unwrapped(path, state, checkpoint=inside is not None)
    return {name: _dense(path, name, value) for name, value in bare.items()}


def _check_size(path: Path, state: Mapping[str, Tensor]) -> None:
    """Views can make terabytes of a small file."""
    size = sum(value.numel() * value.element_size() for value in state.values() if not _no_weight(value))
    if size > 2**26 + 100 * path.stat().st_size:
        raise ValueError(
            f"{path} is a file of {path.stat().st_size / 1e6:.3g} MB whose weights would take "
            f"{size / 1e6:.3g} MB; save `network.state_dict()`"
        )


def _dense(path: Path, name: str, value: Tensor) -> Tensor:
    if why := _no_weight(value):
        raise ValueError(
            f"{path} holds {why} in {named(name)}; wanted dense numbers: save the state dict of a plain "
            "network in float32"
        )
    value = value.detach()
    value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if wrong := int((~value.isfinite()).sum()):
        raise ValueError(
            f"{path} holds weights that are not finite: {wrong} of {value.numel()} in {named(name)} are NaN "
            "or infinite; take those of a training that went well"
        )
    return value


def _no_weight(value: Tensor) -> str:
    """The kind of the value, if it is not an array of numbers; else nothing."""
    if value.is_meta:
        return "a tensor without values (of the meta device)"
    if value.is_quantized:
        return "quantised numbers"
    if value.layout != torch.strided:
        return "a sparse tensor"
    if value.is_complex():
        return "complex numbers"
    # numbers of less than a byte, or of eight bits and a scale elsewhere
    plain = value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return "" if plain or value.dtype in _WHOLE else f"{str(value.dtype).removeprefix('torch.')} numbers"


def _unwrapped(path: Path, tensors: Mapping[str, Tensor], *, checkpoint: bool) -> Mapping[str, Tensor]:
    state = {name.replace("_orig_mod.", ""): value for name, value in tensors.items()}
    if len(state) < len(tensors):
        raise ValueError(f"{path} holds two tensors for one name; they differ by torch.compile's _orig_mod")
    for prefix in ("module.", "network.", "module."):
        inside = {
            name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
        }
        # a checkpoint may hold losses and metrics besides its network; a bare state dict must be all inside
        if inside and (len(inside) == len(state) or (checkpoint and prefix == "network.")):
            state = inside
    return state


def unprefixed(state: Mapping[str, Tensor], network: nn.Module, source: str) -> dict[str, Tensor]:
    """The state by the network's own names, without the attribute of a LightningModule, such as `net.`.

    Raises:
        ValueError: several parts of it could be the network.
    """
    own = [name for name in network.state_dict() if not _optional(name)]
    if not own or any(name in state for name in own):
        return dict(state)
    before = [name.removesuffix(own[0]) for name in state if name.endswith("." + own[0])]
    before = [prefix for prefix in before if all(prefix + name in state for name in own)]
    if len(before) > 1:
        raise ValueError(
            f"{source} holds {len(before)} networks of this kind: {_listed(sorted(before))}; save the state "
            "dict of the one that is meant"
        )
    if not before:
        return dict(state)
    (prefix,) = before
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def fitted(state: Mapping[str, Tensor], network: nn.Module, *, fresh_head: bool = False) -> dict[str, Tensor]:
    """The state with its stems for the network's channels, and the network's heads where the classes differ.

    With `fresh_head` they are the network's in any case, and need not be in the state.

    From 3 channels to 1 the stem's weights are summed, so that a grey image gives the same result as its
    three copies; from 1 to 3 they are shared out equally. Anything else that does not fit is left, and `load`
    raises for it.
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
        comparable = name in state and name in own and state[name].dim() == own[name].dim()
        differs = comparable and len(state[name]) != len(own[name])
        if fresh_head or differs:
            result |= {part: own[part] for part in (name, f"{head}.bias") if part in own}
    return result


def changes(state: Mapping[str, Tensor], fitted: Mapping[str, Tensor]) -> str:
    """The number of a state's tensors that are used unchanged; and by name, with their shapes, the others."""
    groups = {
        "taken over": [name for name in fitted if fitted[name] is state.get(name)],
        "adapted to the channels": [],
        "fresh": [],
    }
    for name, value in fitted.items():
        before = state.get(name)
        if before is None:
            groups["fresh"].append(f"{name} {_shape(value)}, which was not there")
        elif before is not value:
            grey = before.dim() > 1 and before.shape[1] != value.shape[1] and len(before) == len(value)
            kind = "adapted to the channels" if grey else "fresh"
            groups[kind].append(f"{name} {_shape(before)} for {_shape(value)}")
    counts = [f"{len(groups['taken over'])} tensors taken over"]
    return "; ".join(
        counts + [f"{kind}: {', '.join(groups[kind])}" for kind in [*groups][1:] if groups[kind]]
    )


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
    if weight.dim() < 2:
        return weight
    # stems that fold space into channels (timm's tresnet) hold several groups of the image's channels
    if weight.shape[1] == 3 * channels:
        return weight.unflatten(1, (-1, 3)).sum(2)
    if channels == 3 * weight.shape[1]:
        return weight.repeat_interleave(3, dim=1) / 3
    return weight


def load(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Give the network all of these weights; where any does not fit, raise and change nothing.

    Only the network's own normalisation and BatchNorm's counters may be missing from the state.
    """
    own = network.state_dict()
    problems = {
        "missing": [name for name in own if name not in state and not _optional(name)],
        "not the network's": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {_shape(state[name])} for {_shape(own[name])}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
        "of another kind": [
            f"{name} {_kind(state[name])} for {_kind(own[name])}"
            for name in own
            if name in state and own[name].is_floating_point() and not state[name].is_floating_point()
        ],
    }
    if any(problems.values()):
        description = "; ".join(
            f"{len(names)} {kind}: {_listed(names)}" for kind, names in problems.items() if names
        )
        raise ValueError(
            f"the weights in {source} do not fit this {type(network).__name__}: {description}. "
            "Build the network that they were saved from"
        )
    network.load_state_dict(state, strict=False)


def _optional(name: str) -> bool:
    """Whether a state need not hold this: a normalisation, or a counter of BatchNorm's."""
    return name in ("normalise.mean", "normalise.std") or name.endswith("num_batches_tracked")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "()"


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _listed(names: list[str], limit: int = 4) -> str:
    return ", ".join(map(named, names[:limit])) + (", ..." if len(names) > limit else "")


def named(name: str) -> str:
    """A name out of a file, fit for a sentence: on one line, and not too long."""
    plain = name if name.isprintable() else repr(name)
    return plain if len(plain) <= 100 else f"{plain[:97]}..."
