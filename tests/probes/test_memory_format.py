"""Which memory format convolutions have within `frozen_eval(channels_last=True)`."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fulgurite.probes.frozen_eval import frozen_eval


@pytest.mark.parametrize(("channels", "side", "last"), [(256, 6, False), (256, 7, True), (64, 4, True)])
def test_wide_convolutions_of_small_maps_keep_their_channels_first(channels, side, last):
    class Formats(TorchDispatchMode):
        found = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution.default:
                self.found += (args[0].is_contiguous(memory_format=torch.channels_last),)
            return func(*args, **(kwargs or {}))

    network = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)).requires_grad_(False)
    weight, maps = network[0].weight, torch.rand(1, channels, side, side)
    maps = maps.to(memory_format=torch.channels_last)
    with Formats() as formats, frozen_eval(network, channels_last=True) as net:
        found = net(maps)
    assert formats.found == (last,)
    assert_close(found, network(maps), rtol=1e-4, atol=1e-5)
    assert network[0].weight is weight
    assert not network[0]._forward_pre_hooks
