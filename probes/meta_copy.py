"""A copy of a network on the meta device: it computes shapes, with no values and no memory."""

import copy
from types import MethodType

import torch
from torch import Tensor, nn

from fulgurite.probes.record import bare


def meta_copy(network: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes and no values, with the network's own hooks.

    Compiled parts run eagerly in it. The network is not touched, and none of its memory is copied: lists and
    dicts that its modules hold have copies, so that what a pass keeps in them stays in the copy, and other
    objects are shared. A pass that asks for a value, or that brings a tensor from another device, raises
    RuntimeError.
    """
    network = bare(network)
    modules = {id(own): copy.copy(own) for own in map(bare, network.modules())}
    tensors: dict[int, Tensor] = {}

    def copied(value: object, *, within: bool = False) -> object:
        if isinstance(value, nn.Module):
            return modules.get(id(bare(value)), value)
        if isinstance(value, MethodType) and id(value.__self__) in modules:
            # Lightning leaves `forward` behind among a module's own attributes
            return MethodType(value.__func__, modules[id(value.__self__)])
        if isinstance(value, Tensor):
            return tensors.setdefault(id(value), _on_meta(value))
        if within or not isinstance(value, list | dict | set):
            return value
        if isinstance(value, set):
            return copy.copy(value)
        own = copy.copy(value)
        for key, part in enumerate(own) if isinstance(own, list) else own.items():
            own[key] = copied(part, within=True)
        return own

    for module in modules.values():
        for name, value in vars(module).items():
            vars(module)[name] = copied(value)
    return modules[id(network)]


def _on_meta(tensor: Tensor) -> Tensor:
    with torch.inference_mode(False):  # else no graph could keep it
        there = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there
