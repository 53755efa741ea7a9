"""Batch sizes by caches and free memory, and halving when it runs out."""

import warnings

import pytest
import torch
from torch import nn

from fulgurite.probes.batches import Batches, batch_size, fitting, saved_bytes


class Narrow(nn.Module):
    """Refuses to take more than this many images at once, as an allocator does whose memory is full."""

    def __init__(self, room: int, error: Exception | None = None):
        super().__init__()
        self.room, self.tried = room, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    def forward(self, images):
        self.tried.append(len(images))
        if len(images) > self.room:
            raise self.error
        return 2 * images


IMAGES = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("side", "most", "expected"),
    [(32, None, 32), (96, None, 32), (224, None, 6), (2000, None, 1), (32, 256, 256), (224, 4, 4)],
)
def test_on_a_cpu_a_batch_is_what_its_caches_hold(side, most, expected):
    assert batch_size(torch.empty(1, 3, side, side), max_images=most) == expected
    assert batch_size(torch.empty(0, 3, side, side), "cpu", max_images=most) == expected


@pytest.mark.parametrize(("free", "expected"), [(80 << 30, 208), (1 << 30, 2), (1 << 20, 1)])
def test_on_a_gpu_a_batch_is_what_half_its_free_memory_holds(free, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 << 30))
    images = torch.empty(1, 3, 224, 224)
    assert batch_size(images, "cuda") == expected
    assert batch_size(images, torch.device("cuda:0"), max_images=7) == min(7, expected)


def test_enough_memory_means_whole_batches_and_no_warning():
    network, batches = Narrow(8), Batches(8)
    found = [out for _, out in batches.over(20, lambda rows: network(IMAGES[rows]))]
    assert network.tried == [8, 8, 4]
    assert torch.equal(torch.cat(found), 2 * IMAGES)


@pytest.mark.parametrize("error", [None, RuntimeError("... DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_it_halves_warns_once_and_continues(error):
    network, batches = Narrow(3, error), Batches(16)
    with pytest.warns(RuntimeWarning, match="out of memory with 16 images at once; going on") as reported:
        found = list(batches.over(20, lambda rows: network(IMAGES[rows])))
    assert len(reported) == 1
    assert network.tried == [16, 8, 4, *[2] * 10]
    assert [rows for rows, _ in found] == [slice(start, start + 2) for start in range(0, 20, 2)]
    assert torch.equal(torch.cat([out for _, out in found]), 2 * IMAGES)
    # what was learnt holds from now on, and is not reported again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(batches.over(3, lambda rows: network(IMAGES[rows])))
    assert network.tried[-2:] == [2, 1]


def test_a_rest_that_is_too_large_is_halved_from_its_own_size():
    network, batches = Narrow(2), Batches(16)
    with pytest.warns(RuntimeWarning, match="with 5 images"):
        list(batches.over(5, lambda rows: network(IMAGES[rows])))
    assert network.tried == [5, 2, 2, 1]


def test_no_memory_for_a_single_image_is_an_error_as_any_other_is():
    with pytest.warns(RuntimeWarning), pytest.raises(torch.OutOfMemoryError):
        list(Batches(4).over(4, lambda rows: Narrow(0)(IMAGES[rows])))
    network = Narrow(2, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(Batches(4).over(4, lambda rows: network(IMAGES[rows])))
    assert network.tried == [4]
    with pytest.raises(ValueError, match="batches of 0 images; wanted at least 1"):
        Batches(0)


def test_what_a_failed_run_has_made_is_let_go_before_the_next():
    class Held:
        alive = 0

        def __init__(self):
            Held.alive += 1

        def __del__(self):
            Held.alive -= 1

    seen = []

    def run(rows):
        seen.append(Held.alive)
        held = Held()
        if rows.stop - rows.start > 2:
            raise torch.OutOfMemoryError
        return held

    with pytest.warns(RuntimeWarning):
        for _, _ in Batches(8).over(2 * 2, run):
            pass
    assert seen[:2] == [0, 0]


def test_what_a_pass_keeps_for_its_way_back_is_counted_without_weights_and_without_ending_a_copy_on_write():
    network = torch.nn.Sequential(torch.nn.Linear(3, 5, bias=False), torch.nn.BatchNorm1d(5)).eval()
    rows = torch.rand(2, 3, requires_grad=True)
    copied = torch._lazy_clone(network[1].running_mean)
    assert saved_bytes(network, lambda: network(rows)) >= 2 * 5 * 4  # the norm's input
    assert saved_bytes(network, lambda: network(rows)) <= (2 * 3 + 2 * 5 + 4 * 5) * 4
    assert torch._C._is_cow_tensor(network[1].running_mean)
    assert copied.tolist() == [0.0] * 5


@pytest.mark.parametrize(
    ("free", "each", "expected"), [(80 << 30, 10**8, 18), (1 << 30, 10**8, 5), (1, 9, 1)]
)
def test_copies_on_a_gpu_take_half_of_what_is_free_and_2_gb_at_most(free, each, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 << 30))
    assert fitting(torch.device("cuda:0"), each, max_images=1000) == expected
    assert fitting(torch.device("cuda:0"), each, max_images=3) == min(3, expected)
