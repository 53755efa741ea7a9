"""Silent units, sparsity and saturation: closed forms, independent of batches and processes."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from fulgurite.probes.activations.silent_units import (
    ActivityCounts,
    bounded,
    unit_activity,
)
from fulgurite.probes.feature_extractor import outputs

IMAGES = torch.rand(23, 3, 8, 8, generator=torch.Generator().manual_seed(0))
DEAD = [1, 4]


def with_dead_channels(activation: nn.Module | None = None) -> nn.Sequential:
    """A convolution whose channels 1 and 4 are below 0 for any image."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 6, 3)
    with torch.no_grad():
        convolution.weight.abs_()
        convolution.bias[:] = -0.7
        convolution.weight[DEAD] *= -1
        convolution.bias[DEAD] = -1.0
    parts = [convolution, activation or nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6 * 36, 3)]
    return nn.Sequential(*parts)


def test_dead_channels_are_found_and_no_others():
    found = unit_activity(with_dead_channels(), IMAGES, ["0", "1", ""])
    for layer in ("0", "1"):
        assert found[layer].silent.tolist() == DEAD
        assert found[layer].silent_share == pytest.approx(2 / 6)
    assert found["1"].images == 23
    assert found["1"].sparsity[DEAD].tolist() == [1.0, 1.0]
    assert found["0"].mean_sparsity == 0.0  # before the ReLU nothing is exactly 0
    assert found["0"].signed
    assert set(DEAD) <= set((found["0"].negative == 23).nonzero()[:, 0].tolist())
    assert not found["1"].signed
    assert found["1"].negative.tolist() == [0] * 6
    assert found[""].active.shape == (3,)


def test_shares_are_those_of_the_layers_output():
    network = with_dead_channels()
    expected = outputs(network, IMAGES, ["1"])["1"]
    found = unit_activity(network, TensorDataset(IMAGES), ["1"], batch_size=4)["1"]
    assert torch.equal(found.active, (expected > 0).flatten(2).any(2).sum(0))
    assert_close(found.sparsity, (expected == 0).double().mean((0, 2, 3)))
    assert 0 < found.mean_sparsity < 1
    assert found.saturation is None
    assert found.mean_saturation is None


def test_one_image_that_a_channel_responds_to_is_enough():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].bias[:] = torch.tensor([-0.9, -1.0])
    images = torch.zeros(300, 1, 4, 4)
    images[217, 0, 3, 1] = 0.95
    found = unit_activity(network, images, ["1"])["1"]
    assert found.active.tolist() == [1, 0]
    assert found.silent.tolist() == [1]
    assert found.sparsity.tolist() == pytest.approx([1 - 1 / (300 * 16), 1.0])


@pytest.mark.parametrize(
    ("activation", "values", "saturation"),
    [
        (nn.Sigmoid(), [-9.0, 0.0, 3.0, 9.0], 0.5),
        (nn.Tanh(), [-9.0, 0.0, 0.5, 0.6], 0.25),
        (nn.Hardtanh(), [-1.0, 0.999, -3.0, 0.0], 0.5),
        (nn.ReLU6(inplace=True), [-1.0, 5.99, 6.0, 8.0], 0.5),
        (nn.Hardsigmoid(), [-4.0, 0.0, 2.9, 4.0], 0.25),
        (nn.Sequential(nn.Identity(), nn.ReLU6()), [-1.0, 5.99, 6.0, 1.0], 0.25),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_saturation_is_the_share_at_a_bound(activation, values, saturation):
    network = nn.Sequential(nn.Conv2d(1, 1, 1), activation)
    with torch.no_grad():
        network[0].weight.fill_(20.0)
        network[0].bias.fill_(-10.0)
    images = ((torch.tensor(values) + 10) / 20).view(1, 1, 2, 2)
    found = unit_activity(network, images, ["0", "1"])
    assert found["1"].mean_saturation == saturation
    assert found["0"].saturation is None
    assert set(bounded(network, ["0", "1"])) == {"1"}


def test_two_kinds_of_bounds_keep_to_their_layers():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.ReLU6(), nn.Sigmoid())
    found = unit_activity(network, IMAGES, ["1", "3", "4"])
    for layer, at in {"1": 0.98, "3": 6.0, "4": 0.99}.items():
        values = outputs(network, IMAGES, [layer])[layer]
        expected = values >= at
        if layer != "3":
            expected |= values <= (-0.98 if layer == "1" else 0.01)
        assert_close(found[layer].saturation, expected.double().mean((0, 2, 3)))


def test_tokens_and_rows_have_their_channels_read():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, images):
            return self.head(self.tokens(images.flatten(2).transpose(1, 2)).relu().mean(1))

    network = Tokens()
    with torch.no_grad():
        network.tokens.weight.fill_(-1.0)
        network.tokens.bias[:] = torch.tensor([9.0, 0, 9, -1])
    found = unit_activity(network, IMAGES, ["tokens", "head"])
    assert found["tokens"].silent.tolist() == [1, 3]
    assert found["head"].active.shape == (2,)


@pytest.mark.parametrize("size", [1, 5, 23])
def test_ranks_and_batches_give_what_one_pass_does(size: int):
    network = with_dead_channels(nn.ReLU6())
    whole = unit_activity(network, IMAGES, ["1"])["1"]
    total = ActivityCounts(["1"])
    for rank in range(3):
        own = ActivityCounts()
        padded = [*range(rank, 23, 3), *([0] if rank == 2 else [])]  # as samplers do
        unit_activity(network, IMAGES, ["1"], ids=padded, batch_size=size, counts=own)
        travelled = ActivityCounts()
        travelled.load_state_dict(own.state_dict())
        total.merge(travelled)
    found = total.activity()["1"]
    assert found.images == 23
    assert torch.equal(found.active, whole.active)
    assert_close(found.sparsity, whole.sparsity, rtol=0, atol=1e-12)
    assert_close(found.saturation, whole.saturation, rtol=0, atol=1e-12)


def test_what_is_kept_does_not_grow_with_the_images():
    network = with_dead_channels()
    sizes = []
    for count in (2, 20):
        counts = ActivityCounts()
        found = unit_activity(network, (IMAGES for _ in range(count)), ["1"], counts=counts)
        state = counts.state_dict()
        assert found["1"].images == 23 * count
        sizes.append(sum(value.numel() for key, value in state.items() if key != "seen"))
    assert sizes[0] == sizes[1]


def test_what_cannot_be_counted_is_reported_in_a_sentence():
    network = with_dead_channels()
    with pytest.raises(ValueError, match="no layer 'conv' in Sequential"):
        unit_activity(network, IMAGES, ["conv"])
    with pytest.raises(ValueError, match="no images; wanted at least one"):
        unit_activity(network, IMAGES[:0], ["0"])
    with torch.no_grad():
        network[0].weight[2] = torch.nan
    with pytest.raises(ValueError, match="activations of '1' that are not finite"):
        unit_activity(network, IMAGES, ["1"])
