"""Every attribution method under autocast, in half and double precision, in inference mode, compiled."""

from contextlib import contextmanager

import lightning.pytorch as pl
import pytest
import torch
from every_method import CLASSES, IMAGES, OF_ANY_NETWORK, SMALL, close, every_method, mapped, small
from slow_answers import SLOW
from somebody import loader, quiet
from torch import nn

from fulgurite.probes.objectives import class_score


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
def test_it_works_on_images_that_require_gradients(name):
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
        for name in OF_ANY_NETWORK:
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
    """A user's model that runs attribution while it validates."""

    def __init__(self):
        super().__init__()
        self.network, self.found, self.failed = small(), {}, {}

    def validation_step(self, batch, place):
        images, classes = batch
        self.seen, self.classes = images.detach().clone(), classes.clone()
        for name in OF_ANY_NETWORK:
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
        name: mapped(name, small(), model.seen.float(), class_score(model.classes)) for name in OF_ANY_NETWORK
    }
    likenesses = {name: alike(model.found[name], expected[name]) for name in OF_ANY_NETWORK}
    wanted = 0.9 if precision == "bf16-true" else 1 - 1e-6
    assert {name: likeness for name, likeness in likenesses.items() if not likeness > wanted} == {}
