"""References of probes: the first look, a checkpoint, another network; and their saved state."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import somebody
import torch
from torch import nn

from fulgurite.callbacks.framework.artifacts import Scalar
from fulgurite.callbacks.framework.film import Film
from fulgurite.callbacks.framework.memory import Memory
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.reference import Reference
from fulgurite.callbacks.transfer import Drift
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.representation.similarity import cka
from fulgurite.probes.representation.stages import image_features

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


def theirs(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = somebody.Theirs().eval()
    model.features[1].running_mean.uniform_()
    return model


def saved(model: nn.Module, folder: Path, how: str) -> Path:
    state = model.state_dict()
    if how == "safetensors":
        safetensors.torch.save_file(state, file := folder / "weights.safetensors")
    else:
        file = folder / "weights.ckpt"
        held = {
            "state dict": state,
            "checkpoint": {"state_dict": {f"network.{name}": value for name, value in state.items()}},
            "compiled": {"state_dict": {f"model._orig_mod.{name}": value for name, value in state.items()}},
        }
        torch.save(held[how], file)
    return file


@pytest.mark.parametrize("how", ["state dict", "checkpoint", "compiled", "safetensors"])
def test_a_reference_file_replaces_the_weights_only_within_the_block(tmp_path: Path, how: str):
    network, other, images = theirs(0), theirs(1), torch.rand(2, 3, 12, 12)
    reference = Reference(saved(other, tmp_path, how))
    with torch.no_grad():
        own, expected = network(images), other(images)
    held = [id(tensor) for tensor in (*network.parameters(), *network.buffers())]
    with frozen_eval(network) as lent:
        reference.begin(lent)
        with reference.network(lent) as then:
            assert torch.equal(then(images), expected)
        with pytest.raises(KeyError), reference.network(lent):
            raise KeyError
        assert torch.equal(lent(images), own)
    assert [id(tensor) for tensor in (*network.parameters(), *network.buffers())] == held
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_function_s_network_may_be_of_another_kind_and_is_made_once():
    made = []
    reference = Reference(lambda: made.append(nn.Flatten()) or made[0])
    with frozen_eval(theirs(0)) as lent:
        for _ in range(2):
            reference.begin(lent)
            with reference.network(lent) as other:
                assert other(torch.rand(2, 3, 4, 4)).shape == (2, 48)
    assert len(made) == 1
    assert reference.state_dict() == {}


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda folder: folder / "none.ckpt", "no file .*none.ckpt"),
        (lambda folder: saved(nn.Linear(2, 2), folder, "state dict"), "does not hold the weights of this"),
        (lambda folder: _text(folder / "no.ckpt"), "holds no weights that can be read"),
    ],
    ids=["no file", "another network", "no weights"],
)
def test_a_file_of_no_use_is_reported_before_training(tmp_path: Path, make: Callable, complaint: str):
    model = somebody.Theirs()
    probe = Drift(reference=make(tmp_path), **SCALE)
    with pytest.raises(ValueError, match=complaint) as error:
        somebody.quiet(tmp_path, probe).fit(model, somebody.loader(), somebody.loader(9))
    assert "\n" not in str(error.value)
    assert not model.losses


def _text(file: Path) -> Path:
    file.write_text("no weights")
    return file


@pytest.mark.parametrize("how", ["file", "function"])
def test_drift_from_another_run_is_cka_with_its_features(tmp_path: Path, how: str):
    other = theirs(5)
    reference = (
        saved(other, tmp_path, "checkpoint") if how == "file" else lambda: _normalised(copy.deepcopy(other))
    )
    probe = Drift(["features"], reference=reference, on_error="raise", **SCALE)
    torch.manual_seed(0)
    model = somebody.Theirs()
    somebody.quiet(tmp_path, probe).fit(model, somebody.loader(), somebody.loader(15))
    images = torch.stack([image for image, _ in somebody.Blobs(15)])
    now, then = (image_features(net, images, ["features"], grid=4)["features"] for net in (model, other))
    found = somebody.scalars(tmp_path)
    assert len(found["Drift/CKA/features"]) == 3
    assert found["Drift/CKA/features"][-1][1] == pytest.approx(cka(now, then), abs=1e-5)
    moved = "Drift/moved/head" in found
    assert moved == (how == "file")
    if moved:
        start = other.head.weight.detach(), other.head.bias.detach()
        end = model.head.weight.detach(), model.head.bias.detach()
        squares = sum((one - two).square().sum() for one, two in zip(start, end, strict=True))
        length = sum(one.square().sum() for one in start)
        assert found["Drift/moved/head"][-1][1] == pytest.approx(float((squares / length).sqrt()), rel=1e-5)


def _normalised(network: nn.Module) -> nn.Module:
    """The network for images in [0, 1]; its layers have the paths that they had."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (somebody.MEAN, somebody.STD))
    network.register_forward_pre_hook(lambda _, given: ((given[0] - mean) / std,))
    return network


class Keeps(ProbeCallback):
    """Keeps a tensor of its subject, and fails at the second look if asked."""

    def __init__(self, fails: bool = False, **schedule):
        super().__init__(**schedule)
        self.fails, self.seen = fails, []

    def subjects(self, network, sample):
        return ["a"]

    def observe(self, network, sample, subjects):
        self.seen.append((self.look, dict(self.memory.first), dict(self.memory.last)))
        self.memory.keep("a", torch.tensor(self.look.step))
        if self.fails and self.look.number == 1:
            raise KeyError("on purpose")
        return {"a": Scalar(1.0)}


def test_looks_are_numbered_and_what_is_kept_is_there_at_the_next(tmp_path: Path):
    probe = Keeps(on_error="raise", **SCALE)
    trainer = somebody.quiet(tmp_path, probe)
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    looks = [look for look, _, _ in probe.seen]
    assert [(look.step, look.epoch, look.label, look.number) for look in looks] == [
        *((0, 0, "start", 0), (3, 1, "1", 1), (6, 2, "2", 2))
    ]
    assert [look.first for look in looks] == [True, False, False]
    assert [look.last for look in looks] == [False, False, True]
    assert [(first.get("a"), last.get("a")) for _, first, last in probe.seen] == [
        *((None, None), (torch.tensor(0), torch.tensor(0)), (torch.tensor(0), torch.tensor(3)))
    ]
    trainer.save_checkpoint(kept := tmp_path / "kept.ckpt")
    again = Keeps(on_error="raise", **SCALE)
    trainer = somebody.quiet(tmp_path / "again", again, max_epochs=3)
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9), ckpt_path=kept)
    ((look, first, last),) = again.seen
    assert (look.number, look.label, first["a"], last["a"]) == (3, "3", torch.tensor(0), torch.tensor(6))


@pytest.mark.filterwarnings("ignore:Keeps failed, training goes on")
def test_a_look_that_fails_has_kept_nothing(tmp_path: Path):
    probe = Keeps(fails=True, **SCALE)
    somebody.quiet(tmp_path, probe).fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    assert [last.get("a") for _, _, last in probe.seen] == [None, torch.tensor(0), torch.tensor(0)]


def test_what_no_checkpoint_can_hold_is_not_kept():
    memory = Memory(Film())
    memory.keep("a", {"one": [1, "b", (torch.ones(1), None)]})
    with pytest.raises(ValueError, match=r"'b' is to be kept, but holds a Film; wanted numbers, text"):
        memory.keep("b", [1, {"c": Film()}])


def test_a_checkpoint_of_an_earlier_version_can_be_resumed():
    film, probe = Film().state_dict(), Drift(**SCALE)
    grams, start = {"features": torch.eye(3)}, {"head.weight": torch.ones(2, 2)}
    looks = [["start", {"head": 0.0}, {"features": 1.0}]]
    probe.load_state_dict({"film": film, "start": start, "grams": grams, "looks": looks, "pulls": {}})
    assert probe.memory.last == {"all looks": looks}
    assert probe.memory.first == grams
    assert probe.reference.weights == start
    counts = Keeps()
    counts.load_state_dict({"film": film, "looks": 4, "failures": 2})
    assert (counts.memory.looks, counts.memory.failures) == (4, 2)
