"""Gradient ascent on images: linear networks by hand, batches, seeds, and side effects."""

import random
import warnings
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ascent_networks import SHAPE, convolutional, grey, linear
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.feature_objectives import diversity, energy, gram_match, inner_product, match
from fulgurite.probes.objectives import (
    channel,
    class_score,
    direction,
    log_probability,
    probability,
    unit,
)
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier, Pixels
from fulgurite.probes.synthesis.class_images import class_images, simonyan
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.optimizers import adam, linear_decay, unit_gradient
from fulgurite.probes.synthesis.priors import l2, total_variation
from fulgurite.probes.synthesis.transforms import affine, chain, identity, jitter
from fulgurite.probes.synthesis.watch import Watch


def test_on_a_linear_network_the_image_moves_along_the_weight_row():
    network, classes = linear(), torch.tensor([3, 1])
    images = ascend(network, class_score(classes), grey(2), steps=1, by=adam(0.01))
    # the first step of Adam is the sign of the gradient
    assert_close((images - 0.5).flatten(1), 0.01 * network[1].weight[classes].sign(), rtol=0, atol=1e-5)
    far = ascend(network, class_score(classes), grey(2), steps=20, by=adam(0.01)) - 0.5
    assert (F.cosine_similarity(far.flatten(1), network[1].weight[classes]) > 0.8).all()


def test_on_a_linear_network_an_unbounded_ascent_ends_in_the_corner_of_the_weight_row():
    network = linear()
    images = ascend(network, class_score(2), grey(1), steps=30, by=adam(0.05))
    assert torch.equal(images.flatten(), (network[1].weight[2] > 0).float())


@pytest.mark.parametrize("precise", [False, True])
def test_with_an_l2_prior_a_linear_networks_image_is_known(precise):
    network, start = linear(), torch.full((4, *SHAPE), 0.5)
    images = ascend(
        network,
        class_score(torch.arange(4)),
        Pixels(start),
        steps=300,
        by=adam(0.01),
        priors=[l2(0.1, background=[0.5] * 3)],
        precise=precise,
    )
    assert images.dtype == torch.float32
    assert_close((images - 0.5).flatten(1), network[1].weight.detach() / 0.2, rtol=0, atol=1e-3)
    assert_close(F.cosine_similarity((images - 0.5).flatten(1), network[1].weight), torch.ones(4))


@pytest.mark.parametrize("side", [8, 16, 48])
def test_a_unit_gradient_and_an_l2_prior_balance_at_the_same_contrast_at_every_size(side):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, 4))
    start = torch.full((1, 3, side, side), 0.5)
    prior = l2(4.0, background=[0.5] * 3)
    images = ascend(
        network,
        class_score(2),
        Pixels(start),
        steps=200,
        by=adam(0.01, normalise=unit_gradient),
        priors=[prior],
    )
    assert_close((images - 0.5).square().mean().sqrt(), torch.tensor(1 / 8), rtol=1e-3, atol=0)


def test_an_annealed_ascent_takes_ever_smaller_steps():
    network, start = linear(), torch.full((1, *SHAPE), 0.5)
    images = ascend(network, class_score(1), Pixels(start), steps=4, by=adam(0.02, schedule=linear_decay))
    # on a constant slope each step of Adam is the learning rate: 1 + 3/4 + 2/4 + 1/4 of it
    assert_close((images - 0.5).flatten(), 0.05 * network[1].weight[1].sign(), rtol=0, atol=1e-4)


def test_a_prior_is_taken_off():
    start = torch.rand(2, *SHAPE)
    flat = ascend(linear(), 0 * class_score(0), Pixels(start), priors=[total_variation(1.0)], steps=100)
    assert total_variation(1.0)(flat).max() < 0.01 * total_variation(1.0)(start).min()


OBJECTIVES = {
    "class_score": class_score(2),
    "log_probability": log_probability(2),
    "probability": probability(2),
    "channel": channel("0", 3),
    "unit": unit("0", 1),
    "direction": direction("0", torch.tensor([1.0, -1, 0, 0, 2, 0])),
    "match": match("0", torch.ones(1, 6, 6, 6)),
    "energy": energy("2"),
    "gram_match": gram_match("0", torch.eye(6)[None]),
    "inner_product": inner_product("0", torch.ones(1, 6, 6, 6)),
    "a sum": 2 * class_score(torch.tensor([0, 3])) - 0.1 * channel("0", 1) + unit("4", 1),
}


def test_images_that_an_objective_couples_are_optimised_together():
    network = convolutional()
    counts = []
    network.register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
    asked = channel("0", 2) + 10 * diversity("0")
    seeds = [0, 1, 2]
    images = ascend(network, asked, Fourier(SHAPE, seeds, spread=0.3), steps=20, batch=1)
    alone = ascend(network, channel("0", 2), Fourier(SHAPE, seeds, spread=0.3), steps=20)
    assert set(counts) == {3}
    with torch.no_grad():
        apart, near = (diversity("0").value({"0": network[0](own)}) for own in (images, alone))
    assert (apart > near).all()


def test_images_that_an_objective_couples_are_together_or_not_at_all(monkeypatch):
    def full(seen):
        if len(seen["0"]) > 2:
            raise torch.OutOfMemoryError
        return diversity("0").value(seen)

    asked = replace(diversity("0"), value=full)
    with pytest.raises(torch.OutOfMemoryError):
        ascend(convolutional(), asked, Fourier(SHAPE, [0, 1, 2]), steps=1)
    monkeypatch.setattr("fulgurite.probes.synthesis.features.batch_size", lambda *_: 2)
    network, images = convolutional().eval(), torch.rand(3, *SHAPE)
    with torch.no_grad():
        expected = diversity("0").value({"0": network[0](images)})
    assert_close(values_of(network, diversity("0"), images), expected)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("make", [lambda: Fourier(SHAPE, [0, 1]), lambda: grey(2)], ids=["Fourier", "Pixels"])
def test_every_objective_rises(objective, make):
    network = convolutional().eval()

    def value(images):
        seen = {"": network(images), **{str(i): network[: i + 1](images) for i in range(5)}}
        return objective.value(seen)

    with torch.no_grad():
        start, end = value(make()()), value(ascend(network, objective, make(), steps=20))
    assert (end > start).all()


@pytest.mark.parametrize("make", [lambda seeds: Fourier(SHAPE, seeds), lambda seeds: grey(len(seeds))])
@pytest.mark.parametrize(
    "transform",
    [jitter(2), chain(identity, affine(shift=0.1, degrees=5, zoom=1.1))],
    ids=["jitter", "affine"],
)
def test_a_batch_equals_its_images_one_by_one(make, transform):
    network, classes = convolutional(), torch.tensor([3, 0, 2])
    options = {
        "steps": 5,
        "priors": [l2(0.01), total_variation(0.01)],
        "transform": transform,
        "precise": True,
    }
    together = ascend(network, log_probability(classes), make([7, 8, 9]), **options)
    for place, seed in enumerate([7, 8, 9]):
        alone = ascend(network, log_probability(int(classes[place])), make([seed]), **options)
        assert_close(together[place : place + 1], alone, rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_images_whatever_was_drawn_before():
    def paint(seed):
        torch.rand(3)
        return ascend(
            convolutional(), energy("0"), Fourier(SHAPE, [0]), transform=jitter(3), steps=5, seed=seed
        )

    assert torch.equal(paint(1), paint(1))
    assert not torch.equal(paint(1), paint(2))


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("precise", [False, True])
def test_ascending_leaves_no_trace_on_the_network(failing, precise):
    network = convolutional()
    network[0].requires_grad_(False)
    network(torch.rand(2, *SHAPE)).sum().backward()
    network[1].eval()

    def state():
        return {
            "tensors": {name: tensor.tolist() for name, tensor in network.state_dict().items()},
            "grads": [
                None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in network.parameters()
            ],
            "frozen": [p.requires_grad for p in network.parameters()],
            "modes": [module.training for module in network.modules()],
            "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
            "torch": torch.get_rng_state().tolist(),
            "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        }

    def shaken(images):
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        if failing:
            raise ZeroDivisionError
        return images

    before = state()
    with suppress(ZeroDivisionError):
        ascend(network, class_score(0), Fourier(SHAPE, [0]), steps=2, transform=shaken, precise=precise)
    after = state()
    assert [what for what in before if before[what] != after[what]] == []


def test_no_layer_deeper_than_the_objective_runs():
    network, calls = convolutional(), []
    for place, module in enumerate(network):
        module.register_forward_pre_hook(lambda _m, _i, place=place: calls.append(place))
    ascend(network, channel("1", 0), grey(1), steps=3)
    assert calls == [0, 1, 0, 1, 0, 1]


def test_no_step_gives_the_start():
    start = torch.rand(2, *SHAPE)
    assert torch.equal(ascend(linear(), class_score(0), Pixels(start), steps=0), start)


def test_going_on_leaves_the_earlier_images_alone():
    canvas = grey(1)
    first = ascend(linear(), class_score(0), canvas, steps=1)
    kept = first.clone()
    second = ascend(linear(), class_score(0), canvas, steps=1)
    assert torch.equal(first, kept)
    assert not torch.equal(second, first)


@pytest.mark.parametrize("paint", [class_images, simonyan])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_class_images_are_made_where_gradients_are_switched_off(paint, mode):
    network, options = convolutional(), {"background": [0.3, 0.4, 0.5], "steps": 3}
    expected = paint(network, torch.tensor([2, 0]), SHAPE, **options)
    with mode():
        assert torch.equal(paint(network, torch.tensor([2, 0]), SHAPE, **options), expected)


@pytest.mark.parametrize("paint", [class_images, simonyan])
@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 9, 7)], ids=repr)
def test_class_images_raise_their_class_above_all_others(paint, shape):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 3))
    with torch.no_grad():
        network[1].weight.copy_(F.normalize(network[1].weight - network[1].weight.mean(0)))
        network[1].bias.zero_()
    images = paint(network, torch.arange(3), shape, background=[0.5] * 3, lr=0.1)
    assert network(images).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("paint", [class_images, simonyan])
@pytest.mark.parametrize(("count", "classes"), [(0, 4), (1, 4), (1, 1)])
def test_any_number_of_classes_will_do(paint, count, classes):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, classes))
    images = paint(network, torch.zeros(count, dtype=torch.long), SHAPE, background=[0.5] * 3, steps=2)
    assert images.shape == (count, *SHAPE)
    assert images.isfinite().all()


def test_the_seeds_of_class_images_make_variants():
    images = class_images(
        convolutional(), torch.tensor([1, 1]), SHAPE, background=[0.5] * 3, seeds=[0, 1], steps=2
    )
    assert not torch.equal(images[0], images[1])
    same = simonyan(convolutional(), torch.tensor([1, 1]), SHAPE, background=[0.5] * 3, seeds=[0, 1], steps=2)
    assert torch.equal(same[0], same[1])


def test_progress_is_silent_while_it_is_quick(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ascend(linear(), class_score(0), grey(1), steps=2, watch=Watch("class images"))
    assert capsys.readouterr().err == ""


def test_the_ascent_is_that_of_torchs_adam():
    network, start = convolutional().eval(), 0.4 + 0.2 * torch.rand(2, *SHAPE)
    pixels = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([pixels], 0.01, maximize=True)
    for _ in range(12):
        optimizer.zero_grad()
        network(pixels).square().sum().backward()
        optimizer.step()
    assert pixels.min() > 0  # else the projection would part them
    assert pixels.max() < 1
    ours = ascend(network, 2 * energy(""), Pixels(start), steps=12, by=adam(0.01))
    assert_close(ours, pixels.detach())
