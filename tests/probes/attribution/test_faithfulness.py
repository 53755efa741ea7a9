"""Insertion, deletion and infidelity: closed forms on linear networks, and what peers publish."""

import pytest
import torch
from documentation import DOCS
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.faithfulness import Curves, area, curve, curves, infidelity, shares
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.objectives import class_score
from fulgurite.probes.task_objectives import output

ONES = torch.ones(1, 1, 2, 2)
WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1])


def weighing(weights: torch.Tensor) -> nn.Sequential:
    network = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), 1, bias=False))
    network[1].weight.data = weights[None].clone()
    return network


def test_the_curves_and_areas_that_torch_cam_publishes():
    reported = {"deletion": ([1, 0.3, 0], 0.4), "insertion": ([0, 0.7, 1], 0.6)}
    for way, (expected, under) in reported.items():
        found = curve(weighing(WEIGHTS), ONES, output(0), WEIGHTS.view(1, 1, 2, 2), mode=way, steps=2)
        assert_close(found, torch.tensor([expected], dtype=torch.float32))
        assert_close(area(found), torch.tensor([under]))


def test_and_those_for_pixels_that_steps_do_not_divide():
    weights = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1])
    maps = {"": weights.view(1, 1, 1, 5)}
    found = curves(weighing(weights), torch.ones(1, 1, 1, 5), output(0), maps, steps=3)[""]
    assert_close(found.shares, torch.tensor([0.0, 0.4, 0.8, 1.0]))
    assert_close(found.deletion, torch.tensor([[1.0, 0.45, 0.1, 0.0]]))
    assert_close(found.insertion, torch.tensor([[0.0, 0.55, 0.9, 1.0]]))
    assert_close(found.deletion_area, torch.tensor([0.41]))
    assert_close(found.insertion_area, torch.tensor([0.59]))


@pytest.mark.parametrize(("weights", "steps"), [(WEIGHTS, 2), ([0.3, 0.25, 0.2, 0.15, 0.1], 3)])
def test_the_documentation_has_the_published_curves(weights, steps):
    weights = torch.as_tensor(weights)
    maps = {"": weights.view(1, 1, 1, -1)}
    found = curves(weighing(weights), torch.ones(1, 1, 1, len(weights)), output(0), maps, steps=steps)[""]
    cells = [
        f"{', '.join(f'{value:.2g}' for value in curve.abs().tolist())}: {float(under):.2g}"
        for curve, under in (
            ((found.deletion[0] * 100).round() / 100, found.deletion_area),
            ((found.insertion[0] * 100).round() / 100, found.insertion_area),
        )
    ]
    named = ", ".join(f"{weight:.2g}" for weight in weights.tolist())
    lines = (DOCS / "attribution.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"| torch-cam | weights {named} of")]
    assert line.endswith(f"| {cells[0]} | {cells[1]} |")


class Largest(nn.Module):
    def forward(self, images):
        return images.flatten(1).amax(1, keepdim=True)


@pytest.mark.parametrize(("way", "rest"), [("deletion", 0.0), ("insertion", 1.0)])
def test_a_network_that_sees_its_brightest_pixel_forgets_it_at_once(way, rest):
    images = torch.zeros(2, 1, 4, 4)
    images[0, 0, 1, 2] = images[1, 0, 3, 0] = 1
    found = curve(Largest(), images, output(0), images, mode=way, steps=16)
    assert_close(found[:, 1:], torch.full((2, 16), rest))


class Black(nn.Module):
    """Whether every pixel, or any, is other than black."""

    def forward(self, images):
        lit = images.flatten(1) > 0
        return torch.stack([lit.all(1), lit.any(1)], 1).float()


def test_the_areas_of_xpliques_networks_that_one_pixel_decides():
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(min=0.01)
    maps, steps = {"": images}, 256
    perfect = curves(Black(), images, output(0), maps, steps=steps)[""].deletion_area
    assert_close(perfect, torch.full((3,), 0.5 / steps))  # they say 0, within 0.01
    perfect = curves(Black(), images, class_score(1), maps, steps=steps)[""].insertion_area
    assert_close(perfect, torch.full((3,), 1 - 0.5 / steps))  # and 1


def test_a_linear_networks_curves_are_sorted_cumulative_sums():
    weights = torch.randn(36, generator=torch.Generator().manual_seed(0))
    maps = {"": weights.view(1, 1, 6, 6)}
    found = curves(weighing(weights), torch.ones(1, 1, 6, 6), output(0), maps, steps=36)[""]
    shown = torch.cat([torch.zeros(1), weights.sort(descending=True).values.cumsum(0)])
    assert_close(found.insertion[0], shown, rtol=1e-5, atol=1e-5)
    assert_close(found.deletion[0], weights.sum() - shown, rtol=1e-5, atol=1e-5)


def test_random_maps_say_nothing():
    maps = torch.rand(300, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = curve(weighing(WEIGHTS), ONES.expand(300, -1, -1, -1), output(0), maps, steps=4)
    assert_close(area(found).mean(), torch.tensor(0.5), rtol=0, atol=0.02)


def mixed() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.rand(4, 3, 2, 2), torch.tensor([2, 0, 1, 1])


def test_a_class_for_each_image_and_batch_mates():
    network, images, classes = mixed()
    maps = images.mean(1, keepdim=True)
    together = curve(network, images, class_score(classes), maps, steps=3)
    alone = [
        curve(network, images[i : i + 1], class_score(int(classes[i])), maps[i : i + 1], steps=3)
        for i in range(4)
    ]
    assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_several_maps_together_are_each_of_them_alone(steps):
    network, images, classes = mixed()
    maps = {"one": images.mean(1, keepdim=True), "other": -images.amax(1, keepdim=True)}
    found = curves(network, images, class_score(classes), maps, steps=steps, fill="mean")
    for name, own in maps.items():
        assert isinstance(found[name], Curves)
        for mode in ("deletion", "insertion"):
            alone = curve(network, images, class_score(classes), own, steps=steps, fill="mean", mode=mode)
            assert_close(getattr(found[name], mode), alone, rtol=1e-5, atol=1e-6)
    assert_close(shares(4, steps)[[0, -1]], torch.tensor([0.0, 1.0]))


def test_maps_share_the_passes_of_whole_and_hidden_image():
    network, images, classes = mixed()
    passed = []
    network.register_forward_hook(lambda *call: passed.append(len(call[1][0])))
    maps = {name: images.mean(1, keepdim=True) for name in "abcde"}
    curves(network, images, class_score(classes), maps, steps=10)
    assert sum(passed) == 4 * (2 + 5 * 2 * 9)
    passed.clear()
    infidelity(network, images, class_score(classes), maps, draws=30)
    assert sum(passed) == 4 * 31


@pytest.mark.parametrize("by", ["squares", "noise"])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_gradient_of_a_linear_network_has_no_infidelity(by, scaled):
    network, images, classes = mixed()
    right = gradient(network, images, class_score(classes))
    maps = {"right": right, "scaled": 7 * right, "zero": torch.zeros_like(right)}
    found = infidelity(network, images, class_score(classes), maps, by=by, scaled=scaled)
    assert_close(found["right"], torch.zeros(4), rtol=0, atol=1e-6)
    assert bool((found["scaled"] < 1e-6).all()) is scaled
    assert_close(found["zero"], torch.ones(4)) if scaled else None


def test_infidelity_under_noise_is_the_distance_from_the_weights():
    network, images, _ = mixed()
    maps = torch.rand(4, 3, 2, 2)
    found = infidelity(
        network, images, class_score(1), {"": maps}, by="noise", draws=4000, spread=0.3, scaled=False
    )[""]
    away = (maps.flatten(1) - network[1].weight[1].detach()).square().sum(1)
    assert_close(found, 0.09 * away, rtol=0.1, atol=0)


def test_infidelity_of_an_image_does_not_depend_on_its_batch():
    network, images, classes = mixed()
    maps = images.mean(1, keepdim=True)
    together = infidelity(network, images, class_score(classes), {"": maps}, draws=20)[""]
    for i in range(4):
        alone = infidelity(
            network, images[i : i + 1], class_score(int(classes[i])), {"": maps[i : i + 1]}, draws=20
        )
        assert_close(alone[""], together[i : i + 1], rtol=1e-4, atol=1e-5)


def test_nothing_of_the_network_and_of_random_states_changes():
    network, images, classes = mixed()
    network.train()
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    maps = {"": images.mean(1, keepdim=True)}
    curves(network, images, class_score(classes), maps)
    infidelity(network, images, class_score(classes), maps, by="noise")
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: curve(weighing(WEIGHTS), ONES, output(0), ONES, steps=0), "at least 1 step"),
        (
            lambda: curves(weighing(WEIGHTS), ONES, output(0), {"cam": ONES[..., :1]}),
            "maps of cam .*size",
        ),
        (
            lambda: infidelity(weighing(WEIGHTS), ONES, output(0), {"": ONES}, draws=0),
            "at least one draw",
        ),
        (lambda: infidelity(weighing(WEIGHTS), ONES, output(0), {"a": ONES[:, [0, 0]]}), "maps of a "),
    ],
)
def test_what_cannot_be_measured_is_reported(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
