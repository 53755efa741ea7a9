"""From measured numbers to a cell of the table, a recommendation and a command."""

import re
import shlex
from dataclasses import replace

import pytest
import torch

from fulgurite.probes.vector import as_svg
from fulgurite.recipes.advice import PROBES, Estimate, Tried, ahead, command, estimate, quadrant, recommended
from fulgurite.recipes.advice_report import Advice

approx = pytest.approx


def right(share: float, count: int = 200):
    """The first images are classified correctly."""
    return torch.arange(count) < share * count


def tried(mean: float, seconds: float, error: float = 0.01):
    return Tried(Estimate(mean, error, 2 * error), seconds)


def test_an_interval_of_repeats_is_students():
    found = estimate([0.7, 0.8, 0.9])
    assert found.mean == approx(0.8)
    assert found.error == approx(0.1 / 3**0.5)
    assert found.half == approx(4.3027 * found.error, rel=1e-4)


def test_equal_accuracies_are_no_surer_than_their_images():
    found = estimate([0.9, 0.9, 0.9], images=100)
    assert found.error == approx(0.03, abs=0.001)
    assert found.half == approx(1.96 * found.error, rel=1e-3)
    assert estimate([1.0, 1.0], images=50).error > 0


def test_what_counting_explains_of_the_spread_is_not_counted_twice():
    wide, narrow = estimate([0.5, 0.9, 0.7], images=10_000), estimate([0.5, 0.9, 0.7], images=20)
    assert wide.half == approx(estimate([0.5, 0.9, 0.7]).half, rel=0.01)
    assert narrow.half < wide.half
    assert narrow.error == approx(wide.error, rel=0.01)


def test_one_measurement_is_none():
    with pytest.raises(ValueError, match="wanted two or more"):
        estimate([0.5])


def test_a_difference_is_as_sure_as_the_two_agree():
    one, other = right(0.9), right(0.8)
    found = ahead(one, other)
    assert found.mean == approx(0.1)
    assert found.error == approx((0.1 * 0.9 / 200) ** 0.5)
    crossed = ahead(one, other.flip(0))  # as far apart on average, and disagreeing more
    assert crossed.mean == approx(0.1)
    assert crossed.error > found.error
    assert ahead(one, one).error == approx(1 / 200)


def test_who_chooses_the_best_of_many_must_be_surer():
    assert ahead(right(0.9), right(0.8), among=6).half > ahead(right(0.9), right(0.8)).half


@pytest.mark.parametrize(
    ("early", "late", "half", "cell"),
    [
        (0.6, 0.9, 0.8, "similar to .* few"),
        (0.9, 0.6, 0.8, "different from .* few"),
        (0.6, 0.9, 0.9, "similar to .* many"),
        (0.9, 0.6, 0.9, "different from .* many"),
    ],
)
def test_the_numbers_find_the_cell(early, late, half, cell):
    count = 2000
    fully = {"stem": right(early, count), "top": right(late, count)}
    halfway = {"stem": right(min(early, half), count), "top": right(min(late, half), count)}
    assert re.search(cell, quadrant(fully, halfway).sentence())


def test_too_few_images_to_see_a_flat_curve_are_little():
    few, many = ({"a": right(0.5, count), "b": right(0.9, count)} for count in (40, 4000))
    assert quadrant(few, few).little
    assert "is not known to be flat" in quadrant(few, few).reasons()[1]
    assert not quadrant(many, many).little


def test_an_earlier_stage_that_is_a_little_better_proves_nothing():
    found = quadrant({"a": right(0.91), "b": right(0.905)}, {"a": right(0.8), "b": right(0.8)})
    assert found.similar
    assert found.stage == found.earlier == "a"
    assert found.gain is not None
    assert found.gain.mean == approx(0.005)


def test_a_network_of_one_stage_has_no_earlier_one():
    found = quadrant({"a": right(0.9)}, {"a": right(0.7)})
    assert found.gain is None
    assert found.similar
    assert "counts as similar" in found.reasons()[0]


def test_stages_must_be_the_same():
    with pytest.raises(ValueError, match="wanted the same"):
        quadrant({"a": right(0.9)}, {"b": right(0.9)})


def test_the_cheapest_within_one_standard_error_of_the_best_is_recommended():
    found = {"linear": tried(0.900, 5), "last": tried(0.905, 10), "full": tried(0.91, 30)}
    assert recommended(found) == "linear"
    assert recommended({**found, "linear": tried(0.899, 5)}) == "last"
    # its own error does not help a strategy, the best one's does
    assert recommended({**found, "linear": tried(0.899, 5, error=0.1)}) == "last"
    assert recommended({**found, "full": tried(0.95, 30)}) == "full"


def test_no_strategy_is_not_recommended():
    with pytest.raises(ValueError, match="no strategy was tried"):
        recommended({})


def test_a_command_is_read_as_it_was_meant():
    knobs = {"path": "my photos/it's", "weights": None, "pretrained": True, "size": 128}
    words = shlex.split(command("finetune", knobs))
    assert words[1:] == [
        "fit",
        "finetune",
        "--path",
        "my photos/it's",
        "--pretrained",
        "true",
        "--size",
        "128",
    ]


def advice(**strategies):
    curve = {
        count: {stage: estimate([low, low + 0.1]) for stage, low in (("stem", 0.5), ("top", 0.7))}
        for count in ("half", "all")
    }
    cell = quadrant({"stem": right(0.5), "top": right(0.9)}, {"stem": right(0.5), "top": right(0.7)})
    commands = {name: f"train {name}" for name in strategies}
    return Advice({"cat": 60, "dog": 40}, 2, 3, curve, cell, strategies, commands, 1.0)


def test_advice_has_the_measurements_and_the_lectures_strategy():
    reported = advice(linear=tried(0.9, 5), full=tried(0.91, 50))
    printed = "\n".join(reported.lines())
    assert "100 images of 2 classes (60.0 % are of the commonest)" in printed
    assert "similar to those of the network's own training, and there are few of them:" in printed
    assert "The rule of thumb for such data (CS231n): a linear classifier on top." in printed
    assert "the cheapest within one standard error (1.0) of the best, full" in printed
    assert "train linear" in printed
    assert "train full" not in printed
    assert reported.as_dict()["recommended"] == "linear"
    assert reported.as_dict()["best measured"] == "full"
    drawn = as_svg(reported.picture())
    assert "chance 0.5" in drawn
    assert ">0.4<" not in drawn  # the axis begins there


def test_no_interval_reaches_beyond_what_an_accuracy_can_be():
    assert str(Estimate(0.599, 0.09, 1.157)) == "59.9 (0.0 to 100.0) %"
    assert str(Estimate(0.9, 0.1, 0.2)) == "90.0 (70.0 to 100.0) %"
    assert str(Estimate(0.5, 0.1, 0.2)) == "50.0 ± 20.0 %"


def test_advice_warns_of_two_folds_and_lists_untried_strategies():
    reported = replace(advice(linear=tried(0.9, 5)), epochs=1, untried=["last", "gradual"])
    printed = "\n".join(reported.lines())
    assert "Two folds say little" in printed
    assert "Two folds" not in "\n".join(replace(reported, folds=3).lines())
    assert "after 1 epoch of training" in printed
    assert "not tried: last, gradual; --strategies last,gradual tries them" in printed


def test_advice_does_not_bend_to_the_lecture():
    reported = advice(linear=tried(0.7, 5), scratch=tried(0.95, 50))
    printed = "\n".join(reported.lines())
    assert reported.strategy == "scratch"
    assert "That is not what the rule says" in printed
    assert "of no use" in printed


def test_a_probe_is_what_the_lecture_means_by_a_linear_classifier():
    top, earlier = (PROBES[last] for last in (True, False))
    assert "Rule and measurement agree" in "\n".join(advice(**{top: tried(0.9, 5)}).lines())
    assert "That is not what the rule says" in "\n".join(advice(**{earlier: tried(0.9, 5)}).lines())
