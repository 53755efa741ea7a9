"""Pooled features of stages: from one pass, in order, the same as the layers' outputs."""

import tempfile
from pathlib import Path

import pytest
import torch
from staged_network import IMAGES, small
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

from fulgurite.probes.representation import cache
from fulgurite.probes.representation.stages import Features, features, stages

LABELS = torch.arange(10) % 3


def counted(network: nn.Module) -> list[int]:
    """The sizes of the batches that go through it from now on."""
    sizes = []
    network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return sizes


def test_features_are_the_pooled_answers_in_eval_mode():
    network = small()
    found = features(network, (IMAGES, LABELS))
    network.eval()
    with torch.no_grad():
        first = network[:2](IMAGES).relu()
        second = network[3:6](first)
        assert_close(found.of["2"], first.mean((2, 3)))
        assert_close(found.of["5"], second.mean((2, 3)))
        assert_close(found.of["9"], network[:10](IMAGES))
    assert torch.equal(found.labels, LABELS)
    assert list(found.of) == ["2", "5", "9"]


def test_a_grid_keeps_some_of_where_things_are():
    network = small()
    found = features(network, (IMAGES, LABELS), ["2", "9"], grid=2).of
    assert found["2"].shape == (10, 16)
    whole = features(network, (IMAGES, LABELS), ["2", "9"]).of
    assert_close(found["2"].view(10, 4, 4).mean(2), whole["2"])
    assert torch.equal(found["9"], whole["9"])


def test_a_layer_before_a_relu_in_place_keeps_its_negative_values():
    found = features(small(), (IMAGES, LABELS), ["1", "2"]).of
    assert (found["1"] < 0).any()
    assert (found["2"] >= 0).all()


def test_one_pass_is_enough_for_all_layers():
    network = small()
    names = stages(network, IMAGES)
    sizes = counted(network)
    data = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4)
    features(network, data, names)
    assert sizes == [4, 4, 2]


def test_a_shuffling_loader_s_images_come_in_order_and_none_is_left_out():
    data = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4, shuffle=True, drop_last=True)
    expected = features(small(), (IMAGES, LABELS))
    found = features(small(), data)
    assert torch.equal(found.labels, LABELS)
    for layer, values in expected.of.items():
        assert_close(found.of[layer], values)
    assert_close(features(small(), data.dataset).of["9"], expected.of["9"])


@pytest.mark.parametrize(
    "sampler",
    [
        WeightedRandomSampler((LABELS == 2).float().tolist(), 30),
        RandomSampler(IMAGES, replacement=True, num_samples=30),
    ],
)
def test_a_user_sampler_is_not_changed(sampler):
    data = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4, sampler=sampler)
    labels = features(small(), data).labels
    assert len(labels) == 30
    assert isinstance(sampler, RandomSampler) or set(labels.tolist()) == {2}


def test_taking_features_changes_nothing():
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    features(network, DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4, shuffle=True))
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_rows_of_features_are_features():
    some = features(small(), (IMAGES, LABELS))[LABELS == 1]
    assert isinstance(some, Features)
    assert len(some) == 3
    assert all(len(values) == 3 for values in some.of.values())


def test_it_works_where_lightning_validates():
    network = small()
    with torch.inference_mode():
        inside = features(network, (IMAGES.clone(), LABELS))
    assert_close(inside.of["9"], features(network, (IMAGES, LABELS)).of["9"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": "2"}, "wanted a list of their paths"),
        ({"layers": []}, "wanted a list of their paths"),
        ({"layers": ["33"]}, "no layer '33'"),
        ({"grid": 0}, "grid=0"),
        ({"dtype": torch.bfloat16}, "wanted torch.float16"),
        ({"data": [IMAGES]}, "a batch that is a Tensor; wanted a pair"),
        ({"data": [(IMAGES, LABELS[:3])]}, r"labels torch.int64 \(3,\) for 10 images"),
        ({"data": [(IMAGES, LABELS / 2)]}, "labels torch.float32"),
        ({"data": []}, "no images to take features of"),
    ],
)
def test_what_has_no_features_is_reported(given, message):
    with pytest.raises(ValueError, match=message):
        features(small(), **{"data": (IMAGES, LABELS), **given})


def test_many_features_are_mapped_from_a_file_that_is_gone_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=3)
    held = features(small(), data, ["2", "5"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written, write = [], cache.write_cached
    monkeypatch.setattr(cache, "write_cached", lambda *args: written.append(args) or write(*args))
    whole = sum(own.nbytes for own in held.of.values())
    for most in (0, whole // 4, whole // 2):  # from the first batch on, or after some
        monkeypatch.setattr("fulgurite.probes.representation.stages.IN_MEMORY", most)
        found = features(small(), data, ["2", "5"])
        assert all(torch.equal(found.of[layer], held.of[layer]) for layer in held.of)
        assert torch.equal(found.labels, LABELS)
    assert len(written) == 3
    assert not list(tmp_path.iterdir())
