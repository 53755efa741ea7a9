"""Numbers with their nouns."""

import pytest

from fulgurite.probes.counted import counted


@pytest.mark.parametrize(
    ("number", "noun", "printed"),
    [
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (8, "patch", "8 patches"),
        (3, "epoch", "3 epochs"),
        (1, "error slice", "1 error slice"),
    ],
)
def test_one_thing_has_a_singular(number: int, noun: str, printed: str):
    assert counted(number, noun) == printed
