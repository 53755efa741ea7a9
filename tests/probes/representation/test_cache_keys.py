"""Keys of cached features: changes that change them, and those that do not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cached_features import Mapped, Net, by, key
from torch import nn

from fulgurite.probes.representation.fingerprint import fingerprint, fingerprint_data
from fulgurite.probes.representation.stages import features


class Tanh(Net):
    def forward(self, images):
        return self.head(self.two(self.scale * self.norm(self.one(images)).tanh()).mean((2, 3)))


Tanh.__name__ = Tanh.__qualname__ = "Net"


def changed(network: nn.Module, name: str) -> nn.Module:
    with torch.no_grad():
        network.state_dict()[name].view(-1)[-1] += 1e-6
    return network


def scaled(network: Net) -> Net:
    network.scale = 0.5
    return network


def hooked(network: nn.Module) -> nn.Module:
    network.one.register_forward_hook(halved)
    return network


def halved(module, args, out):
    return out / 2


NETWORKS = {
    "a weight": lambda: changed(Net(), "two.weight"),
    "a bias": lambda: changed(Net(), "one.bias"),
    "a running mean": lambda: changed(Net(), "norm.running_mean"),
    "a layer": lambda: Net(bias=False),
    "padding": lambda: Net(padding=1),
    "a number in it": lambda: scaled(Net()),
    "its code": Tanh,
    "a hook": lambda: hooked(Net()),
    "half precision": lambda: Net().half(),
}


@pytest.mark.parametrize("other", NETWORKS.values(), ids=NETWORKS)
def test_another_network_is_another_key(other):
    assert key(Net()) == key(Net())
    assert key(other()) == key(other())
    assert key(other()) != key(Net())


class Reads(Net):
    """Its forward calls a function of the module, and reads a tensor, a dictionary and an array."""

    def __init__(self):
        super().__init__()
        self.tensor, self.numbers, self.array = torch.ones(1), {"by": 1.0}, np.ones(1)

    def forward(self, images):
        return super().forward(activation(images) * self.tensor * self.numbers["by"] * float(self.array[0]))


def activation(images):
    return images.relu()


def changed_function(network: Reads, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "activation", lambda images: images.tanh())


def changed_tensor(network: Reads, monkeypatch) -> None:
    network.tensor += 1


def changed_dict(network: Reads, monkeypatch) -> None:
    network.numbers["by"] = 2.0


def changed_array(network: Reads, monkeypatch) -> None:
    network.array[0] = 2


def changed_forward(network: Reads, monkeypatch) -> None:
    forward = network.one.forward
    network.one.forward = lambda images: forward(images) * 2


def changed_hook(network: Reads, monkeypatch) -> None:
    network.hook.remove()
    network.norm.register_forward_hook(by(2.0))


@pytest.mark.parametrize(
    "change",
    [changed_function, changed_tensor, changed_dict, changed_array, changed_forward, changed_hook],
)
def test_features_are_those_of_the_network_as_it_answers_now(tmp_path: Path, monkeypatch, change):
    network = Reads()
    network.hook = network.norm.register_forward_hook(by(1.0))
    data = Mapped()
    before = features(network, data, ["two"], cache=tmp_path).of["two"].clone()
    assert torch.equal(features(network, data, ["two"], cache=tmp_path).of["two"], before)
    assert len(list(tmp_path.iterdir())) == 1
    change(network, monkeypatch)
    now = features(network, data, ["two"], cache=tmp_path).of["two"]
    assert torch.equal(now, features(network, data, ["two"]).of["two"])
    assert not torch.allclose(now, before)


class Choosy(Net):
    """Its features depend on `scale` only where images are odd, which those of the fingerprint are not."""

    def forward(self, images):
        odd = (images[:, 0, 0, 0] == 0.25)[:, None, None, None]
        return super().forward(torch.where(odd, images * self.scale, images))


def test_a_change_that_the_images_of_the_fingerprint_do_not_feel_is_found_by_others(tmp_path: Path):
    images = torch.rand(320, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images[:, 0, 0, 0] = 0.25
    images[::32, 0, 0, 0] = 0.5  # which the fingerprint looks at
    data, network = (images, torch.arange(320) % 3), Choosy()
    before = features(network, data, ["one"], cache=tmp_path).of["one"].clone()
    known = fingerprint(network, fingerprint_data(data), ["one"])
    network.scale = 2.0
    assert fingerprint(network, fingerprint_data(data), ["one"]) == known
    with pytest.warns(UserWarning, match="one outputs other features now .*; they are rebuilt"):
        now = features(network, data, ["one"], cache=tmp_path).of["one"]
    assert torch.equal(now, features(network, data, ["one"]).of["one"])
    assert not torch.allclose(now, before)
    assert torch.equal(features(network, data, ["one"], cache=tmp_path).of["one"], now)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_does_not_change_answers_does_not_change_the_key():
    network = Net()
    assert key(network.eval()) == key(Net())
    assert key(network.requires_grad_(False)) == key(Net())
    assert key(torch.compile(network, backend="eager")) == key(Net())


def test_other_options_are_another_key():
    wishes = [{}, {"layers": ["one"]}, {"layers": ["two"]}, {"grid": 2}, {"dtype": torch.float16}]
    assert len({key(**wish) for wish in wishes}) == len(wishes)


@pytest.mark.slow
def test_keys_are_the_same_in_another_process():
    code = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from fulgurite.probes.representation.fingerprint import fingerprint, fingerprint_data

torch.manual_seed(0)
network, data = nn.Conv2d(3, 2, 3), TensorDataset(torch.rand(5, 3, 4, 4), torch.arange(5))
print(fingerprint(network, fingerprint_data(data), [""], grid=1, dtype=torch.float32))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    one, other = (process.communicate()[0] for process in processes)
    assert len(one) == 33
    assert one == other
