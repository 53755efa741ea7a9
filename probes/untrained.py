"""Copies of a network with weights re-initialised: the control for measurements of trained ones."""

import copy
import math

import torch
from torch import nn

from fulgurite.probes.frozen_eval import device_of, same_randomness
from fulgurite.probes.record import bare


def untrained(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy of the network whose weights are re-initialised; its normalisation of images, a buffer, stays.

    Args:
        network: it is not changed.
        seed: draws the weights.
    """
    drawn = copy.deepcopy(bare(network))
    with same_randomness(device_of(drawn)), torch.no_grad():
        torch.manual_seed(seed)
        for layer in drawn.modules():
            if any(True for _ in layer.parameters(recurse=False)):
                draw_anew(layer)
    return drawn


def draw_anew(layer: nn.Module) -> None:
    """Draw a layer's own weights: of convolutions and linear layers as by He et al. 2015, with biases of 0.

    Other layers are reset; those that cannot be get normal numbers of the same mean and spread.
    """
    if isinstance(layer, nn.Linear | nn.Conv2d):
        nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.weight[0].numel()))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif callable(reset := getattr(layer, "reset_parameters", None)):
        reset()
    else:
        for own in layer.parameters(recurse=False):
            own.copy_(own.mean() + torch.randn_like(own) * (own.std() if own.numel() > 1 else own.abs()))
