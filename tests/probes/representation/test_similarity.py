"""CKA and relative weight change: closed forms and invariances."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.representation.similarity import changes, cka, cka_from_grams, gram, weights_of
from fulgurite.probes.representation.stages import image_features


def drawn(count: int, size: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic(one: torch.Tensor, other: torch.Tensor) -> float:
    """Song et al. 2012, equation 5, entry by entry."""
    n = len(one)
    k, m = (
        [[float(a @ b) * (i != j) for j, b in enumerate(x)] for i, a in enumerate(x)] for x in (one, other)
    )
    every = range(n)
    trace = sum(k[i][j] * m[j][i] for i in every for j in every)
    sums = sum(k[i][j] for i in every for j in every) * sum(m[i][j] for i in every for j in every)
    chained = sum(k[a][b] * m[b][c] for a in every for b in every for c in every)
    return (trace + sums / ((n - 1) * (n - 2)) - 2 * chained / (n - 2)) / (n * (n - 3))


@pytest.mark.parametrize("sizes", [(2, 3), (20, 3), (30, 40)], ids=str)
def test_it_is_its_definition(sizes):
    one, other = (drawn(7, size, seed=size) for size in sizes)
    expected = hsic(one, other) / math.sqrt(hsic(one, one) * hsic(other, other))
    assert cka(one, other) == pytest.approx(expected, abs=1e-12)
    assert cka_from_grams(gram(one), gram(other)) == pytest.approx(expected, abs=1e-12)


def test_sums_over_images_say_the_same_as_all_pairs_of_them():
    one, other = drawn(200, 30), drawn(200, 20, seed=1) + drawn(200, 30)[:, :20]
    assert cka(one, other) == pytest.approx(cka_from_grams(gram(one), gram(other)), abs=1e-12)


@pytest.mark.parametrize("size", [5, 300])
def test_a_representation_is_like_itself_turned_scaled_and_shifted(size):
    features = drawn(60, size)
    turn = torch.linalg.qr(drawn(size, size, seed=1)).Q
    assert cka(features, features) == pytest.approx(1, abs=1e-6)
    assert cka(features, -7 * features @ turn + 3) == pytest.approx(1, abs=1e-6)
    assert cka(features, features * torch.linspace(0.1, 2, size)) < 0.99


def test_cka_of_independent_features_does_not_grow_with_their_number():
    several = [cka(drawn(128, 400, seed=2 * seed), drawn(128, 300, seed=2 * seed + 1)) for seed in range(10)]
    assert abs(sum(several) / len(several)) < 0.02
    assert max(map(abs, several)) < 0.02


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_single_precision_is_enough(offset):
    one = drawn(256, 64) + offset
    other = one[:, :32] + drawn(256, 32, seed=1)
    exact = cka(one, other)
    rounded = cka_from_grams(gram(one).float(), gram(other).float())
    assert rounded == pytest.approx(exact, abs=1e-5)
    if not offset:
        assert cka(one.float(), other.float()) == pytest.approx(exact, abs=1e-5)


def test_what_a_relu_does_in_place_does_not_reach_the_layer_before_it():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten())
    network.append(nn.Linear(8 * 100, 2))
    seen = image_features(network, torch.rand(32, 3, 12, 12), ["1", "2"], grid=4)
    assert cka(seen["1"], seen["1"]) == pytest.approx(1, abs=1e-6)
    assert cka(seen["1"], seen["2"]) < 0.99


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_what_is_the_same_for_all_images_is_like_nothing(value):
    assert math.isnan(cka(torch.full((9, 3), value), torch.rand(9, 3)))
    assert math.isnan(cka(torch.full((9, 20), value), torch.rand(9, 3)))


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (torch.rand(3, 2), torch.rand(3, 2), "at least 4"),
        (torch.rand(5, 2), torch.rand(6, 2), "5 and 6 images"),
        (torch.rand(5, 2), torch.full((5, 2), torch.nan), "features that are not finite in 5 of 5 images"),
    ],
)
def test_what_cannot_be_compared_is_reported(one, other, message):
    with pytest.raises(ValueError, match=message):
        cka(one, other)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


def test_a_layer_s_change_is_relative_to_where_it_began():
    network = small()
    start = weights_of(network)
    with torch.no_grad():
        network[0].weight.mul_(1.5)
        network[0].bias.mul_(1.5)
        network[1].weight.add_(1)
        network[3].bias.add_(torch.tensor([3.0, 4.0]))
    moved = changes(network, start)
    assert list(moved) == ["0", "3"]
    assert moved["0"] == pytest.approx(0.5)
    length = torch.cat([start["3.weight"].flatten(), start["3.bias"]]).norm()
    assert moved["3"] == pytest.approx(5 / float(length), rel=1e-6)


def test_a_state_dict_will_do_as_the_start():
    network = small()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    assert set(changes(network, state).values()) == {0.0}


def test_layers_are_named_as_ever_in_a_compiled_network():
    compiled = torch.compile(small(), backend="eager")
    assert list(changes(compiled, weights_of(small()))) == ["0", "3"]
    assert list(weights_of(compiled)) == ["0.weight", "0.bias", "3.weight", "3.bias"]


def test_a_layer_that_began_at_zero_is_infinitely_far_once_it_moves():
    network = small()
    for weight in network[3].parameters():
        nn.init.zeros_(weight)
    start = weights_of(network)
    assert changes(network, start)["3"] == 0
    with torch.no_grad():
        network[3].bias.add_(1)
    assert changes(network, start)["3"] == math.inf


def test_a_head_of_another_size_is_reported():
    network = small()
    start = weights_of(network)
    network[3] = nn.Linear(8, 5)
    with pytest.raises(ValueError, match=r"3.weight is \(5, 8\) now and was \(2, 8\) at the start"):
        changes(network, start)
    del start["3.weight"]
    with pytest.raises(ValueError, match="was missing at the start"):
        changes(network, start)


def test_copies_are_copies():
    network = small()
    start = weights_of(network)
    before = start["0.weight"].clone()
    with torch.no_grad():
        network[0].weight.zero_()
    assert_close(start["0.weight"], before)
