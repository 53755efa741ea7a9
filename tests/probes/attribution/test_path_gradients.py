"""SmoothGrad and integrated gradients: closed forms, completeness, seeds."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fulgurite.probes import batches
from fulgurite.probes.attribution.gradient import gradient, input_x_gradient
from fulgurite.probes.attribution.path_gradients import completeness_error, integrated_gradients, smoothgrad
from fulgurite.probes.counter_random import normal
from fulgurite.probes.objectives import class_score, log_probability, probability, unit
from fulgurite.probes.task_objectives import output

IMAGES = torch.rand(3, 2, 6, 5, generator=torch.Generator().manual_seed(0))
SMOOTH = log_probability(1)


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(60, 4))


def curved() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(48, 4)
    ).train()


def homogeneous() -> nn.Sequential:
    """ReLUs and max-pooling without biases: a brighter image has a score as much larger."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 8, bias=False),
        nn.ReLU(),
        nn.Linear(8, 4, bias=False),
    )


class Function(nn.Module):
    """One of the functions of captum's tests, of images of a row of pixels."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(*images.flatten(1).unbind(1))[:, None]


def test_on_a_linear_network_noise_does_not_matter():
    network = linear()
    smooth = smoothgrad(network, IMAGES, class_score(2), draws=7, spread=0.5)
    assert_close(smooth.flatten(1), network[1].weight[2].expand(3, -1).detach())


def test_without_noise_there_is_nothing_to_average():
    assert_close(smoothgrad(curved(), IMAGES, SMOOTH, draws=3, spread=0), gradient(curved(), IMAGES, SMOOTH))


def test_smoothgrad_is_the_mean_of_gradients_at_noisy_images():
    noise = normal(4, torch.arange(5), 2, 6, 5)
    slow = torch.stack([gradient(curved(), IMAGES + 0.2 * each, SMOOTH) for each in noise]).mean(0)
    assert_close(
        smoothgrad(curved(), IMAGES, SMOOTH, draws=5, spread=0.2, seed=4), slow, rtol=1e-4, atol=1e-6
    )


def test_the_noise_is_as_strong_as_asked():
    """The mean gradient of half a sum of squares is the mean noisy image; of cubes, it shows the spread."""
    squares = nn.Sequential(Power(2), nn.Flatten(), Sum())
    draws = 4000
    found = smoothgrad(squares, IMAGES[:1], output(0), draws=draws, spread=0.3)
    error = (found / 2 - IMAGES[:1]) / (0.3 / draws**0.5)
    assert 0.6 < error.std() < 1.4
    cubes = nn.Sequential(Power(3), nn.Flatten(), Sum())
    found = smoothgrad(cubes, IMAGES[:1], output(0), draws=draws, spread=0.3)
    assert_close(found / 3, IMAGES[:1] ** 2 + 0.3**2, rtol=0, atol=0.05)


class Power(nn.Module):
    def __init__(self, exponent):
        super().__init__()
        self.exponent = exponent

    def forward(self, images):
        return images**self.exponent


class Sum(nn.Module):
    def forward(self, rows):
        return rows.sum(1, keepdim=True)


def test_a_seed_is_a_draw_and_all_images_see_the_same_noise():
    once, again, other = (smoothgrad(curved(), IMAGES, SMOOTH, draws=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.allclose(once, other)
    same = smoothgrad(curved(), IMAGES[:1].expand(3, -1, -1, -1), SMOOTH, draws=3)
    assert_close(same[0], same[2])


def test_on_a_linear_network_the_integral_is_weights_times_pixels():
    network, baseline = linear(), torch.rand(2, 6, 5)
    row = network[1].weight[2].detach().view(2, 6, 5)
    for steps in (1, 2, 50):
        assert_close(integrated_gradients(network, IMAGES, class_score(2), steps=steps), row * IMAGES)
        found = integrated_gradients(network, IMAGES, class_score(2), steps=steps, baseline=baseline)
        assert_close(found, row * (IMAGES - baseline))


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_without_biases_the_integral_is_the_pixels_times_the_gradient(steps):
    found = integrated_gradients(homogeneous(), IMAGES, class_score(1), steps=steps)
    assert found.abs().max() > 0
    assert_close(found, input_x_gradient(homogeneous(), IMAGES, class_score(1)), rtol=1e-4, atol=1e-6)


def test_the_integral_is_what_many_small_steps_give():
    small = (torch.arange(200) + 0.5) / 200
    slopes = sum(gradient(curved(), IMAGES * share, SMOOTH) for share in small.tolist()) / len(small)
    assert_close(
        integrated_gradients(curved(), IMAGES, SMOOTH, steps=20), IMAGES * slopes, rtol=1e-3, atol=1e-5
    )


def test_a_map_sums_to_the_difference_the_more_nearly_the_more_steps():
    network, image = curved(), 20 * IMAGES[:1]  # so bright that one step is too few
    errors = [
        completeness_error(network, image, SMOOTH, integrated_gradients(network, image, SMOOTH, steps=steps))
        for steps in (1, 3, 40)
    ]
    one, three, many = (error.abs().item() for error in errors)
    assert one > 3 * three > 0
    assert three > 10 * many
    assert many < 1e-3


def test_the_error_is_the_maps_sum_less_the_difference_of_scores():
    network, baseline = curved().eval(), torch.rand(3, 2, 6, 5)
    classes = torch.tensor([2, 0, 1])
    maps = torch.rand(3, 2, 6, 5)
    rows = torch.arange(3)
    difference = network(IMAGES)[rows, classes] - network(baseline)[rows, classes]
    expected = maps.sum((1, 2, 3)) - difference.detach()
    assert_close(completeness_error(network, IMAGES, class_score(classes), maps, baseline=baseline), expected)
    two = [class_score(classes), output(0)]
    assert completeness_error(network, IMAGES, two, torch.stack([maps, maps])).shape == (2, 3)


def test_there_and_back_is_the_same_way():
    there = integrated_gradients(curved(), IMAGES, SMOOTH, baseline=1 - IMAGES)
    back = integrated_gradients(curved(), 1 - IMAGES, SMOOTH, baseline=IMAGES)
    assert_close(there, -back, rtol=1e-4, atol=1e-6)


def test_a_baseline_is_a_level_an_image_or_an_image_for_each():
    level = integrated_gradients(curved(), IMAGES, SMOOTH, baseline=0.5)
    for same in (torch.full((2, 6, 5), 0.5), torch.full((3, 2, 6, 5), 0.5)):
        assert torch.equal(integrated_gradients(curved(), IMAGES, SMOOTH, baseline=same), level)
    assert not integrated_gradients(curved(), IMAGES, SMOOTH, baseline=IMAGES).any()


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: F.relu(F.relu(x) - 1 - F.relu(y)),
        lambda x, y: F.relu(F.relu(x - 1) - F.relu(y)),
    ],
    ids=["BasicModel2", "BasicModel3"],
)
def test_captums_published_values(function):
    image = torch.tensor([3.0, 1.0]).view(1, 1, 1, 2)
    found = integrated_gradients(Function(function), image, output(0), steps=1500)
    assert_close(found.flatten(), torch.tensor([1.5, -0.5]), rtol=0, atol=0.01)


@pytest.mark.parametrize("pixel", [1.0, 0.0, -1.0])
def test_captums_function_of_one_pixel_is_complete(pixel):
    image = torch.full((1, 1, 1, 1), pixel)
    network = Function(lambda x: 1 - F.relu(1 - x))
    found = integrated_gradients(network, image, output(0))
    assert_close(found.item(), min(pixel, 1.0), rtol=0, atol=0.01)
    assert completeness_error(network, image, output(0), found).abs() < 0.01


@pytest.mark.parametrize("network", [curved().eval(), homogeneous()], ids=["curved", "homogeneous"])
def test_captum_integrates_to_the_same(network, captum):
    baseline = torch.rand(3, 2, 6, 5, generator=torch.Generator().manual_seed(2))
    theirs = captum("IntegratedGradients", network, inputs=IMAGES, baselines=baseline, target=1, n_steps=30)
    ours = integrated_gradients(network, IMAGES, class_score(1), baseline=baseline, steps=30)
    assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-6)


METHODS = {
    "smoothgrad": lambda *asked: smoothgrad(*asked, draws=5),
    "integrated_gradients": lambda *asked: integrated_gradients(*asked, steps=5),
}


@pytest.mark.parametrize("most", [1, 2, 4, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_it_does_not_matter_how_many_are_looked_at_together(method, most, monkeypatch):
    asked = [probability(torch.tensor([2, 0, 1])), class_score(1), unit("0", 2)]
    expected = METHODS[method](curved(), IMAGES, asked)
    monkeypatch.setattr(batches, "MOST", most)
    assert_close(METHODS[method](curved(), IMAGES, asked), expected, rtol=1e-4, atol=1e-6)


def test_fewer_large_images_are_looked_at_together(monkeypatch):
    sizes = []
    network = linear()
    network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(batches, "PIXELS", 7 * 30)
    smoothgrad(network, IMAGES, output(0), draws=5)
    assert sizes == [7, 7, 1]


@pytest.mark.parametrize("method", METHODS)
def test_no_graph_outlives_its_part(method, monkeypatch):
    """Memory is that of a part: each part's pixels are freed before the part after the next one."""
    import weakref

    monkeypatch.setattr(batches, "MOST", 2)
    alive, most, network = [], [], linear()

    def watch(_, args):
        alive.append(weakref.ref(args[0]))
        most.append(sum(each() is not None for each in alive))

    network.register_forward_pre_hook(watch)
    METHODS[method](network, IMAGES, output(0))
    assert len(most) == 8
    assert max(most) <= 2


@pytest.mark.parametrize(
    "wrong", [{"draws": 0}, {"spread": -0.1}, {"steps": 0}], ids=lambda wrong: next(iter(wrong))
)
def test_settings_that_mean_nothing_are_refused(wrong):
    method = integrated_gradients if "steps" in wrong else smoothgrad
    with pytest.raises(ValueError, match="at least 1"):
        method(linear(), IMAGES, output(0), **wrong)


def test_nothing_is_printed_unless_asked(capsys):
    smoothgrad(linear(), IMAGES, output(0), draws=2)
    assert capsys.readouterr() == ("", "")
