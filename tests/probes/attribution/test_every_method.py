"""What holds of all methods alike, each with settings small enough to run in a moment."""

import copy
from contextlib import contextmanager, suppress

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from slow_answers import SLOW
from somebody import loader, quiet
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.methods import METHODS, attribute, knobs_of, method_of
from fulgurite.probes.objectives import channel, class_score, direction, log_probability, probability, unit

IMAGES = torch.rand(3, 3, 14, 12, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([2, 0, 1])
SMALL = {
    "smoothgrad": {"draws": 3},
    "integrated_gradients": {"steps": 4},
    "occlusion": {"window": 4},
    "rise": {"masks": 12, "cells": 3},
    "lime": {"segments": 6, "samples": 30},
}
OF_PIXELS = {
    *("gradient", "input_x_gradient", "smoothgrad", "integrated_gradients"),
    *("backward_rules", "guided_backprop", "deconvnet", "guided_grad_cam"),
}
ASKED = {
    "class": class_score(1),
    "class of each image": class_score(CLASSES),
    "channel": channel("4", 3),
    "channel of each image": channel("4", CLASSES),
    "direction": direction("4", torch.tensor([1.0, -1.0, 0.5, 2.0, -0.3])),
    "unit": unit("4", 3, row=1, column=2),
    "probability": probability(CLASSES),
    "sum": class_score(CLASSES) - 0.5 * channel("4", 1),
    "of the output": 2 * class_score(0) - class_score(CLASSES),
}
BENT = {"unit", "probability"}  # not linear in averaged maps: no class activation map


def small(channels: int = 3) -> nn.Sequential:
    """Convolutions, batch norm with statistics that have moved, ReLUs, max-pooling and a linear layer."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(channels, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(5, 3),
    )
    network(torch.rand(8, channels, 14, 12))
    return network


def mapped(name, network, images=IMAGES, objective=ASKED["class of each image"], **settings):
    return METHODS[name](network, images, objective, **{**SMALL.get(name, {}), **settings})


def close(ours, expected, *, within: float = 1e-5):
    """Alike but for rounding, measured by the largest value."""
    assert_close(ours, expected, rtol=0, atol=within * expected.abs().max().item())


every_method = pytest.mark.parametrize("name", METHODS)


@every_method
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(14, 12), (13, 9), (9, 32)])
@pytest.mark.parametrize("count", [1, 2])
def test_a_map_has_the_size_of_the_image(name, channels, size, count):
    images = torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(0))
    found = mapped(name, small(channels), images, class_score(torch.arange(count)))
    assert found.shape == (count, channels if name in OF_PIXELS else 1, *size)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.any()
    assert not found.requires_grad
    assert not found.is_inference()


@every_method
@pytest.mark.parametrize("asked", ASKED)
def test_anything_inside_the_network_can_be_asked_for(name, asked):
    if name == "cam" and asked in BENT:
        with pytest.raises(ValueError, match="not linear in the averaged maps"):
            mapped(name, small(), objective=ASKED[asked])
        return
    found = mapped(name, small(), objective=ASKED[asked])
    assert found.isfinite().all()
    assert found.any()


@every_method
def test_several_objectives_equal_one_call_for_each(name):
    asked = [ASKED[what] for what in ("class", "class of each image", "probability", "of the output")]
    if name == "cam":
        asked.remove(ASKED["probability"])
    together = mapped(name, small(), objective=asked)
    assert together.shape[:2] == (len(asked), 3)
    for ours, objective in zip(together, asked, strict=True):
        close(ours, mapped(name, small(), objective=objective))
    assert mapped(name, small(), objective=asked[:1]).shape == (1, *together.shape[1:])


@every_method
def test_objectives_of_different_layers_equal_one_call_for_each(name):
    settings = {"layer": "2"} if "layer" in knobs_of(METHODS[name]) else {}
    asked = [ASKED[what] for what in ASKED]
    if name == "cam":  # there is max-pooling between
        with pytest.raises(ValueError, match="not linear"):
            mapped(name, small(), objective=asked, **settings)
        return
    together = mapped(name, small(), objective=asked, **settings)
    for ours, objective in zip(together, asked, strict=True):
        close(ours, mapped(name, small(), objective=objective, **settings))


@every_method
def test_an_images_map_does_not_depend_on_its_batch(name):
    together = mapped(name, small())
    for place in range(3):
        alone = mapped(name, small(), IMAGES[place : place + 1], class_score(int(CLASSES[place])))
        close(together[place : place + 1], alone)
    turned = torch.tensor([2, 0, 1])
    close(mapped(name, small(), IMAGES[turned], class_score(CLASSES[turned])), together[turned])


@every_method
def test_every_image_of_a_batch_may_be_asked_of_something_else(name):
    asked = channel("4", CLASSES)
    together = mapped(name, small(), objective=asked)
    for place in range(3):
        alone = mapped(name, small(), IMAGES[place : place + 1], channel("4", int(CLASSES[place])))
        close(together[place : place + 1], alone)


@every_method
def test_once_more_is_the_same_to_the_bit(name):
    network = small()
    assert torch.equal(mapped(name, network), mapped(name, network))


@every_method
def test_an_empty_batch_has_no_maps(name):
    found = mapped(name, small(), IMAGES[:0], class_score(1))
    assert found.shape == (0, 3 if name in OF_PIXELS else 1, 14, 12)


@every_method
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_it_works_where_gradients_are_switched_off(name, mode):
    expected = mapped(name, small())
    network = small()
    with mode():
        images, classes = IMAGES * 1, CLASSES + 0
        assert torch.equal(mapped(name, network, images, class_score(classes)), expected)
        assert not torch.is_grad_enabled()


@every_method
def test_it_works_on_images_that_want_gradients(name):
    images = IMAGES.clone().requires_grad_()
    found = mapped(name, small(), images)
    assert not found.requires_grad
    assert images.grad is None
    assert torch.equal(found, mapped(name, small()))


@every_method
@pytest.mark.parametrize("part", [slice(None), slice(0, 2), slice(9, None)], ids=["all", "stem", "head"])
def test_it_works_on_frozen_networks(name, part):
    network = small()
    network[part].requires_grad_(False)
    assert torch.equal(mapped(name, network), mapped(name, small()))


def compiled(network):
    torch.compiler.reset()
    network = torch.compile(network, backend="eager")
    network(IMAGES)
    return network


@contextmanager
def one_process(folder):
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(folder / "store"), 1), rank=0, world_size=1
    )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@every_method
def test_it_works_on_compiled_networks(name):
    assert torch.equal(mapped(name, compiled(small().eval())), mapped(name, small()))


def test_all_work_on_networks_wrapped_for_distributed_training(tmp_path):
    with one_process(tmp_path):
        plain = small()
        wrapped = nn.parallel.DistributedDataParallel(small())
        both = torch.compile(nn.parallel.DistributedDataParallel(small()), backend="eager")
        for name in METHODS:
            expected = mapped(name, plain)
            assert torch.equal(mapped(name, wrapped), expected), name
            assert torch.equal(mapped(name, both), expected), name


@every_method
def test_under_autocast_the_maps_are_those_of_full_precision(name):
    network = small()
    with torch.autocast("cpu", torch.bfloat16):
        found = mapped(name, network)
    assert torch.equal(found, mapped(name, small()))


def alike(ours, expected) -> float:
    return torch.cosine_similarity(ours.float().flatten(), expected.flatten(), dim=0).item()


@every_method
def test_networks_of_half_precision_have_maps_of_full_precision(name):
    found = mapped(name, small().bfloat16())
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert alike(found, mapped(name, small())) > 0.9


@every_method
@pytest.mark.parametrize("network", [small(), small().bfloat16()], ids=["full", "half"])
def test_images_may_be_of_half_precision(name, network):
    found = mapped(name, network, IMAGES.bfloat16())
    assert found.isfinite().all()
    assert alike(found, mapped(name, small())) > 0.9


@every_method
def test_in_float64_a_map_is_its_slow_answer_in_float64(name):
    network, images = small().eval().double(), IMAGES.double()
    found = mapped(name, network, images)
    pairs = zip(images, CLASSES.tolist(), strict=True)
    expected = torch.stack([SLOW[name](network, *pair, **SMALL.get(name, {})) for pair in pairs])
    assert found.dtype == torch.float64
    close(found, expected, within=1e-10)


@every_method
@pytest.mark.parametrize("network", ["float32", "float64"])
@pytest.mark.parametrize("images", ["float32", "float64"])
def test_a_map_has_the_precision_of_the_images(name, network, images):
    found = mapped(name, small().to(getattr(torch, network)), IMAGES.to(getattr(torch, images)))
    assert found.dtype == getattr(torch, images)
    close(found.float(), mapped(name, small()), within=1e-3)


class Validating(pl.LightningModule):
    """Somebody's model, that looks at itself while it validates."""

    def __init__(self):
        super().__init__()
        self.network, self.found, self.failed = small(), {}, {}

    def validation_step(self, batch, place):
        images, classes = batch
        self.seen, self.classes = images.detach().clone(), classes.clone()
        for name in METHODS:
            try:
                self.found[name] = mapped(name, self.network, images, class_score(classes))
            except Exception as error:
                self.failed[name] = str(error)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_all_work_while_lightning_validates(precision, tmp_path):
    model = Validating()
    trainer = quiet(tmp_path, precision=precision, limit_val_batches=1)
    trainer.validate(model, loader(8, size=14), verbose=False)
    assert model.failed == {}
    assert all(found.isfinite().all() for found in model.found.values())
    expected = {
        name: mapped(name, small(), model.seen.float(), class_score(model.classes)) for name in METHODS
    }
    likenesses = {name: alike(model.found[name], expected[name]) for name in METHODS}
    wanted = 0.9 if precision == "bf16-true" else 1 - 1e-6
    assert {name: likeness for name, likeness in likenesses.items() if not likeness > wanted} == {}


def state(network) -> dict:
    """All that a look must leave as it was; of Python's own random state tests/probes/test_borrow.py tells.

    Here it moves, because beartype draws numbers.
    """
    hooks = ["_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"]
    return {
        "modes": [module.training for module in network.modules()],
        "hooks": [list(getattr(module, name).items()) for module in network.modules() for name in hooks],
        "frozen": [parameter.requires_grad for parameter in network.parameters()],
        "grads": [id(parameter.grad) for parameter in network.parameters()],
        "grad values": [None if p.grad is None else p.grad.tolist() for p in network.parameters()],
        "weights": [(id(p), p.stride(), p.tolist()) for p in network.parameters()],
        "buffers": [(id(buffer), buffer.tolist()) for buffer in network.buffers()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "grad mode": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled(),
        ),
        "default": torch.get_default_dtype(),
    }


class FailingError(Exception):
    pass


PASSES = []  # one for each; not the network's own, for what that holds is put back after each loan


class Counted(nn.Module):
    """Counts the passes, and fails in one of them."""

    def __init__(self, body):
        super().__init__()
        self.body, self.fails = body, 0

    def forward(self, images):
        PASSES.append(len(images))
        out = self.body(images)
        if len(PASSES) == self.fails:
            raise FailingError
        return out


def in_training() -> Counted:
    """Half frozen, with gradients accumulated, partly in training, and watched by somebody."""
    body = small()
    body[1].eval().requires_grad_(False)
    body(IMAGES).sum().backward()
    body[4].register_forward_hook(lambda *_: None)
    return Counted(body)


@every_method
@pytest.mark.parametrize("fails", ["never", "first", "between", "last"])
def test_everything_is_left_as_it_was(name, fails, monkeypatch):
    from fulgurite.probes import batches

    monkeypatch.setattr(batches, "MOST", 4)
    network = in_training()
    PASSES.clear()
    mapped(name, network)
    passes = len(PASSES)
    PASSES.clear()
    network.fails = {"never": 0, "first": 1, "between": (passes + 1) // 2, "last": passes}[fails]
    images = IMAGES.clone()
    before = state(network)
    with suppress(FailingError):
        mapped(name, network, images)
        assert fails == "never"
    after = state(network)
    assert [what for what in before if before[what] != after[what]] == []
    assert torch.equal(images, IMAGES)
    network.fails = 0
    assert torch.equal(mapped(name, network), mapped(name, in_training()))


@every_method
def test_what_is_refused_leaves_everything_as_it_was(name):
    network = in_training()
    before = state(network)
    for wrong in (class_score(17), channel("nowhere", 0), class_score(torch.tensor([0, 1])), []):
        with pytest.raises(
            ValueError,
            match=r"no class 17|no layer 'nowhere'|2 .* 3 images|for 2 images came with 3|no objective",
        ):
            mapped(name, network, objective=wrong)
    assert state(network) == before


def test_training_goes_on_as_if_nobody_had_looked():
    def trained(look: bool):
        torch.manual_seed(0)
        network = small()
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            network(torch.rand(4, 3, 14, 12)).logsumexp(1).sum().backward()
            for name in METHODS if look else ():
                mapped(name, network)
            optimizer.step()
        return [*network.parameters(), *network.buffers(), torch.rand(3)]

    assert all(torch.equal(one, other) for one, other in zip(trained(True), trained(False), strict=True))


@every_method
def test_a_copy_of_the_network_has_the_same_maps(name):
    network = small()
    mapped(name, network)
    assert torch.equal(mapped(name, copy.deepcopy(network)), mapped(name, network))


@every_method
def test_it_is_known_by_its_name(name):
    assert method_of(name) is METHODS[name]
    found = attribute(name, small(), IMAGES, log_probability(1) if name != "cam" else class_score(1), **ALL)
    assert found.shape[-2:] == (14, 12)
    assert set(SMALL.get(name, {})) <= set(knobs_of(METHODS[name]))


ALL = {knob: value for settings in SMALL.values() for knob, value in settings.items()}


def test_a_name_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no attribution method 'gradcam'; nearest: grad_cam"):
        method_of("gradcam")
