"""Influence of training images against closed forms, and against retraining without them."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

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


def test_an_image_supports_its_own_class_and_other_classes_oppose_it():
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
        ({"images": torch.full_like(drawn(2, 0)[0], torch.nan)}, "gradients of 2 of 2 images that are not"),
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


@pytest.mark.filterwarnings("ignore")
def test_both_methods_are_those_of_dattri_without_projections(monkeypatch):
    algorithm = pytest.importorskip(
        "dattri.algorithm", reason="dattri is missing: python -m benchmarks.peers"
    )
    from dattri.algorithm import tracin, trak
    from dattri.task import AttributionTask

    for module in (trak, tracin):
        monkeypatch.setattr(module, "random_project", lambda *_, **__: lambda slopes, ensemble_id: slopes)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2)).eval()
    (images, labels), (asked, classes) = drawn(14, 5), drawn(3, 6)
    parts = [DataLoader(TensorDataset(*part), batch_size=5) for part in ((images, labels), (asked, classes))]

    def loss(parameters, pair):
        logits = torch.func.functional_call(network, parameters, pair[0][None])
        return nn.functional.cross_entropy(logits, pair[1][None])

    def margin(parameters, pair):
        share = torch.exp(-loss(parameters, pair))
        return torch.log(share) - torch.log(1 - share)

    def share(parameters, pair):
        return torch.exp(-loss(parameters, pair))

    gradients, _ = margin_gradients(network, images, labels)
    count = gradients.shape[1]
    strength = 0.5 * float(gradients.square().sum(0).mean()) / count  # theirs are divided by sqrt(count)
    theirs = algorithm.TRAKAttributor(
        AttributionTask(margin, network, network.state_dict()), share, regularization=strength
    )
    found = theirs.attribute(parts[1], parts[0]).T.double()
    ours = training_influence([network], (images, labels), asked, classes, dimension=None, ridge=0.5)
    torch.testing.assert_close(ours, found, rtol=1e-3, atol=1e-3 * float(found.abs().max()))
    task = AttributionTask(loss, network, network.state_dict(), target_func=margin)
    # a step on a training image goes against the slope of its loss
    theirs = algorithm.TracInAttributor(task, torch.tensor([-1.0]), normalized_grad=False)
    found = theirs.attribute(parts[0], parts[1]).T.double()
    ours = training_influence([network], (images, labels), asked, classes, method="tracin", dimension=None)
    torch.testing.assert_close(ours, found, rtol=1e-3, atol=1e-3 * float(found.abs().max()))
