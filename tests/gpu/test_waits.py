"""No loop waits for the device: counted on the CPU, which is made to be asked no more often than a GPU is.

What waits is a number that Python asks for, a search for what is not 0, a comparison of values, and a copy
from one device to another. A second count of all steps, in two lengths of the same loop, gives what each turn
costs beyond the passes through the network.
"""

import copy
import functools
import warnings
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fulgurite.models.losses import Adversarial, Fast, Plain, Trades
from fulgurite.probes import batches, device_sync
from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import L1, L2, Linf
from fulgurite.probes.attribution.methods import attribute
from fulgurite.probes.objectives import channel, class_score
from fulgurite.probes.synthesis.accentuation import accentuate
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier
from fulgurite.probes.synthesis.caricature import caricature
from fulgurite.probes.synthesis.features import feature_images
from fulgurite.probes.synthesis.inversion import invert
from fulgurite.probes.synthesis.transforms import identity

WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::item", "aten::is_nonzero"}
IMAGES = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


class Counted(TorchDispatchMode):
    """Counts what is dispatched, and what of it would wait for a device."""

    def __init__(self):
        super().__init__()
        self.steps, self.waits = Counter(), Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        self.steps[name] += 1
        masked = name in ("aten::index", "aten::index_put_", "aten::index_put") and any(
            place is not None and place.dtype == torch.bool for place in args[1]
        )
        if name in WAITS or masked:
            self.waits[name] += 1
        return function(*args, **(kwargs or {}))


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6, 5))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(device_sync, "AT_HAND", set())
    monkeypatch.setattr("fulgurite.probes.attacks.projections.AT_HAND", set())
    monkeypatch.setattr("fulgurite.probes.attacks.adaptive_steps.AT_HAND", set())
    monkeypatch.setattr(batches, "MOST", 4)  # as many parts as there are copies of the four images


def counted(run, turns: int) -> Counted:
    network = small()
    with warnings.catch_warnings(), Counted() as mode:
        warnings.simplefilter("ignore")
        run(network, turns)
    return mode


@functools.cache
def per_turn(run, few: int, many: int) -> tuple[float, float]:
    """Waits and steps of a turn: what more of them add."""
    run(small(), 2)  # what is learnt once, is learnt now
    first, second = counted(run, few), counted(run, many)
    waits = sum(second.waits.values()) - sum(first.waits.values())
    steps = sum(second.steps.values()) - sum(first.steps.values())
    return waits / (many - few), steps / (many - few)


def bare(network: nn.Module, turns: int) -> None:
    """The forward and the backward pass."""
    network.eval().requires_grad_(False)
    for _ in range(turns):
        pixels = IMAGES.clone().requires_grad_()
        torch.autograd.grad(network(pixels).gather(1, LABELS[:, None]).sum(), pixels)


def ahead(network: nn.Module, turns: int) -> None:
    network.eval()
    with torch.no_grad():
        for _ in range(turns):
            network(IMAGES)


def method(name: str, knob: str):
    asked = class_score(LABELS)
    return lambda network, turns: attribute(name, network, IMAGES, asked, **{knob: turns})


COPIES = {
    "smoothgrad": (method("smoothgrad", "draws"), bare, 40),
    "integrated_gradients": (method("integrated_gradients", "steps"), bare, 40),
    "rise": (method("rise", "masks"), ahead, 200),
    "lime": (method("lime", "samples"), ahead, 24),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_batch_of_copies_waits_for_nothing(name):
    run, pass_, more = COPIES[name]
    waits, steps = per_turn(run, 8, 24)
    assert waits == 0
    assert steps <= per_turn(pass_, 8, 24)[1] + more


@pytest.mark.parametrize("name", ["occlusion", "score_cam"])
def test_windows_and_channels_wait_for_nothing(name):
    def run(network, side):
        attribute(name, network, IMAGES[:, :, :side, :side], class_score(LABELS))

    few, many = counted(run, 9), counted(run, 12)
    assert sum(many.waits.values()) == sum(few.waits.values())


def attack_of(attack, threat, knob: str, **knobs):
    def run(network, turns):
        with torch.no_grad():
            labels = copy.deepcopy(network).eval()(IMAGES).argmax(1)
        attack(network, IMAGES, labels, threat, **{knob: turns}, **knobs)

    return run


FAR = [Linf(1e-6), L2(1e-6), L1(1e-6)]  # so that none falls, and all turns are made
ATTACKS = {
    "PGD": (pgd, "steps", {}, 30),
    "PGD, momentum, dropping": (pgd, "steps", {"momentum": 1.0, "drop": True}, 90),
    "APGD": (apgd, "steps", {"drop": False}, 90),
    "APGD-T": (apgd, "steps", {"loss": "dlr", "target_classes": 1}, 90),
    "FAB-T": (fab, "steps", {"target_classes": 1}, 200),
    "Square": (square, "queries", {}, 60),
}


@pytest.mark.parametrize("threat", FAR, ids=lambda threat: type(threat).__name__)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_step_of_an_attack_waits_for_nothing_but_in_every_eighth_turn(name, threat):
    attack, knob, knobs, more = ATTACKS[name]
    waits, steps = per_turn(attack_of(attack, threat, knob, **knobs), 8, 24)
    assert waits <= (0 if name == "PGD" else 1 / device_sync.EVERY)
    extra = {"Linf": 0, "L2": 120, "L1": 130}[type(threat).__name__]
    assert steps <= per_turn(bare, 8, 24)[1] + per_turn(ahead, 8, 24)[1] + more + extra


def test_a_step_of_an_ascent_waits_for_nothing():
    def run(network, turns):
        canvas = Fourier((3, 12, 12), range(4))
        ascend(network, class_score(LABELS), canvas, steps=turns)

    waits, steps = per_turn(run, 8, 40)
    assert waits <= 1  # on a CPU, whether all gradients are finite is asked
    assert steps <= per_turn(bare, 8, 40)[1] + 60


MADE = {
    "features": lambda network, turns: feature_images(
        network, channel("0", LABELS), (3, 12, 12), seeds=range(4), steps=turns, transform=identity
    ),
    "inversion": lambda network, turns: invert(network, IMAGES, "1", seeds=[0], steps=turns),
    "caricature": lambda network, turns: caricature(network, IMAGES, "1", steps=turns, transform=identity),
    "accentuation": lambda network, turns: accentuate(
        network, IMAGES, class_score(LABELS), near="0", steps=turns, transform=identity
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_a_step_of_a_synthesis_waits_for_nothing(name):
    # beyond the steps in which ReLUs are redirected
    waits, steps = per_turn(MADE[name], 20, 36)
    # on a CPU, whether all gradients are finite is asked; what a transform draws is on the CPU anyway
    assert waits <= (0 if name == "inversion" else 1)
    more = {"features": 100, "inversion": 520, "caricature": 160, "accentuation": 110}[name]
    assert steps <= per_turn(bare, 20, 36)[1] + more


@pytest.mark.parametrize(
    "loss", [Plain(), Adversarial(Linf(0.03)), Trades(Linf(0.03)), Fast(Linf(0.03))], ids=repr
)
def test_a_training_step_waits_for_few_things(loss):
    def run(network, turns):
        optimizer = torch.optim.SGD(network.parameters(), 0.1, foreach=True)
        for _ in range(turns):
            optimizer.zero_grad()
            loss(network.train(), IMAGES, LABELS).backward()
            optimizer.step()

    waits, _ = per_turn(run, 2, 6)
    # what an attack is given is checked once, before its steps
    assert waits <= (0 if isinstance(loss, Plain) else 12)


def test_a_question_is_seen_by_the_count():
    asked = counted(lambda network, turns: [bool(IMAGES.sum() > 0) for _ in range(turns)], 3)
    assert sum(asked.waits.values()) == 3
    assert sum(counted(lambda *_: IMAGES[IMAGES > 0.5], 0).waits.values()) == 1
