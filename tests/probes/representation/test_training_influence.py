"""Influence of training images against closed forms, and against retraining without them."""

import pytest
import torch
from torch import Tensor, nn

from fulgurite.probes.representation.training_influence import (
    margin_gradients,
    strongest,
    training_influence,
)


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.rand(count, 1, 2, 3, generator=generator)
    images[:, 0, 0, 0] = (images[:, 0, 0, 0] + labels) / 2
    return images, labels


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 2))


def fitted(images: Tensor, labels: Tensor, weights: Tensor) -> nn.Sequential:
    """Logistic regression to the end."""
    network = linear()
    steps = torch.optim.LBFGS(
        network.parameters(), max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        steps.zero_grad()
        each = nn.functional.cross_entropy(network(images), labels, reduction="none")
        value = (each * weights).sum() + 0.05 * sum((one**2).sum() for one in network.parameters())
        value.backward()
        return value

    steps.step(loss)
    return network.eval()


def test_the_gradient_of_a_margin_is_that_of_autograd():
    images, labels = drawn(5, 0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4, 3)
    )
    gradients, residuals = margin_gradients(network.eval(), images, labels)
    for place in range(5):
        network.zero_grad()
        shares = network(images[place : place + 1]).softmax(1)[0, labels[place]]
        (shares / (1 - shares)).log().backward()
        own = torch.cat([one.grad.flatten() for one in network.parameters()])
        torch.testing.assert_close(gradients[place].float(), own, rtol=1e-4, atol=1e-5)
        assert float(residuals[place]) == pytest.approx(1 - float(shares.detach()), abs=1e-5)
    assert not network.training


def test_it_ranks_training_images_as_leaving_each_out_does():
    images, labels = drawn(24, 1)
    asked, classes = drawn(4, 2)
    whole = fitted(images, labels, torch.ones(24))
    found = training_influence([whole], (images, labels), asked, classes, dimension=None, ridge=0.1)

    def margins(network: nn.Module) -> Tensor:
        logits = network(asked).detach()
        return (logits[:, 1] - logits[:, 0]) * (2 * classes - 1)

    left_out = torch.stack(
        [
            margins(whole) - margins(fitted(images, labels, (torch.arange(24) != k).float()))
            for k in range(24)
        ],
        1,
    )
    alike = [
        float(torch.corrcoef(torch.stack([own, true.double()]))[0, 1])
        for own, true in zip(found, left_out, strict=True)
    ]
    assert sum(alike) / len(alike) > 0.85
    assert min(alike) > 0.7


@pytest.mark.slow
def test_a_sketch_keeps_products_on_average():
    images, labels = drawn(6, 3)
    network = linear().eval()
    exact = training_influence([network], (images, labels), images, labels, method="tracin", dimension=None)
    seeds = [
        training_influence(
            [network], (images, labels), images, labels, method="tracin", dimension=8, seed=seed
        )
        for seed in range(300)
    ]
    torch.testing.assert_close(torch.stack(seeds).mean(0), exact, rtol=0.2, atol=0.1)
    again = training_influence(
        [network], (images, labels), images, labels, method="tracin", dimension=8, seed=0
    )
    assert torch.equal(seeds[0], again)


def test_the_image_itself_speaks_for_its_class_and_others_against_it():
    images, labels = drawn(12, 4)
    found = training_influence([linear().eval()], (images, labels), images, labels, dimension=None)
    assert (found.diagonal() > 0).all()
    ((most, least),) = strongest(found[:1], 2)
    assert found[0, most[0]] == found[0].max()
    assert found[0, least[0]] == found[0].min()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": []}, "0 networks"),
        ({"dimension": 0}, "dimension=0"),
        ({"ridge": 0.0}, "ridge=0.0"),
        ({"classes": torch.tensor([0, 2])}, "wanted one of 0 to 1 each"),
    ],
)
def test_bad_input_is_named(change, message):
    images, labels = drawn(4, 0)
    usual = {
        "networks": [linear().eval()],
        "training": (images, labels),
        "images": images[:2],
        "classes": labels[:2],
    }
    with pytest.raises(ValueError, match=message):
        training_influence(**(usual | change))
