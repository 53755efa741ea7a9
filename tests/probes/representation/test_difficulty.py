"""Difficulty: counts by hand, and parts that hold each image once."""

from itertools import pairwise

import pytest
import torch

from fulgurite.probes.representation.difficulty import (
    accuracy_by,
    class_difficulty,
    confused_pairs,
    confusion_counts,
    texture_amount,
)

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
ANSWERS = torch.tensor([0, 1, 1, 2, 1, 1, 2, 0])


def probabilities(answers: torch.Tensor, classes: int = 4, sure: float = 0.7) -> torch.Tensor:
    rest = (1 - sure) / (classes - 1)
    return torch.full((len(answers), classes), rest).scatter(1, answers[:, None], sure)


def test_classes_are_counted_the_hardest_first():
    found = class_difficulty(probabilities(ANSWERS), LABELS)
    assert [one.label for one in found] == [0, 2, 1]  # class 3 has no images
    hardest, _, easiest = found
    assert (hardest.count, hardest.right, hardest.accuracy) == (4, 1, 0.25)
    assert (hardest.taken_for, hardest.share) == (1, 0.5)
    assert hardest.probability == pytest.approx((0.7 + 3 * 0.1) / 4)
    assert hardest.calibration_error == pytest.approx(0.7 - 0.25)
    assert (easiest.accuracy, easiest.taken_for, easiest.share) == (1, -1, 0)
    low, high = hardest.interval
    assert low < 0.25 < high


def test_confusions_are_counted_in_both_directions():
    counts = confusion_counts(probabilities(ANSWERS), LABELS)
    assert counts.tolist() == [[1, 2, 1, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert confused_pairs(counts) == [(0, 1, 2, 0), (0, 2, 1, 1)]
    assert confused_pairs(torch.diag(torch.tensor([3, 4]))) == []
    assert confused_pairs(torch.tensor([[1, 1], [5, 0]])) == [(1, 0, 5, 1)]


def test_texture_is_the_total_variation_of_a_pixel():
    ramp = torch.arange(5.0)[None, None, None, :].expand(1, 3, 4, 5) / 10
    assert texture_amount(ramp).tolist() == pytest.approx([0.05])
    assert texture_amount(ramp.transpose(2, 3)).tolist() == pytest.approx([0.05])
    checked = (torch.arange(6)[:, None] + torch.arange(6)).remainder(2).float().expand(1, 1, 6, 6)
    assert texture_amount(torch.cat([checked, torch.full_like(checked, 0.3)])).tolist() == [1, 0]
    with pytest.raises(ValueError, match="images of 1 x 6 pixels; wanted at least 2 x 2"):
        texture_amount(checked[:, :, :1])


def test_parts_hold_each_image_once_in_order():
    values, right = torch.rand(103, generator=torch.Generator().manual_seed(0)), torch.arange(103) % 3 > 0
    found = accuracy_by(values, right)
    assert [part.count for part in found] == [21, 20, 21, 20, 21]
    assert sum(part.right for part in found) == int(right.sum())
    for before, after in pairwise(found):
        assert before.low <= before.high < after.low
    first = values <= found[0].high
    assert found[0].accuracy == pytest.approx(float(right[first].double().mean()))


def test_equal_values_are_in_one_part():
    found = accuracy_by(torch.tensor([1.0, 1, 1, 1, 2, 3]), torch.ones(6, dtype=torch.bool), parts=3)
    assert [(part.low, part.high, part.count) for part in found] == [(1, 1, 4), (2, 3, 2)]
    (only,) = accuracy_by(torch.ones(5), torch.ones(5, dtype=torch.bool))
    assert only.count == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_difficulty(torch.rand(2, 3), torch.tensor([0, 3])), "for 3 classes"),
        (lambda: class_difficulty(torch.rand(0, 3), torch.tensor([], dtype=torch.long)), "of 0 images"),
        (lambda: accuracy_by(torch.tensor([torch.nan]), torch.tensor([True])), "1 values in 5 parts"),
        (lambda: accuracy_by(torch.ones(2), torch.ones(2, dtype=torch.bool), parts=0), "in 0 parts"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
