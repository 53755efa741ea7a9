"""Training images that are moved to the device, and batches that are augmented there."""

from types import SimpleNamespace

import torch

from fulgurite.data import image_data_module
from fulgurite.data.datasets import InMemory
from fulgurite.data.digits import Digits
from fulgurite.data.samplers import SeededIndex, seeded_by


def test_training_images_are_moved_where_a_gpu_has_room_for_them_and_no_others(monkeypatch):
    moved = []
    monkeypatch.setattr(InMemory, "on", lambda part, device: moved.append(device) or part)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 << 30))
    data = Digits()
    data.setup()
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda:0")))
    free = 40 << 30
    assert data._on_device(data.train) is data.train
    assert moved == [torch.device("cuda:0")]
    free = data.train.nbytes
    data._on_device(data.train)
    free = 40 << 30
    monkeypatch.setattr(image_data_module, "LARGEST_ON_GPU", data.train.nbytes - 1)
    data._on_device(data.train)
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    data._on_device(data.train)
    assert len(moved) == 1


def test_a_data_set_on_a_device_gives_the_same_batches():
    data = Digits(seed=3)
    data.setup()
    turns = [SeededIndex(place) for place in (5, 2, 9)]
    for turn in turns:
        turn.seed = 77
    there = data.train.on(torch.device("cpu"))
    for one, other in zip(data.train.__getitems__(turns), there.__getitems__(turns), strict=True):
        assert torch.equal(one, other)


def test_draws_of_a_turn_leave_the_random_state_alone():
    turn = SeededIndex(1)
    turn.seed = 5
    state = torch.get_rng_state()
    with seeded_by(turn, torch.device("cpu")):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    with seeded_by(turn):
        assert torch.equal(torch.rand(3), first)
