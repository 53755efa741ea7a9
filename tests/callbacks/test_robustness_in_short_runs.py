"""Robustness in a run of two epochs: on fewer images, or left out. Time is simulated."""

from pathlib import Path

import pytest
import somebody
from simulated_time import CLOCK, SCALE, Sleeps, Slow, simulate, trained

from fulgurite.callbacks import robustness
from fulgurite.callbacks.framework import session
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.robustness import Robustness
from fulgurite.probes.attacks.gradient import fgsm
from fulgurite.probes.attacks.threat import Linf

BUDGET = Budget(0.1, floor=0.0)


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch):
    simulate(monkeypatch)
    monkeypatch.setattr(robustness, "perf_counter", lambda: CLOCK.now)


def probe(**how) -> Robustness:
    own = {"attacks": {"FGSM": fgsm}, "radii": [0.05], "checks_every": None, "budget": BUDGET} | how
    return Robustness(Linf(0.1), **own, **SCALE)


def test_it_takes_a_third_of_the_run_at_most_and_the_line_says_so(tmp_path: Path, caplog):
    assert trained(tmp_path, probe(), epochs=2) <= 1 / 3
    assert "in all at most about " in caplog.text


def test_one_that_is_too_expensive_is_left_out_and_the_others_run(tmp_path: Path, caplog):
    others = [Sleeps(name=f"other {place}", budget=BUDGET, **SCALE) for place in range(3)]
    expensive = probe(checks_every=1)
    assert trained(tmp_path, expensive, *others, epochs=2) <= 1 / 3
    assert expensive.left_out
    assert not any(one.left_out for one in others)
    assert {tag.split("/")[0] for tag in somebody.scalars(tmp_path)} >= {one.name for one in others}
    assert "left out, as the training was too short for them: Robustness; " in caplog.text


def test_its_expected_time_is_that_of_its_last_run(tmp_path: Path):
    own = probe()
    trainer = somebody.quiet(tmp_path, own, max_epochs=40)
    seen = []
    whole = session.Session._look

    def looked(session_of, one, *rest):
        before = CLOCK.now
        whole(session_of, one, *rest)
        seen.append((one.look.last, CLOCK.now - before))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.Session, "_look", looked)
        trainer.fit(Slow(), somebody.loader(), somebody.loader(9))
        measured = session.session_of(trainer).short.costs["Robustness"].seconds(1.0)
    *_, (last, took) = seen
    assert last
    assert 0.9 * took <= measured <= 3 * took
