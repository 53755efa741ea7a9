"""CKA between all layers of two networks: equal to that of all products, with constant or in-place layers."""

import pytest
import torch
from torch import Tensor, nn

from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.representation.layer_cka import layer_cka
from fulgurite.probes.representation.similarity import cka


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5)
    ).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_one_batch_of_all_images_gives_cka_layer_by_layer(images: Tensor):
    one, other, layers = network(), network(1), ["0", "1", "2", "4"]
    found = layer_cka(one, other, images, layers=layers, batch_size=64)
    first, second = (outputs(net, images, layers) for net in (one, other))
    wanted = torch.tensor(
        [[cka(first[row].flatten(1), second[column].flatten(1)) for column in layers] for row in layers]
    )
    torch.testing.assert_close(found.matrix.float(), wanted, atol=1e-5, rtol=0)
    assert found.count == 40


def test_large_means_cost_no_digits(images: Tensor):
    one, other = network(), network(1)
    found = layer_cka(one, other, images, layers=["0"], batch_size=64).matrix
    for net in (one, other):
        with torch.no_grad():
            net[0].bias += 50  # which CKA does not see
    shifted = layer_cka(one, other, images, layers=["0"], batch_size=64).matrix
    torch.testing.assert_close(shifted, found, atol=1e-5, rtol=0)


def test_a_network_with_itself_is_1_on_the_diagonal_and_an_in_place_relu_is_another_layer(images: Tensor):
    found = layer_cka(network(), None, images, layers=["0", "1", "2"], batch_size=16)
    torch.testing.assert_close(found.diagonal, torch.ones(3).double(), atol=1e-6, rtol=0)
    assert float(found.matrix[1, 2]) < 0.99
    assert torch.equal(found.matrix, found.matrix.T)


def test_unrelated_features_are_about_0_also_in_small_batches():
    """The biased estimate of as many features shows 0.9."""
    torch.manual_seed(0)
    one, other = (nn.Sequential(nn.Flatten(), nn.Linear(128, 100, bias=False)) for _ in range(2))
    with torch.no_grad():
        one[1].weight[:, 64:] = 0
        other[1].weight[:, :64] = 0
    images = torch.rand(512, 2, 8, 8)
    found = layer_cka(one, other, images, layers=["1"], batch_size=16)
    assert abs(float(found.matrix)) < 0.02


def test_constant_features_are_nan_and_other_layers_are_not(images: Tensor):
    still = network()
    with torch.no_grad():
        still[0].weight.zero_()
    found = layer_cka(network(), still, images, layers=["0", "2"])
    assert bool(found.matrix.isnan().all())


def test_layers_of_another_architecture_are_its_stages(images: Tensor):
    other = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 5))
    found = layer_cka(network(), other, images)
    assert found.rows == ("2",)
    assert found.columns == ("1",)


def test_too_few_images_and_a_layer_that_does_not_run_are_one_sentence(images: Tensor):
    with pytest.raises(ValueError, match="fewer than 4 images"):
        layer_cka(network(), None, images[:3], layers=["0"])
    with pytest.raises(ValueError, match="batch_size=3; wanted at least 4"):
        layer_cka(network(), None, images, batch_size=3)
    with pytest.raises(ValueError, match="no layer '9'"):
        layer_cka(network(), None, images, layers=["9"])
    with pytest.raises(ValueError, match="no images; wanted at least one"):
        layer_cka(network(), None, images[:0])
    for layers in ("0", []):
        with pytest.raises(ValueError, match="wanted a list of their paths, or None"):
            layer_cka(network(), None, images, layers=layers)
