"""Occlusion maps of linear networks by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fulgurite.probes import batches
from fulgurite.probes.attribution import perturbations
from fulgurite.probes.attribution.occlusion import occlusion
from fulgurite.probes.objectives import class_score, probability, unit
from fulgurite.probes.task_objectives import output

IMAGES = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(216, 4))


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 4),
    )


class Summing(nn.Module):
    """The score is the sum of what weighs."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, images):
        return (images * self.weights).sum((1, 2, 3))[:, None]


class Rows(nn.Module):
    """Captum's BasicModel_MultiLayer."""

    def __init__(self):
        super().__init__()
        self.inner = torch.tensor([-10.0, 1.0, 1.0, 1.0])

    def forward(self, images):
        inner = F.relu(images.flatten(1).sum(1, keepdim=True) + self.inner)
        return inner.sum(1, keepdim=True) + torch.tensor([-1.0, 1.0])


class OneConvolution(nn.Module):
    """Captum's BasicModel_ConvNet_One_Conv on the image and one more."""

    def forward(self, images):
        maps = F.conv2d(images + 1, torch.ones(2, 1, 3, 3), torch.tensor([-50.0, -75.0]))
        signs = torch.tensor([1.0] * 5 + [-1.0] * 3)
        return F.relu(F.relu(maps).flatten(1) @ signs)[:, None]


def windows(size, window, stride):
    for top in range(0, size[0] - window[0] + stride[0], stride[0]):
        for left in range(0, size[1] - window[1] + stride[1], stride[1]):
            yield slice(top, top + window[0]), slice(left, left + window[1])


@pytest.mark.parametrize(
    ("window", "stride"),
    [(1, 1), (3, 1), (3, 3), (4, 3), ((2, 5), (2, 3)), ((9, 8), (9, 8)), ((9, 8), 1)],
    ids=str,
)
def test_on_a_linear_network_a_window_hides_the_sum_of_what_it_holds(window, stride):
    network, classes, fill = linear(), torch.tensor([2, 0]), 0.3
    row = network[1].weight[classes].detach().view(2, 3, 9, 8)
    held = (row * (IMAGES - fill)).sum(1, keepdim=True)
    total, count = torch.zeros(2, 1, 9, 8), torch.zeros(9, 8)
    pairs = [value if isinstance(value, tuple) else (value, value) for value in (window, stride)]
    for rows, columns in windows((9, 8), *pairs):
        total[:, :, rows, columns] += held[:, :, rows, columns].sum((2, 3), keepdim=True)
        count[rows, columns] += 1
    assert count.min() > 0
    ours = occlusion(network, IMAGES, class_score(classes), window=window, stride=stride, fill=fill)
    assert_close(ours, total / count, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fill", [0.0, 1, "grey", "mean", "blur"])
@pytest.mark.parametrize(("window", "stride"), [(3, 2), ((4, 2), (3, 1))], ids=str)
def test_it_is_what_a_plain_loop_gives(fill, window, stride):
    network, classes = convolutional().eval(), torch.tensor([2, 0])
    hidden = perturbations.filling(IMAGES, fill)
    total, count = torch.zeros(2, 1, 9, 8), torch.zeros(9, 8)
    pairs = [value if isinstance(value, tuple) else (value, value) for value in (window, stride)]
    for rows, columns in windows((9, 8), *pairs):
        altered = IMAGES.clone()
        altered[:, :, rows, columns] = hidden[:, :, rows, columns]
        with torch.no_grad():
            fall = (network(IMAGES) - network(altered))[torch.arange(2), classes]
        total[:, :, rows, columns] += fall[:, None, None, None]
        count[rows, columns] += 1
    ours = occlusion(network, IMAGES, class_score(classes), window=window, stride=stride, fill=fill)
    assert_close(ours, total / count, rtol=1e-4, atol=1e-6)


def test_what_it_is_hidden_behind():
    assert torch.equal(perturbations.filling(IMAGES, "grey"), torch.full_like(IMAGES, 0.5))
    assert_close(perturbations.filling(IMAGES, "mean")[1, 2, 3, 4], IMAGES[1, 2].mean())
    flat = torch.full((1, 3, 9, 8), 0.3)
    assert_close(perturbations.filling(flat, "blur"), flat)
    blurred = perturbations.filling(IMAGES, "blur")
    assert (blurred.std((2, 3)) < IMAGES.std((2, 3))).all()
    for side in (1, 2, 3, 5):
        assert perturbations.filling(IMAGES[..., :side, :], "blur").shape == (2, 3, side, 8)
    with pytest.raises(Exception, match="noise"):
        perturbations.filling(IMAGES, "noise")


@pytest.mark.parametrize(("stride", "row"), [(3, [3, 3, 3]), (1, [3, 1.5, 1])])
def test_windows_do_not_roll_round_the_image(stride, row):
    weights = torch.zeros(9, 8)
    weights[:, 0] = 1
    ours = occlusion(Summing(weights), torch.ones(1, 1, 9, 8), output(0), window=3, stride=stride, fill=0)
    assert ours[0, 0].tolist() == [[*row, 0, 0, 0, 0, 0]] * 9


@pytest.mark.parametrize(
    ("window", "stride", "fill", "published"),
    [
        ((1, 1), (1, 1), 0.0, [80, 200, 120]),
        ((1, 2), (1, 1), 10.0, [200, 220, 240]),
        ((1, 2), (1, 2), 0.0, [280, 280, 120]),
    ],
)
def test_captums_published_values(window, stride, fill, published):
    images = torch.tensor([20.0, 50.0, 30.0]).view(1, 1, 1, 3)
    ours = occlusion(Rows(), images, output(0), window=window, stride=stride, fill=fill)
    assert ours.flatten().tolist() == published


def test_captums_published_values_of_two_images():
    images = torch.tensor([[2.0, 10.0, 3.0], [20.0, 50.0, 30.0]]).view(2, 1, 1, 3)
    ours = occlusion(Rows(), images, output(0), window=1, stride=1, fill=0)
    assert ours.flatten(1).tolist() == [[8, 35, 12], [80, 200, 120]]


def test_captums_published_values_of_a_convolution():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    ours = occlusion(OneConvolution(), images, output(0), window=(2, 3), stride=(2, 1), fill=0)
    assert ours[0, 0].tolist() == [[17] * 4] * 2 + [[64, 65.5, 65.5, 67]] * 2
    whole = occlusion(OneConvolution(), images, output(0), window=4, stride=4, fill=0)
    assert whole.unique().tolist() == [67]


def test_xpliques_published_values():
    """Of a network that scores 1 the image as it is, and 1, 0, 10 and -1 the image with a pixel hidden."""

    class Scores(nn.Module):
        def forward(self, images):
            hidden = 1 - images.flatten(1)
            return 1 + hidden @ torch.tensor([0.0, -1.0, 9.0, -2.0])[:, None]

    ours = occlusion(Scores(), torch.ones(1, 1, 2, 2), output(0), window=1, stride=1, fill=0)
    assert ours.flatten().tolist() == [0, 1, -9, 2]


@pytest.mark.parametrize(("window", "stride"), [(2, 1), ((3, 2), (2, 2)), (4, 3)], ids=str)
def test_captum_agrees(window, stride, captum):
    network = convolutional().eval()
    (high, wide), (down, across) = (
        value if isinstance(value, tuple) else (value, value) for value in (window, stride)
    )
    theirs = captum(
        "Occlusion",
        network,
        inputs=IMAGES,
        target=1,
        sliding_window_shapes=(3, high, wide),
        strides=(3, down, across),
        baselines=0.5,
    )
    ours = occlusion(network, IMAGES, class_score(1), window=window, stride=stride)
    assert_close(ours.expand(-1, 3, -1, -1), theirs.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("most", [1, 3, 7, 1000])
def test_it_does_not_matter_how_many_are_looked_at_together(most, monkeypatch):
    asked = [probability(torch.tensor([2, 0])), class_score(1), unit("0", 2)]
    expected = occlusion(convolutional(), IMAGES, asked, window=3)
    monkeypatch.setattr(batches, "MOST", most)
    assert_close(occlusion(convolutional(), IMAGES, asked, window=3), expected, rtol=1e-4, atol=1e-6)


def test_the_window_is_an_eighth_of_the_side_and_moves_by_half():
    images = torch.rand(1, 3, 32, 16)
    expected = occlusion(Summing(torch.ones(32, 16)), images, output(0), window=(4, 2), stride=(2, 1))
    assert torch.equal(occlusion(Summing(torch.ones(32, 16)), images, output(0)), expected)
    assert occlusion(Summing(torch.ones(3, 3)), torch.rand(1, 1, 3, 3), output(0)).shape == (1, 1, 3, 3)


@pytest.mark.parametrize(
    "wrong",
    [{"window": 0}, {"window": (10, 2)}, {"window": (2, 9)}, {"window": 3, "stride": 4}, {"stride": 0}],
    ids=str,
)
def test_windows_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted a window no larger than the image"):
        occlusion(linear(), IMAGES, output(0), **wrong)


def test_the_images_are_not_written_to():
    images = IMAGES.clone()
    occlusion(convolutional(), images, output(0), window=3)
    assert torch.equal(images, IMAGES)
    occlusion(convolutional(), IMAGES[:1].expand(2, -1, -1, -1), output(0), window=3, fill="mean")
    assert torch.equal(images, IMAGES)


def test_a_deep_network_runs_only_as_far_as_it_is_asked():
    calls = []
    network = convolutional()
    network[3].register_forward_hook(lambda *_: calls.append(1))
    occlusion(network, IMAGES, unit("0", 1), window=3)
    assert not calls
