"""Networks of any precision in `frozen_eval`: float32 in and out, float64 where it is asked for."""

import pytest
import torch
from torch import nn

from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.frozen_eval import device_of, dtype_of, frozen_eval
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_any_precision_takes_and_gives_float32(dtype):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).to(dtype)
    expected = network(IMAGES.to(dtype)).float()
    with frozen_eval(network) as net:
        logits = net(IMAGES)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, expected)
    assert gradient(network, IMAGES, class_score(0)).dtype == torch.float32


def test_a_network_in_float64_answers_images_in_float64_in_float64():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).double()
    with frozen_eval(network) as net, frozen_eval(net) as net:
        assert torch.equal(net(IMAGES.double()), network(IMAGES.double()))
        assert net(IMAGES).dtype == torch.float32
    assert gradient(network, IMAGES.double(), class_score(0)).dtype == torch.float64
    assert gradient(network.float(), IMAGES.double(), class_score(0)).dtype == torch.float64


def test_a_network_without_parameters_counts_as_a_float32_one_on_the_cpu():
    network = nn.Flatten()
    assert (device_of(network), dtype_of(network)) == (torch.device("cpu"), torch.float32)
    assert torch.equal(predict(network, IMAGES), IMAGES.flatten(1))
