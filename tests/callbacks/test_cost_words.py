"""The lines in which a run tells what probing costs."""

from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.cost_words import cost_in_words
from fulgurite.callbacks.metrics import Metrics


def test_the_cost_is_told_in_two_short_lines():
    probes = [Metrics(name=f"a_probe_with_a_long_name_{n}", budget=0.1) for n in range(12)]
    budget = Budget(0.1)
    for one in probes:
        one.seconds = 1.0
        budget.charge(one.name, 1.0)
    assert cost_in_words(probes, budget, 40.0) == (
        "probes: 12, 12.0 s so far; then 10% of the training time, and the last run of each; in all at most "
        "about 41% of the run"  # 28 of 68 s
    )
    for place, one in enumerate(probes):
        one.waits, one.limited_to = place > 5, f"{place} of 20 images"
    first, second = cost_in_words(probes, budget, 40.0).splitlines()
    assert first.endswith("in all at most about a third of the run")
    assert second == (
        "as the training is short, on fewer: a_probe_with_a_long_name_0 0 of 20 images and 5 more; "
        "not before its end: a_probe_with_a_long_name_6, a_probe_with_a_long_name_7 and 4 more"
    )
    assert max(len(first), len(second)) < 180
    assert "no budget limits them" in cost_in_words(probes, None)
