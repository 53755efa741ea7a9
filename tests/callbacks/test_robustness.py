"""Robust accuracy by attack and radius, its sanity checks, and how often the expensive parts run."""

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import somebody
import torch
from attack_callbacks import SCALE, Linear, Probabilities, looked, numbers, pixels, sample, steps_of
from drawn_words import words
from torch import nn

from fulgurite.callbacks import robustness
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.minimal_distances import MinimalDistances
from fulgurite.callbacks.robustness import Robustness
from fulgurite.probes.attacks.gradient import fgsm
from fulgurite.probes.attacks.threat import L2, Linf
from fulgurite.probes.robustness.report import CUMULATIVE, UNCHECKED

CHEAP = {"checks_every": None}


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.05)], ids=repr)
def test_on_a_linear_network_the_accuracy_at_each_radius_is_the_closed_form(threat):
    given, weight = sample(), Linear().row.weight[0].detach()
    # moved by r, w.x moves by r times the dual norm of w, and both logits at once
    dual = weight.abs().sum() if isinstance(threat, Linf) else weight.norm()
    reaches = ((given.images - 0.5).flatten(1) @ weight).abs() / dual
    seen = numbers(looked(Robustness(threat, **CHEAP), given))
    for radius in (0.5 * threat.epsilon, threat.epsilon, 1.5 * threat.epsilon, 2 * threat.epsilon):
        exact, found = float((reaches > radius).float().mean()), seen[f"at radius {radius:.3g}"]
        # on a sphere, steps come near the worst point but not quite there: it matters to an image or two
        assert exact - 1e-6 <= found <= exact + (1e-6 if isinstance(threat, Linf) else 2.1 / len(given))
    assert seen["PGD-20"] == seen[f"at radius {threat.epsilon:.3g}"]
    assert seen["clean"] == 1
    assert 0 < seen["PGD-20"] < 1


def test_every_attack_is_on_what_the_ones_before_it_left():
    asked = []

    def counted(network, images, labels, threat, *, to):
        asked.append(len(images))
        return fgsm(network, images, labels, threat) if to == "fool" else images

    attacks = {"first": partial(counted, to="fool"), "second": partial(counted, to="keep")}
    seen = numbers(looked(Robustness(Linf(0.005), attacks=attacks, radii=[0], **CHEAP), sample(60)))
    assert asked == [60, round(60 * seen["first"])]
    assert seen["second"] == seen["first"] < 1


def test_the_curve_begins_at_the_clean_accuracy_and_shows_the_ensemble(monkeypatch):
    monkeypatch.setattr(robustness, "ensemble", lambda threat, classes, **_: {"strong": fgsm})
    drawn = {}
    monkeypatch.setattr(
        robustness,
        "line_plot",
        lambda lines, **how: drawn.update(lines, vline=how["vline"]) or torch.zeros(3, 2, 2).byte(),
    )
    seen = looked(Robustness(Linf(0.005), ensemble_every=1, **CHEAP), sample(60))
    assert drawn["PGD-20"][0] == (0, numbers(seen)["clean"])
    assert [radius for radius, _ in drawn["PGD-20"]] == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01])
    assert drawn["ensemble"] == [(0.005, numbers(seen)["ensemble"])]
    assert drawn["vline"] == 0.005
    assert [row[0] for row in seen["stages"].rows] == ["clean", "PGD-20", "+ strong", CUMULATIVE, UNCHECKED]


def test_with_two_classes_the_margin_replaces_the_targeted_dlr_with_a_note(monkeypatch):
    real = robustness.ensemble
    monkeypatch.setattr(
        robustness, "ensemble", lambda threat, classes, **_: dict.fromkeys(real(threat, classes), fgsm)
    )
    probe = Robustness(Linf(0.004), ensemble_every=1, **CHEAP)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = looked(probe, sample(10))["stages"].rows
    assert [row[0] for row in rows][:4] == ["clean", "PGD-20", "+ APGD-CE", "+ APGD-T (margin)"]
    assert len(rows) == 9
    assert rows[-3][0] == CUMULATIVE
    assert "margin" in rows[-2][0]
    assert rows[-1][0] == UNCHECKED


@pytest.mark.parametrize(("network", "failed"), [(Linear, False), (Probabilities, True)])
def test_checks_that_fail_are_counted_and_named(network, failed):
    seen = looked(Robustness(Linf(0.005), checked=16, radii=[0]), sample(40), network())
    verdicts = {name: verdict for name, _, verdict, _ in seen["checks"].rows}
    assert len(verdicts) == 9
    assert (verdicts["softmax outputs"] == "FAIL") is failed
    assert numbers(seen)["failed checks"] == sum(verdict == "FAIL" for verdict in verdicts.values())
    assert (numbers(seen)["failed checks"] > 0) is failed
    notes = [row[0] for row in seen["stages"].rows]
    assert any("checks failed" in note for note in notes) is failed
    assert UNCHECKED not in notes


class Steps(nn.Module):
    """Right about the first 64 images, by steps that have no gradient; wrong about all others."""

    def forward(self, images):
        bright = (images.mean((1, 2, 3)) > 0.5).long()
        return nn.functional.one_hot(bright, 2).float()


@pytest.mark.parametrize("wrong", [0, 64])
def test_without_a_gradient_the_remaining_results_are_reported(wrong):
    given = sample(128)
    labels = (given.images.mean((1, 2, 3)) > 0.5).long()
    labels[64 : 64 + wrong] = 1 - labels[64 : 64 + wrong]
    given = Sample(given.images, labels, given.classes, given.device)
    seen = looked(Robustness(Linf(0.005), checked=16, radii=[0, 0.01]), given, Steps())
    assert numbers(seen)["clean"] == 1 - wrong / 128
    assert "PGD-20" not in numbers(seen)
    assert not any(name.startswith("at radius") for name in numbers(seen))
    verdicts = {name: (verdict, says) for name, _, verdict, says in seen["checks"].rows}
    for name in ("one step beats many", "radius 0 is not clean", "more steps still help"):
        assert verdicts[name][0] == "FAIL"
        assert verdicts[name][1].startswith("could not be checked")
    assert any("was left out" in row[0] for row in seen["stages"].rows)
    assert numbers(seen)["failed checks"] > 0


@pytest.fixture
def cheap(monkeypatch):
    """The ensemble and the checks cost nothing."""
    monkeypatch.setattr(robustness, "ensemble", lambda threat, classes, **_: {"FGSM": fgsm})
    monkeypatch.setattr(robustness, "sanity_checks", lambda *given: [])


def watched(**how) -> Robustness:
    dear = {"ensemble_every": 2, "checks_every": 3}
    return Robustness(Linf(0.05), **{**dear, "radii": [0], "images": 6, "on_error": "raise", **SCALE, **how})


def test_expensive_parts_run_every_few_looks_and_at_the_last(tmp_path: Path, cheap):
    somebody.quiet(tmp_path, watched(), max_epochs=5).fit(
        somebody.Theirs(), somebody.loader(), somebody.loader(9)
    )
    steps = steps_of(tmp_path)
    assert steps["Robustness/clean"] == steps["Robustness/PGD-20"] == [0, 3, 6, 9, 12, 15]
    assert steps["Robustness/ensemble"] == [6, 12, 15]
    assert steps["Robustness/failed checks"] == [9, 15]


def test_looks_are_counted_not_epochs(tmp_path: Path, cheap):
    trainer = somebody.quiet(tmp_path, watched(every=2), max_epochs=8)
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    assert steps_of(tmp_path)["Robustness/ensemble"] == [12, 24]


def test_a_resumed_run_continues_counting(tmp_path: Path, cheap):
    model, data = somebody.Theirs(), (somebody.loader(), somebody.loader(9))

    class Stops(somebody.pl.Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = trainer.current_epoch == 0

    trainer = somebody.quiet(tmp_path / "one", watched(), Stops(), max_epochs=9)
    trainer.fit(model, *data)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    again = somebody.quiet(tmp_path / "two", watched(), max_epochs=5)
    again.fit(somebody.Theirs(), *data, ckpt_path=tmp_path / "after.ckpt", weights_only=False)
    assert steps_of(tmp_path / "two")["Robustness/ensemble"] == [6, 12, 15]


def test_expensive_parts_can_be_switched_off(tmp_path: Path):
    probe = watched(ensemble_every=None, curve_every=None, checks_every=None)
    somebody.quiet(tmp_path, probe).fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    assert (
        not {"Robustness/ensemble", "Robustness/failed checks", "Robustness/at radius 0.05"}
        & steps_of(tmp_path).keys()
    )


def test_the_curve_of_several_labels_says_exact_match():
    given = sample()
    targets = torch.stack([given.labels == 0, given.labels == 1], 1).float()
    labels = replace(given, labels=None, targets=targets, task="multilabel")
    for one, words_of_one in ((given, "accuracy on 150 images"), (labels, "exact match on 150 images")):
        for probe in (Robustness(Linf(0.01), **CHEAP), MinimalDistances(steps=2)):
            drawn = [line for picture in pixels(looked(probe, one)).values() for line in words(picture)]
            assert words_of_one in " ".join(drawn)
