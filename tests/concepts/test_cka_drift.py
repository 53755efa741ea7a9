"""A probe from public concepts alone: CKA of features with the first look's, and with another network's."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from processes import in_two_processes
from torch import nn

from fulgurite.probes.distributed import merge_processes, shard
from fulgurite.probes.moments import Moments
from fulgurite.probes.representation.similarity import cka, cka_from_moments
from fulgurite.probes.representation.stages import image_features
from fulgurite.probes.stream import stream

IMAGES = torch.rand(90, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = (IMAGES.mean((2, 3)).argmax(1)).long()


def drift(network, reference, images, layers) -> dict[str, float]:
    """The CKA of each layer with the same layer of a reference, from sums over a stream of images."""
    pairs = [(f"{one} {layer}", f"{other} {layer}") for layer in layers for one, other in ("na", "nn", "aa")]
    moments = Moments(pairs)
    streams = [
        stream(net, images, layers, ids=shard(len(images)), batch_size=16) for net in (network, reference)
    ]
    for (ids, now), (_, before) in zip(*streams, strict=True):
        named = {f"n {layer}": now[layer] for layer in layers} | {
            f"a {layer}": before[layer] for layer in layers
        }
        moments.update(ids, named)
    merge_processes(moments)
    return {layer: cka_from_moments(moments, f"n {layer}", f"a {layer}") for layer in layers}


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    parts = [
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, 2),
        nn.ReLU(),
    ]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))


def trained(net: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(net(IMAGES), LABELS).backward()
        optimizer.step()
    return net


def check() -> None:
    layers = ["2", "4", ""]
    net = network(0)
    first = copy.deepcopy(net)
    trained(net)
    for reference in (first, network(1)):
        found = drift(net, reference, IMAGES, layers)
        one, other = (image_features(own, IMAGES, layers) for own in (net, reference))
        for layer in layers:  # the closed form, of features that float32 rounds otherwise in one batch of all
            assert found[layer] == pytest.approx(cka(one[layer], other[layer]), abs=1e-6)
            assert found[layer] < 0.999
    assert drift(net, net, IMAGES, layers) == pytest.approx(dict.fromkeys(layers, 1.0), abs=1e-9)


def test_drift_from_sums_is_that_of_full_matrices():
    check()


@pytest.mark.ranks
def test_two_processes_find_the_same(tmp_path: Path):
    in_two_processes(__file__, tmp_path)
