"""Private state of modules: what forward passes change is restored, what a probe keeps is not touched."""

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn

from fulgurite.probes.frozen_eval import frozen_eval


def test_memory_of_a_probe_is_not_treated_as_state_of_the_network():
    class Remembers(pl.Callback):
        def __init__(self):
            self.looks = []

    class Model(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.probes = [Remembers()]

    model = Model()
    with frozen_eval(model):
        model.probes[0].looks.append(1)
    assert model.probes[0].looks == [1]


class Noisy(nn.Module):
    """Keeps what modules of all kinds keep."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.calls, self.seen, self.rng = 0, [], np.random.default_rng(0)
        self.torchs = torch.Generator().manual_seed(0)
        self.total = torch.zeros(())
        self.others = [nn.Dropout()]
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, images):
        self.calls += 1
        self.last = self.head(images.flatten(1))
        self.seen.append(self.last)
        self.total += 1
        self.others[0].note = self.calls
        self.mean.add_(1)
        noise = float(self.rng.normal()) + torch.rand(2, generator=self.torchs)
        return self.last + noise


def test_a_module_is_restored_with_its_own_state():
    network, images = Noisy(), torch.rand(3, 1, 2, 2)
    with frozen_eval(network) as net:
        once = net(images)
        assert net.calls == len(net.seen) == 1
        with frozen_eval(network) as inner:
            again = inner(images)
        third = net(images)
    assert network.calls == len(network.seen) == float(network.total) == float(network.mean.sum()) == 0
    assert not hasattr(network, "last")
    assert not hasattr(network.others[0], "note")
    assert torch.equal(network(images), once)
    assert torch.equal(again, third)
    assert not torch.equal(once, again)
