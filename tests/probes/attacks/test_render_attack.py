"""Pictures of adversarial examples: tiles, captions, magnified differences."""

from functools import partial

import pytest
import torch

from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.render_attack import caption, magnification, name_of, row, within
from fulgurite.probes.attacks.threat import L1, L2, Linf
from fulgurite.probes.render import LINE, font


@pytest.fixture
def image():
    return torch.full((3, 4, 4), 0.5)


@pytest.mark.parametrize(
    ("largest", "factor"),
    [
        (0.5, 1),
        (0.3, 1),
        (0.25, 2),
        (0.15, 2),
        (0.1, 5),
        (0.05, 10),
        (8 / 255, 10),
        (2 / 255, 50),
        (1.0, 0.5),
    ],
)
def test_what_is_added_is_magnified_by_a_round_factor_and_never_cut_off(largest, factor):
    shift = torch.tensor([0, largest / 3, -largest])
    assert magnification(shift) == pytest.approx(factor)
    assert magnification(shift) * largest <= 0.5 * 1.01
    assert magnification(shift) * largest > 0.5 / 2.6


def test_a_radius_reached_up_to_rounding_keeps_its_factor():
    assert magnification(torch.tensor([torch.tensor(0.7) - torch.tensor(0.65)])) == 10


def test_a_row_is_the_image_what_was_added_and_the_sum(image):
    moved = image.clone()
    moved[0, 0, 0] += 0.05
    moved[1, 3, 3] -= 0.02
    first, added, last = row(image, moved, "before", "after", side=4)
    assert first[:, :4].eq(128).all()
    assert added[:, 0, 0].tolist() == [255, 128, 128]
    assert added[:, 3, 3].tolist() == [128, round((0.5 - 10 * 0.02) * 255), 128]
    assert added[:, 1:3, :4].eq(128).all()
    assert last[:, 0, 0].tolist() == [round(0.55 * 255), 128, 128]


def test_each_factor_is_a_tile(image):
    tiles = row(image, image + 0.01, "", "", times={1.0: "", 10.0: "", 50.0: ""}, side=4)
    assert [int(tile[0, 0, 0]) for tile in tiles] == [
        128,
        round(0.51 * 255),
        round(0.6 * 255),
        255,
        round(0.51 * 255),
    ]


def test_captions_may_have_several_lines(image):
    one, two = (row(image, image, caption, "", side=16)[0] for caption in ("a", "a\nb"))
    assert two.shape[1] - one.shape[1] == LINE


def test_where_nothing_was_added_all_is_grey(image):
    _, added, _ = row(image, image, "", "", side=4)
    assert added[:, :4].eq(128).all()


def test_grey_images_have_rows_too():
    assert all(len(tile) == 3 for tile in row(torch.zeros(1, 8, 8), torch.ones(1, 8, 8), "", ""))


def test_long_names_are_cut_to_leave_room_for_the_probability():
    assert caption("cat", 0.987) == "cat: 99%"
    shown = caption("Chesapeake Bay retriever", 1.0)
    assert shown.startswith("Chesap")
    assert shown.endswith("…: 100%")
    assert font().getlength(shown) <= 112 - 3
    assert caption("Chesapeake Bay retriever", 1.0, side=224) == "Chesapeake Bay retriever: 100%"


@pytest.mark.parametrize(
    ("threat", "words"),
    [
        (Linf("8/255"), "8/255 in Linf"),
        (Linf(2 / 255), "2/255 in Linf"),
        (Linf(0.15), "0.15 in Linf"),
        (Linf(0.2), "0.2 in Linf"),
        (L2(3.0), "3 in L2"),
        (L1(0), "0 in L1"),
    ],
)
def test_a_threat_in_words(threat, words):
    assert within(threat) == words


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (fgsm, "fgsm"),
        (partial(pgd, steps=50, restarts=5), "pgd(steps=50, restarts=5)"),
        (partial(partial(pgd, steps=50), steps=20), "pgd(steps=20)"),
        (partial(pgd), "pgd"),
    ],
)
def test_an_attack_in_words(attack, words):
    assert name_of(attack) == words


def test_an_object_that_attacks_is_called_by_its_class():
    class Strange:
        def __call__(self, network, images, labels, threat):
            return images

    assert name_of(Strange()) == "Strange"
