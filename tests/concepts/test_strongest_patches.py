"""A probe from public concepts alone: the patches of a data set that 64 channels respond to most."""

from pathlib import Path

import pytest
import torch
from processes import in_two_processes
from torch import Tensor, nn

from fulgurite.probes.distributed import merge_processes, shard
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.record import record
from fulgurite.probes.stream import stream
from fulgurite.probes.top_k import TopK

KERNEL, STRIDE = 5, 2  # of all that is between the image and the layer


def strongest_patches(network, images, layer: str, *, k: int = 9) -> tuple[TopK, Tensor]:
    """The images and positions that each channel responds to most, and the patches cut out there."""
    top = TopK(k)
    for ids, values in stream(network, images, [layer], reduce=None, ids=shard(len(images))):
        top.update(ids, values[layer])
    merge_processes(top)
    corners = (STRIDE * top.positions).flatten(0, 1).tolist()
    patches = [
        images[number][:, row : row + KERNEL, column : column + KERNEL]
        for number, (row, column) in zip(top.ids.flatten().tolist(), corners, strict=True)
    ]
    return top, torch.stack(patches).unflatten(0, top.ids.shape)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 64, KERNEL, STRIDE), nn.ReLU(inplace=True)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))


def check(name: str = "1") -> None:
    net, images = network(), torch.rand(150, 3, 17, 17, generator=torch.Generator().manual_seed(0))
    top, patches = strongest_patches(net, images, name)
    with frozen_eval(net) as same, record(same, [name]) as seen, torch.no_grad():
        same(images)
    maps = seen[name]  # brute force, over all activations
    best, order = maps.amax((2, 3)).sort(dim=0, descending=True, stable=True)
    assert torch.allclose(top.values, best[:9].T)
    assert torch.equal(top.ids, order[:9].T)
    rows, columns = top.positions.unbind(-1)
    channels = torch.arange(64)[:, None]
    assert torch.allclose(maps[top.ids, channels, rows, columns], top.values)
    # the closed form: a filter's response is its product with the patch
    weight, bias = (own.detach() for own in net[0].parameters())
    responses = (patches * weight[:, None]).flatten(2).sum(2) + bias[:, None]
    assert torch.allclose(responses.relu(), top.values, atol=1e-5)


def test_the_strongest_patches_are_those_of_all_activations():
    check()


@pytest.mark.ranks
def test_two_processes_find_the_same(tmp_path: Path):
    in_two_processes(__file__, tmp_path)
