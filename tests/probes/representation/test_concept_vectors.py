"""Concept activation vectors against a network whose concepts are its channels."""

import pytest
import torch
from torch import nn

from fulgurite.probes.representation.concept_vectors import (
    concept_sensitivity,
    concept_vector,
    features_and_slopes,
)

CHANNELS = 24


class ByChannel(nn.Module):
    """The score of class 1 grows with the first channel, falls with the second, and depends on no other."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.eye(CHANNELS)[:, :, None, None])

    def forward(self, images):
        means = self.features(images).mean((2, 3))
        return torch.stack([torch.zeros_like(means[:, 0]), means[:, 0] ** 2 - means[:, 1] ** 2], 1)


def drawn(count: int, seed: int, channel: int | None = None) -> torch.Tensor:
    images = torch.rand(count, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(seed)) / 2
    if channel is not None:
        images[:, channel] += 0.5
    return images


def sensitivity(channel: int | None, **options):
    return concept_sensitivity(
        ByChannel(), drawn(30, 1), 1, drawn(40, 2, channel), drawn(100, 3), "features", **options
    )


@pytest.mark.parametrize(("channel", "expected"), [(0, 1.0), (1, 0.0)])
def test_a_concept_raises_or_lowers_the_score_in_every_image(channel, expected):
    found = sensitivity(channel)
    assert found.score == expected
    assert found.p_value == pytest.approx(1 / 101)
    assert found.accuracy == 1
    # the gradient is (1, -1, 0 ...) at equal means
    assert found.alignment == pytest.approx((2 * expected - 1) * 0.5**0.5, abs=0.1)
    assert (found.vectors[:, channel] > 0.95).all()
    assert torch.allclose(found.vectors.norm(dim=1), torch.ones(20).double())


@pytest.mark.parametrize("channel", [2, None])
def test_a_concept_that_does_not_count_is_as_good_as_chance(channel):
    found = sensitivity(channel)
    assert found.p_value > 0.05
    assert found.accuracy == (1 if channel == 2 else pytest.approx(0.5, abs=0.2))


def test_p_values_of_random_concepts_are_even():
    values = torch.tensor(
        [
            concept_sensitivity(
                ByChannel(), drawn(8, 1), 1, drawn(20, 100 + k), drawn(200, 3), "features", sets=2, draws=19
            ).p_value
            for k in range(20)
        ]
    )
    assert 0.3 < float(values.mean()) < 0.7
    assert float((values <= 0.05).double().mean()) <= 0.2


def test_the_derivative_is_along_all_positions_at_once():
    network, images = ByChannel().double(), drawn(4, 0).double()
    features, slopes = features_and_slopes(network, images, 1, "features")
    assert torch.allclose(features, images.mean((2, 3)))
    vector, step = torch.linspace(-1, 1, CHANNELS).double(), 1e-6
    moved = network(images + step * vector[:, None, None])[:, 1] - network(images)[:, 1]
    assert torch.allclose(slopes @ vector, moved / step, atol=1e-4)


def test_it_repeats_by_seed():
    assert torch.equal(*(sensitivity(2, sets=1, draws=19).chance for _ in range(2)))
    assert not torch.equal(
        sensitivity(2, sets=1, draws=19).vectors, sensitivity(2, seed=1, sets=1, draws=19).vectors
    )


def test_constant_features_have_no_direction():
    vector, accuracy = concept_vector(torch.ones(10, 4), torch.ones(10, 4))
    assert vector.isfinite().all()
    assert accuracy == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"concept": drawn(4, 0)}, "^4 images of the concept; wanted at least 5$"),
        ({"others": drawn(9, 0)}, "^9 random images; wanted at least 10$"),
        ({"sets": 0}, "0 sets"),
        ({"images": drawn(0, 0)}, "0 images of the class"),
        ({"draws": 18}, "18 draws of random images; wanted at least 19"),
        ({"layer": "featrues"}, "no layer 'featrues'"),
    ],
)
def test_bad_input_is_named(change, message):
    usual = {"images": drawn(5, 1), "concept": drawn(9, 2), "others": drawn(30, 3), "layer": "features"}
    with pytest.raises(ValueError, match=message):
        concept_sensitivity(ByChannel(), target=1, **(usual | change))
