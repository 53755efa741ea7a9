"""The budget: its share is kept, and every probe has looks."""

import pytest

from fulgurite.callbacks.framework.budget import Budget


def simulated(
    share: float, costs: dict[str, float], *, epochs: int = 200, epoch: float = 1.0, floor: float = 0.0
):
    """Looks of each probe, and the share of the training time that they took."""
    budget, looks = Budget(share, floor=floor), dict.fromkeys(costs, 0)
    for number in range(epochs + 1):
        for name, cost in costs.items():
            if number in (0, epochs) or budget.allows(name, number * epoch):
                looks[name] += 1
                budget.charge(name, cost)
    spent = sum(cost * looks[name] for name, cost in costs.items())
    return looks, spent / (epochs * epoch)


def test_what_is_cheap_enough_looks_every_time():
    looks, _ = simulated(0.1, {"a": 0.02, "b": 0.03})
    assert looks["a"] > 195
    assert looks["b"] > 195


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_share_is_kept(share: float):
    _, spent = simulated(share, {"cheap": 0.01, "dear": 2.0, "dearer": 5.0}, epochs=2000)
    assert spent <= 1.01 * share


def test_every_probe_gets_looks_and_little_budget_is_unspent():
    looks, spent = simulated(0.1, {"cheap": 0.01, "dear": 1.0, "dearest": 4.0}, epochs=1000)
    assert looks["cheap"] > 950
    assert looks["dear"] >= 40
    assert looks["dearest"] >= 9
    assert 0.08 < spent < 0.11


def test_a_toy_run_is_not_blind():
    looks, _ = simulated(0.1, {"dear": 0.2}, epochs=6, epoch=0.1, floor=0.7)
    assert looks["dear"] >= 3


@pytest.mark.parametrize("share", [0, -0.1, 1.01, 10])
def test_a_share_that_is_none_is_reported(share: float):
    with pytest.raises(ValueError, match=r"wanted a share of the training time, 0\.1 for a tenth"):
        Budget(share)


def test_probes_may_take_as_long_as_the_training():
    assert simulated(1, {"dear": 2.0})[1] == pytest.approx(1, abs=0.02)
