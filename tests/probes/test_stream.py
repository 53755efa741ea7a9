"""Streams of features: ids, order, any data, and the network in between."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
)

from fulgurite.probes.objectives import channel, class_score, log_probability
from fulgurite.probes.record import record
from fulgurite.probes.stream import stream

IMAGES = torch.rand(23, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(23) % 3
PAIRS = TensorDataset(IMAGES, LABELS)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.Dropout()]
    network = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    network(IMAGES + 1)  # statistics other than 0 and 1
    return network


def at_once(network: nn.Module, layers=("1", "3", "")) -> dict[str, torch.Tensor]:
    network.eval()
    with record(network, layers) as seen, torch.no_grad():
        network(IMAGES)
    network.train()
    return dict(seen)


class Indexed(Dataset):
    """Items as dicts, read by index; remembers which were asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, place):
        self.asked.append(place)
        return {"pixel_values": IMAGES[place], "label": int(LABELS[place])}


class Arriving(IterableDataset):
    def __iter__(self):
        yield from zip(IMAGES, LABELS, strict=True)


DATA = {
    "data set": PAIRS,
    "dicts": Indexed(),
    "images": IMAGES,
    "pair": (IMAGES, LABELS),
    "loader": DataLoader(PAIRS, 4),
    "shuffling loader": DataLoader(PAIRS, 4, shuffle=True, drop_last=True),
    "loader with batches of its own": DataLoader(
        PAIRS, batch_sampler=[[*range(9)], [9, 10], [*range(11, 23)]]
    ),
    "iterable data set": DataLoader(Arriving(), 5),
    "batches": [(IMAGES[:20], LABELS[:20]), [IMAGES[20:], LABELS[20:]]],
    "batches of images": [IMAGES[:20], IMAGES[20:]],
    "batches that come once": iter([{"image": IMAGES[:9]}, {"image": IMAGES[9:], "label": LABELS[9:]}]),
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_every_kind_of_data_is_streamed_once_and_in_order(data):
    network = small()
    expected = at_once(network)
    batches = list(stream(network, data, ["1", "3", ""], reduce=None))
    assert torch.cat([ids for ids, _ in batches]).tolist() == [*range(23)]
    for layer, values in expected.items():
        assert_close(torch.cat([own[layer] for _, own in batches]), values)
    for batch in batches:
        assert batch.labels is None or torch.equal(batch.labels, LABELS[batch.ids])


def test_labels_come_along():
    assert torch.equal(torch.cat([batch.labels for batch in stream(small(), PAIRS, [""])]), LABELS)
    assert all(batch.labels is None for batch in stream(small(), IMAGES, [""]))
    assert all(batch.labels is None for batch in stream(small(), (IMAGES, LABELS / 2), [""]))


@pytest.mark.parametrize("ids", [range(1, 23, 2), [7, 3, 3, 22], [5]], ids=str)
def test_a_share_is_read_by_index_and_nothing_else_is(ids):
    data, network = Indexed(), small()
    expected = at_once(network, ["3"])["3"].mean((2, 3))
    batches = list(stream(network, data, ["3"], ids=ids))
    assert torch.cat([batch.ids for batch in batches]).tolist() == [*map(int, ids)]
    assert {*data.asked} == {*map(int, ids)}
    for share, own in batches:
        assert_close(own["3"], expected[share])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_distributed_loader_gives_its_share_padding_and_all(rank):
    loader = DataLoader(PAIRS, 4, sampler=DistributedSampler(PAIRS, 2, rank, shuffle=False))
    ids = torch.cat([ids for ids, _ in stream(small(), loader, [""])]).tolist()
    assert ids == [*range(rank, 23, 2), *[0] * rank]


def test_batches_may_have_ids_of_their_own():
    ids = itertools.count(100, 2)
    found = list(stream(small(), [IMAGES[:5], IMAGES[5:7]], [""], ids=ids))
    assert torch.cat([ids for ids, _ in found]).tolist() == [*range(100, 114, 2)]


def test_objectives_have_a_value_per_image():
    network = small()
    expected = at_once(network)
    asked = [class_score(2), 2 * channel("3", 1) - class_score(LABELS), log_probability(0)]
    scores = expected[""].gather(1, LABELS[:, None])[:, 0]
    values = torch.stack(
        [expected[""][:, 2], 2 * expected["3"][:, 1].mean((1, 2)) - scores, expected[""].log_softmax(1)[:, 0]]
    )
    assert_close(torch.cat([own for _, own in stream(network, PAIRS, asked)], 1), values)
    assert_close(torch.cat([own for _, own in stream(network, PAIRS, asked[0])]), values[0])
    share = [4, 22, 9]
    assert_close(torch.cat([own for _, own in stream(network, PAIRS, asked[1], ids=share)]), values[1, share])


def test_reduce_is_what_is_kept_of_a_layer():
    network = small()
    expected = at_once(network)["3"]
    for reduce, wanted in {
        lambda out: out.amax((2, 3)): expected.amax((2, 3)),
        lambda out: out.flatten(1).square().sum(1): expected.flatten(1).square().sum(1),
    }.items():
        found = torch.cat([own["3"] for _, own in stream(network, PAIRS, ["3"], reduce=reduce)])
        assert_close(found, wanted)


def test_the_network_is_as_it_was_whenever_a_batch_is_handed_over():
    network, modes = small(), set()
    for parameter in network[0].parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        for _, values in stream(network, DataLoader(PAIRS, 4, shuffle=True), ["3"], batch_size=4):
            assert not values["3"].requires_grad
            modes |= {network.training, network[1].training}
            assert [own.requires_grad for own in network.parameters()] == [False, False, *[True] * 6]
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
            assert torch.is_grad_enabled()
            assert torch.equal(state, torch.get_rng_state())
            assert np.random.get_state()[1].tolist() == numpys  # noqa: NPY002
            if len(modes) and values["3"].shape[0] < 4:
                raise ZeroDivisionError
    assert modes == {True}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_images_that_are_drawn_are_the_same_whatever_the_caller_has_drawn():
    class Noisy(Indexed):
        def __getitem__(self, place):
            return (IMAGES[place] + torch.rand(3, 12, 12)) / 2

    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(torch.cat([own["3"] for _, own in stream(small(), Noisy(), ["3"])]))
    assert torch.equal(*found)


def test_it_works_under_inference_mode():
    network = small()
    expected = at_once(network)[""]
    with torch.inference_mode():
        found = torch.cat([own[""] for _, own in stream(network, (IMAGES * 1, LABELS), [""])])
        assert torch.is_inference_mode_enabled()
    assert_close(found, expected)


def test_no_layer_deeper_than_asked_runs_and_no_batch_is_fetched_ahead():
    network, data, begun = small(), Indexed(), []
    network[3].register_forward_pre_hook(lambda *_: begun.append(1))
    batches = stream(network, data, ["1"], batch_size=4)
    assert not data.asked
    next(batches)
    assert data.asked == [0, 0, 1, 2, 3]  # the first one once before, for its size
    next(batches)
    assert not begun


def test_the_default_batch_size_suits_the_device():
    large = torch.rand(14, 3, 200, 200)
    assert [len(ids) for ids, _ in stream(small(), large, ["1"])] == [7, 7]
    assert [len(ids) for ids, _ in stream(small(), [large], ["1"])] == [7, 7]
    assert [len(ids) for ids, _ in stream(small(), large, ["1"], batch_size=5)] == [5, 5, 4]
    assert [len(ids) for ids, _ in stream(small(), DataLoader(PAIRS, 2), ["1"])] == [23]


def test_out_of_memory_a_batch_is_run_in_parts_and_handed_over_whole():
    sizes = []  # not the module's own: what it holds is put back after each loan

    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small()

        def forward(self, images):
            sizes.append(len(images))
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.body(images)

    network = Narrow()
    expected = at_once(network.body)[""]
    with pytest.warns(RuntimeWarning, match="out of memory with 12 images") as reported:
        batches = list(stream(network, PAIRS, [""], batch_size=12))
    assert len(reported) == 1
    assert [len(ids) for ids, _ in batches] == [12, 11]
    assert sizes == [12, 6, *[3] * 7, 2]
    assert_close(torch.cat([own[""] for _, own in batches]), expected)


@pytest.mark.ranks
def test_workers_of_the_loader_are_used():
    loader = DataLoader(PAIRS, 4, num_workers=1, multiprocessing_context="fork")
    ids = torch.cat([ids for ids, _ in stream(small(), loader, [""], batch_size=8)])
    assert ids.tolist() == [*range(23)]


@pytest.mark.parametrize(
    ("data", "asked", "given", "message"),
    [
        (PAIRS, ["33"], {}, "no layer '33' in Sequential"),
        (PAIRS, "3", {}, r"outputs='3'; wanted layers by path"),
        (PAIRS, [], {}, "wanted layers by path, such as"),
        (PAIRS, ["3", class_score(1)], {}, "wanted layers by path, such as"),
        (PAIRS, ["3"], {"batch_size": 0}, "batch_size=0; wanted at least 1"),
        (PAIRS, ["3"], {"ids": [3, 23]}, "id 23: the data set has 23 images, counted from 0"),
        (PAIRS, ["3"], {"ids": [-1]}, "id -1: the data set has 23 images"),
        ([IMAGES], ["3"], {"ids": range(9)}, "fewer ids than images"),
        ([IMAGES], class_score(LABELS), {}, "an objective that differs by image needs a data set"),
        (PAIRS, class_score(LABELS[:4]), {}, "an objective for 4 images came with 23"),
        ([IMAGES[0]], ["3"], {}, r"images that are torch.float32 \(3, 12, 12\); wanted floating point \[n"),
        ([IMAGES.byte()], ["3"], {}, "images that are torch.uint8"),
        (["images"], ["3"], {}, "images that are str; wanted floating point"),
        ([{"pictures": IMAGES}], ["3"], {}, "images that are NoneType"),
        (2 * IMAGES, ["3"], {}, r"images reach from 0\S* to 2; wanted \[0, 1\]. If the data are normalised"),
        ([IMAGES * torch.nan], ["3"], {}, "images reach from nan to nan"),
    ],
)
def test_what_cannot_be_streamed_is_reported(data, asked, given, message):
    with pytest.raises(ValueError, match=message):
        list(stream(small(), data, asked, **given))


def test_nothing_streams_nothing():
    assert list(stream(small(), PAIRS, ["3"], ids=[])) == []
    assert list(stream(small(), [], ["3"])) == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_our_own_data_sets_that_make_whole_batches_are_streamed_too(wrapped):
    from fulgurite.data.datasets import InMemory

    own = InMemory(IMAGES, LABELS, ("a", "b", "c"))
    data = DataLoader(own, 5, collate_fn=own.collate) if wrapped else own
    batches = list(stream(small(), data, [""], ids=[4, 9, 2], batch_size=2))
    assert [batch.ids.tolist() for batch in batches] == [[4, 9], [2]]
    assert torch.cat([batch.labels for batch in batches]).tolist() == LABELS[[4, 9, 2]].tolist()
    found = torch.cat([batch.values[""] for batch in batches])
    assert_close(found, at_once(small())[""][[4, 9, 2]], rtol=1e-4, atol=1e-5)
