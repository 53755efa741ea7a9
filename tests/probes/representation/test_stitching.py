"""Stitching: known results for networks that differ by a permutation, a rotation or nothing."""

import copy

import digits_network
import pytest
import torch
from torch import Tensor, nn

from fulgurite.probes.predict import predict
from fulgurite.probes.representation.channel_maps import ChannelMap, MapSums, trained_map
from fulgurite.probes.representation.stitching import (
    FITTED,
    FROM_IDENTITY,
    MATCHED,
    NAIVE,
    TRAINED,
    resized,
    stitching,
)
from fulgurite.probes.untrained import untrained


def small(*, width: int = 6, stride: int = 1, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 6, 3, 2, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 3),
    ).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(96, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def labelled(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The images with the network's own predictions: its accuracy is 1."""
    logits = predict(network, images)
    return images, (logits - logits.mean(0)).argmax(1)


def biased(network: nn.Sequential, images: Tensor) -> nn.Sequential:
    """The network with another bias, so that all of its answers are given."""
    with torch.no_grad():
        network[-1].bias -= predict(network, images).mean(0)
    return network


def permuted(network: nn.Sequential, order: Tensor, scale: float = 1.0) -> nn.Sequential:
    """The same function, with the channels of the first layer in another order and scaled."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[0].weight.copy_(network[0].weight[order] * scale)
        other[0].bias.copy_(network[0].bias[order] * scale)
        other[2].weight.copy_(network[2].weight[:, order] / scale)
    return other


def test_a_network_is_stitched_to_itself_by_any_map(images: Tensor):
    network = biased(small(), images)
    data = labelled(network, images)
    found = stitching(network, network, data, data, layers=["1", "3", "5"], epochs=0, control=False)
    assert found.back.accuracy == found.front.accuracy == 1.0
    assert found.accuracies(NAIVE) == found.accuracies(FITTED) == [1.0] * 3
    assert found.accuracies(MATCHED) == [1.0] * 3


def test_permuted_channels_are_matched_and_the_identity_fails(images: Tensor):
    back = biased(small(), images)
    front, data = permuted(back, torch.tensor([3, 0, 5, 1, 2, 4]), scale=2.0), labelled(back, images)
    found = stitching(front, back, data, data, layers=["1"], epochs=0, control=False)
    assert found.front.accuracy == 1.0
    assert found.accuracies(MATCHED) == found.accuracies(FITTED) == [1.0]
    assert found.accuracies(NAIVE)[0] < 0.8


def test_least_squares_turns_channels_back(images: Tensor):
    """A rotation of what the second layer reads, before any ReLU, is undone by the map and by no matching."""
    torch.manual_seed(2)
    turn = torch.linalg.qr(torch.randn(6, 6)).Q
    back = biased(small(), images)
    front = copy.deepcopy(back)
    with torch.no_grad():
        front[0].weight.copy_(torch.einsum("ab,bchw->achw", turn, back[0].weight))
        front[0].bias.copy_(turn @ back[0].bias)
    data = labelled(back, images)
    found = stitching(front, back, data, data, layers=["0"], epochs=0, control=False)
    assert found.accuracies(FITTED)[0] > 0.97 > found.accuracies(MATCHED)[0]


def test_maps_of_other_sizes_are_resized_and_other_numbers_of_channels_fitted(images: Tensor):
    back = biased(small(), images)
    front, data = small(width=9, stride=2, seed=3), labelled(back, images)
    found = stitching(front, back, data, data, layers=["1"], epochs=2, control=True)
    assert found.accuracies(NAIVE)[0] != found.accuracies(NAIVE)[0]  # there is none
    assert found.accuracies(TRAINED)[0] > 1 / 3
    assert list(found.control) == [MATCHED, FITTED, TRAINED]
    head, row = found.table()
    assert row[:3] == ["1", "1", "nan"]
    assert len(head) == len(row)
    assert "untrained front, trained" in found.text()
    maps = torch.rand(1, 2, 4, 4)
    torch.testing.assert_close(resized(maps, (4, 4)), maps)
    assert resized(maps, (8, 2)).shape == (1, 2, 8, 2)


def test_a_map_may_begin_with_the_identity(images: Tensor):
    """With channels in order least squares finds the identity, so both starts end the same; else not."""
    back = biased(small(), images)
    data = labelled(back, images)
    usual = {"layers": ["1"], "epochs": 3, "identity_start": True}
    for front, same in ((back, True), (permuted(back, torch.tensor([3, 0, 5, 1, 2, 4]), scale=2.0), False)):
        found = stitching(front, back, data, data, **usual)
        begun = found.accuracies(FROM_IDENTITY)[0]
        assert (begun == pytest.approx(found.accuracies(TRAINED)[0], abs=0.02)) == same
        assert FROM_IDENTITY not in found.control
        assert list(found.stitched)[-1] == list(found.control)[-1] == TRAINED
    with pytest.raises(ValueError, match="identity_start with epochs=0"):
        stitching(back, back, data, data, **usual | {"epochs": 0})


def test_nothing_is_left_behind_and_nothing_changed(images: Tensor):
    front, back = small(seed=1), biased(small(), images)
    before = [own.clone() for net in (front, back) for own in net.parameters()]
    state = torch.get_rng_state()
    data = labelled(back, images)
    first, second = (stitching(front, back, data, data, layers=["1"], epochs=1) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    after = [own for net in (front, back) for own in net.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(own.grad is None for own in after)
    assert not any(part._forward_hooks for net in (front, back) for part in net.modules())


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([("5", "1")], "'5' outputs a row of values and '1' maps; wanted layers that both"),
        (["9"], "no layer '9'"),
        ("1", "wanted a list of paths"),
    ],
)
def test_what_cannot_be_stitched_is_one_sentence(layers, words: str, images: Tensor):
    data = labelled(small(), images)
    with pytest.raises(ValueError, match=words):
        stitching(small(), small(), data, data, layers=layers)


def test_images_without_classes_and_no_images_are_refused(images: Tensor):
    with pytest.raises(ValueError, match="images without class numbers"):
        stitching(small(), small(), images, images, layers=["1"])
    data = labelled(small(), images)
    with pytest.raises(ValueError, match="no images; wanted at least one"):
        stitching(small(), small(), data, tuple(own[:0] for own in data), layers=["1"])


def test_ridge_is_the_solution_of_the_normal_equations():
    torch.manual_seed(0)
    given, true = torch.randn(4, 3, 5, 5), ChannelMap(torch.randn(2, 3, 3, 3), torch.randn(2))
    wanted = true(given)
    sums = MapSums(3)
    for rows in (slice(0, 1), slice(1, 4)):
        sums.update(given[rows], wanted[rows])
    found = sums.ridge(1e-9)
    torch.testing.assert_close(found.weight, true.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.bias, true.bias, atol=1e-4, rtol=1e-4)


def test_training_a_map_lowers_its_loss():
    torch.manual_seed(0)
    given, wanted = torch.randn(8, 2, 3, 3), torch.randn(8, 2, 3, 3)
    start = ChannelMap(torch.eye(2)[..., None, None], torch.zeros(2))

    def loss(one: ChannelMap, values: Tensor, labels: Tensor) -> Tensor:
        return (one(values) - wanted[labels]).square().mean()

    batches = [(given, torch.arange(8))] * 10
    found = trained_map(start, loss, lambda _: batches, epochs=5, steps=10)
    assert loss(found, *batches[0]) < 0.9 * loss(start, *batches[0])
    assert torch.equal(start.weight[..., 0, 0], torch.eye(2))


def test_an_untrained_copy_is_another_network_with_the_same_normalisation():
    network = digits_network.network()
    network[1].running_mean += 1
    one, other = (untrained(network, seed=seed) for seed in (0, 1))
    assert torch.equal(one[1].running_mean, torch.zeros(8))
    assert not torch.equal(one[0].weight, other[0].weight)
    assert not torch.equal(one[0].weight, network[0].weight)


@pytest.mark.slow
def test_two_networks_of_digits_are_stitched_and_an_untrained_one_less():
    """`benchmarks/representation.py` has the figures of whole trainings, at every layer."""
    train, test = digits_network.digits()
    front, back = digits_network.trained_once(), digits_network.trained(seed=1, epochs=4)
    found = stitching(front, back, train, test, layers=["10", "18"], epochs=1)
    assert max(found.accuracies(NAIVE)) <= 0.25
    assert min(found.accuracies(FITTED)) >= 0.9
    assert min(found.accuracies(TRAINED)) >= 0.95
    assert min(found.gaps(FITTED)) > 0.1
