import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fulgurite.probes.objectives import (
    channel,
    class_score,
    direction,
    energy,
    log_probability,
    match,
    pooled,
    probability,
    unit,
)

LOGITS = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
MAPS = torch.arange(60.0).view(2, 3, 2, 5)
SEEN = {"": LOGITS, "maps": MAPS, "code": LOGITS}


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (class_score(1), [2, 16]),
        (class_score(torch.tensor([2, 0])), [4, 8]),
        (class_score(torch.tensor(2)), [4, 32]),
        (class_score(0, layer="maps"), [4.5, 34.5]),
        (class_score(0) + class_score(1), [3, 24]),
        (class_score(1) - class_score(0), [1, 8]),
        (2 * class_score(0), [2, 16]),
        (class_score(0) * 0.5, [0.5, 4]),
        (-class_score(0), [-1, -8]),
        (2 * (class_score(0) + channel("maps", 1)) - class_score(2), [27, 73]),
        (probability(0), F.softmax(LOGITS, 1)[:, 0].tolist()),
        (log_probability(0), F.log_softmax(LOGITS, 1)[:, 0].tolist()),
        (channel("maps", 2), [24.5, 54.5]),
        (channel("code", 2), [4, 32]),
        (unit("maps", 0), [7, 37]),
        (unit("maps", 1, row=0, column=4), [14, 44]),
        (unit("code", 1), [2, 16]),
        (direction("code", torch.tensor([1.0, 0, -1])), [-3, -24]),
        (direction("code", torch.tensor([[1.0, 0, 0], [0, 1, 0]])), [1, 16]),
        (direction("maps", torch.tensor([1.0, 0, 1])), [29, 89]),
        (match("maps", MAPS), [0, 0]),
        (match("code", torch.zeros(2, 3) + 1), [-10 / 3, -(49 + 225 + 961) / 3]),
        (energy("code"), [10.5, (64 + 256 + 1024) / 2]),
    ],
)
def test_an_objective_is_the_number_worked_out_by_hand(objective, expected):
    assert_close(objective.value(SEEN), torch.tensor(expected, dtype=torch.float32))


def test_a_sum_reads_the_layers_of_both():
    assert (class_score(0) + 3 * channel("maps", 1) - energy("code")).layers == {"", "maps", "code"}


def test_half_precision_maps_are_summed_in_float32():
    assert energy("maps").value({"maps": torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16)}) == 2048e4


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (class_score(3), "no class 3: there are 3, counted from 0"),
        (class_score(-1), "no class -1: there are 3"),
        (log_probability(torch.tensor([0, 5])), "no class 5: there are 3"),
        (channel("maps", 9), "no channel 9: there are 3"),
        (unit("maps", 0, row=2), r"no unit at row 2, column 2 of 'maps': its maps are \(2, 5\)"),
        (class_score(torch.tensor([0, 1, 2])), "3 class indices for 2 images"),
        (direction("maps", torch.ones(4)), r"'maps' puts out \(3,\), but \(4,\) came"),
        (match("maps", torch.ones(2, 3)), r"'maps' puts out \(3, 2, 5\), but \(2, 3\) came"),
    ],
)
def test_what_a_layer_does_not_have_is_told(objective, says):
    with pytest.raises(ValueError, match=says):
        objective.value(SEEN)


def test_a_single_number_per_image_is_no_row_of_logits():
    with pytest.raises(
        ValueError, match=r"wanted a row of values for each image, got a tensor of shape \(4,\)"
    ):
        pooled(torch.ones(4))


def test_no_image_has_no_number():
    none = torch.zeros(0, dtype=torch.long)
    assert class_score(none).value({"": torch.ones(0, 3)}).shape == (0,)
