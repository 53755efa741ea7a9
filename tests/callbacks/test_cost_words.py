"""The lines in which a run tells what probing costs."""

from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.cost_words import cost_in_words, included_by, what_it_took
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
    assert first.endswith("in all at most about 31% of the run")  # 0.45 s for each second of training
    assert second == (
        "as the training is short, on fewer: a_probe_with_a_long_name_0 0 of 20 images and 5 more; "
        "not before its end: a_probe_with_a_long_name_6, a_probe_with_a_long_name_7 and 4 more"
    )
    assert max(len(first), len(second)) < 180
    assert "no budget limits them" in cost_in_words(probes, None)


def test_the_limit_is_of_those_with_a_budget_and_no_less_than_they_have_taken():
    limited, free, waiting = Metrics(budget=0.1), Metrics(name="free"), Metrics(name="late", budget=0.1)
    budget = Budget(0.1)
    limited.seconds, free.seconds, waiting.waits = 30.0, 50.0, True
    budget.charge(limited.name, 30.0)
    assert "those with a budget at most about 60% of the run; without limit: free" in cost_in_words(
        [limited, free, waiting], budget, 40.0
    )


def test_what_was_left_out_is_named_with_what_would_include_it_and_only_its_measuring_took_time():
    out, ran = Metrics(name="out", budget=0.1), Metrics(name="ran", budget=0.1)
    out.seconds, out.left_out, ran.seconds = 0.3, True, 0.7
    words = what_it_took([out, ran], 0.0, 10.0)
    assert words.splitlines()[0].endswith("(10%): ran 0.7 s, measuring those left out 0.3 s")
    assert "budget=1" in words
    assert "trainer.validate(" in words
    assert "--budget" not in words
    with included_by("--budget 1 includes them"):
        assert what_it_took([out, ran], 0.0, 10.0).endswith("a longer training or --budget 1 includes them")
