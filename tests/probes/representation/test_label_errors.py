"""Label errors and duplicates that were planted among digits are found."""

import pytest
import torch
from digits_network import digits, shifted, trained, trained_once

from fulgurite.probes.representation.codes import codes
from fulgurite.probes.representation.duplicates import near_duplicates
from fulgurite.probes.representation.label_errors import (
    neighbour_probabilities,
    suspected_label_errors,
    worst_mistakes,
)
from fulgurite.probes.representation.neighbours import pixel_codes


def flipped(labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels with 2 % of them wrong, and which these are."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(labels), generator=generator)[: round(0.02 * len(labels))]
    others = labels.clone()
    others[wrong] = (labels[wrong] + torch.randint(1, 10, (len(wrong),), generator=generator)) % 10
    return others, wrong


def found(order: torch.Tensor, wrong: torch.Tensor) -> float:
    """The share of the wrong labels among the first 4 %."""
    first = order[: round(0.04 * len(order))]
    return float(torch.isin(wrong, first).double().mean())


@pytest.mark.slow
def test_flipped_labels_are_among_the_first_suspects_though_the_network_has_learnt_from_them():
    (images, labels), (others, true) = digits()
    given, wrong = flipped(labels, 0)
    of_test, wrong_too = flipped(true, 1)
    net = trained(given)
    with torch.no_grad():
        probabilities = net(others).softmax(1)
    suspects = suspected_label_errors(probabilities, of_test)
    assert found(suspects.order, wrong_too) >= 0.8
    assert (suspects.classes[wrong_too] == true[wrong_too]).double().mean() >= 0.8
    by_neighbours = suspected_label_errors(neighbour_probabilities(codes(net, images), given, 10), given)
    assert found(by_neighbours.order, wrong) >= 0.8


def test_suspects_are_those_of_the_rule_by_hand():
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.85, 0.15], [0.3, 0.7], [0.45, 0.55]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    # least of class 0 is 0.85, of class 1 (0.15 + 0.7 + 0.55) / 3
    found = suspected_label_errors(probabilities, labels)
    assert found.suspected.tolist() == [False, False, True, False, False]
    assert found.classes.tolist() == [0, 0, 0, 1, 1]
    assert found.order.tolist() == [2, 4, 3, 1, 0]
    assert worst_mistakes(probabilities, labels).tolist() == [2]


@pytest.mark.slow
def test_planted_duplicates_are_all_found_and_hardly_any_others():
    (images, _), (others, _) = digits()
    planted = torch.arange(100, 140)
    noise = 0.03 * torch.randn(10, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    changed = [
        images[planted[:10]],
        images[planted[10:20]] + noise,
        images[planted[20:30]] * 1.1,
        images[planted[30:]] * 0.8,
    ]
    net, all_ = trained_once(), torch.cat([others, *changed]).clamp(0, 1)
    vectors, bank = ({"codes": codes(net, own), "pixels": pixel_codes(own)} for own in (all_, images))
    pairs = {(pair.one, pair.other) for pair in near_duplicates(vectors, bank)}
    wanted = {(len(others) + place, int(own)) for place, own in enumerate(planted)}
    assert wanted <= pairs
    assert len(pairs - wanted) <= 4
    within = near_duplicates({"pixels": pixel_codes(torch.cat([others, others[:3]]))})
    assert {(pair.one, pair.other) for pair in within if pair.distance == 0} == {
        (place, len(others) + place) for place in range(3)
    }


def test_codes_find_what_pixels_do_not():
    (images, _), _ = digits()
    moved = torch.cat([images[:200], shifted(images[:1], 1)])
    # whose codes are averages over positions: a shift changes them little, and pixels much
    vectors = {"codes": torch.randn(201, 8, generator=torch.Generator().manual_seed(0))}
    vectors["codes"][200] = vectors["codes"][0] + 1e-4
    vectors["pixels"] = pixel_codes(moved)
    (pair,) = (pair for pair in near_duplicates(vectors) if 200 in (pair.one, pair.other))
    assert (pair.one, pair.other, pair.by) == (0, 200, "codes")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: near_duplicates({"codes": torch.rand(2, 3)}), "2 images among 1 others; wanted at least 3"),
        (lambda: near_duplicates({"codes": torch.rand(5, 3)}, share=1.0), "share=1.0; wanted from 0"),
        (lambda: suspected_label_errors(torch.full((3, 2), torch.nan), torch.zeros(3).long()), "not finite"),
    ],
)
def test_invalid_input_is_reported(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
