"""Callbacks for attacks: the same on any number of processes, in Lightning's validation, bad options."""

from functools import partial
from pathlib import Path

import pytest
import somebody
import torch
from attack_callbacks import (
    SCALE,
    Linear,
    Probabilities,
    looked,
    numbers,
    pixels,
    sample,
    small_network,
    steps_of,
)
from lightning.pytorch.loggers import TensorBoardLogger

from fulgurite.callbacks import robustness
from fulgurite.callbacks.adversarial_examples import AdversarialExamples
from fulgurite.callbacks.framework.artifacts import Table
from fulgurite.callbacks.robustness import Robustness
from fulgurite.callbacks.saliency_alignment import SaliencyAlignment
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.frozen_eval import frozen_eval


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdversarialExamples(Linf(0.05)),
        lambda: Robustness(Linf(0.05), attacks={"PGD-5": partial(pgd, steps=5)}, checked=2, radii=[0, 0.05]),
        lambda: SaliencyAlignment(),
    ],
    ids=["AdversarialExamples", "Robustness", "SaliencyAlignment"],
)
@pytest.mark.parametrize("ranks", [2, 3])
def test_pictures_and_numbers_are_bit_for_bit_those_of_one_process(make, ranks):
    count = 7 if isinstance(make(), AdversarialExamples) else 130
    given = sample(count, classes=4)
    one, several = (looked(make(), given, small_network(), ranks=processes) for processes in (1, ranks))
    assert numbers(one) == numbers(several)
    assert all(torch.equal(picture, pixels(several)[tag]) for tag, picture in pixels(one).items())
    assert [item.rows for item in one.values() if isinstance(item, Table)] == [
        item.rows for item in several.values() if isinstance(item, Table)
    ]


@pytest.fixture
def cheap(monkeypatch):
    """The ensemble and the checks cost nothing."""
    monkeypatch.setattr(robustness, "ensemble", lambda threat, classes, **_: {"FGSM": fgsm})
    monkeypatch.setattr(robustness, "sanity_checks", lambda *given: [])


@pytest.mark.parametrize("probe", [AdversarialExamples, Robustness])
def test_they_look_while_lightning_validates(probe, tmp_path: Path, cheap):
    how = {"ensemble_every": 3} if probe is Robustness else {}
    trainer = somebody.quiet(
        tmp_path,
        probe(Linf(0.05), images=6, on_error="raise", **how, **SCALE),
        SaliencyAlignment(on_error="raise", **SCALE),
        logger=TensorBoardLogger(tmp_path, "", ""),
    )
    trainer.validate(somebody.Theirs(), somebody.loader(9), verbose=False)
    tags = {tag for tag, _ in somebody.images(tmp_path)}
    assert tags == {"SaliencyAlignment", "Robustness/curve" if probe is Robustness else "AdversarialExamples"}
    assert ("Robustness/ensemble" in steps_of(tmp_path)) is (probe is Robustness)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Robustness(Linf(0.1), ensemble_every=0), "ensemble_every=0"),
        (lambda: Robustness(Linf(0.1), checks_every=-1), "checks_every=-1"),
        (lambda: Robustness(Linf(0.1), checked=0), "checked=0"),
        (lambda: Robustness(Linf(0.1), attacks={}), "no attacks; wanted at least one"),
        (lambda: Robustness(Linf(0.1), radii=["wide"]), "radius='wide'"),
        (lambda: Robustness(Linf(0.1), radii=[-1]), "radius=-1"),
        (lambda: Robustness(Linf(0.1), radii="8/255"), "radii='8/255'; wanted several"),
        (lambda: SaliencyAlignment(shown=0), "shown=0"),
    ],
)
def test_a_wrong_option_is_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("probe", "given", "network", "message"),
    [
        (AdversarialExamples(Linf(0.1)), sample(2), Probabilities(), "returns probabilities"),
        (AdversarialExamples(Linf(0.1, bounds=(0, 0.3))), sample(2), Linear(), "outside the threat's bounds"),
        (Robustness(Linf(0.1, bounds=(0, 0.3))), sample(2), Linear(), "outside the threat's bounds"),
        (Robustness(Linf(0.1)), sample(2, labels=False), Linear(), "nothing to measure by"),
        (SaliencyAlignment(layer="rwo"), sample(2), Linear(), "no layer 'rwo'"),
    ],
)
def test_what_cannot_be_done_is_reported_before_training(probe, given, network, message):
    with pytest.raises(ValueError, match=message), frozen_eval(network) as own:
        probe.check(own, given)
