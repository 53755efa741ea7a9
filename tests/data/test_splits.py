"""Stratified splits, folds and few-shot subsets."""

import pytest
import torch

from fulgurite.data.splits import few, folded, inverse_frequency, set_aside

CLASSES = ("ants", "bees", "wasps")


@pytest.fixture
def labels():
    torch.manual_seed(0)
    return torch.tensor([0] * 23 + [1] * 7 + [2] * 40)[torch.randperm(70)]


def folds(labels, count, *, seed=0):
    return [folded(labels, CLASSES, fold=(number, count), seed=seed) for number in range(count)]


def members(labels, indices):
    return labels[indices].bincount(minlength=3)


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_folds_part_the_images(labels, count):
    for kept, aside in folds(labels, count):
        assert torch.equal(torch.cat([kept, aside]).sort().values, torch.arange(70))
    every = torch.cat([aside for _, aside in folds(labels, count)])
    assert torch.equal(every.sort().values, torch.arange(70))


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_every_class_and_the_whole_are_dealt_evenly(labels, count):
    for _, aside in folds(labels, count):
        assert ((members(labels, aside) - members(labels, torch.arange(70)) / count).abs() < 1).all()
        assert abs(len(aside) - 70 / count) < 1


@pytest.mark.parametrize("count", [2, 5])
def test_indices_are_in_order(labels, count):
    for kept, aside in folds(labels, count):
        assert (kept.diff() > 0).all()
        assert (aside.diff() > 0).all()


def test_the_seed_decides_the_folds(labels):
    once, again, other = (folds(labels, 5, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(once, again, strict=True))
    assert not any(torch.equal(a[1], b[1]) for a, b in zip(once, other, strict=True))


def test_nothing_of_it_touches_the_global_generator(labels):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    folds(labels, 5)
    few(labels, CLASSES, per_class=3, seed=0)
    set_aside(labels, share=0.2, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("fold", "words"),
    [
        ((0, 1), r"2 folds or more; got \(0, 1\)"),
        ((0, 0), "2 folds or more"),
        ((5, 5), r"from 0 to 4; got \(5, 5\)"),
        ((-1, 5), r"from 0 to 4; got \(-1, 5\)"),
        ((0, 8), "each of 8 folds .*there are 7 of 'bees'"),
        ((0, 30), "there are 23 of 'ants', 7 of 'bees'$"),
    ],
)
def test_a_fold_that_cannot_be_is_refused(labels, fold, words):
    with pytest.raises(ValueError, match=words):
        folded(labels, CLASSES, fold=fold, seed=0)


@pytest.mark.parametrize("per_class", [1, 3, 7])
def test_few_shot_subsets_have_equal_numbers_of_every_class(labels, per_class):
    chosen = few(labels, CLASSES, per_class=per_class, seed=0)
    assert members(labels, chosen).tolist() == [per_class] * 3
    assert (chosen.diff() > 0).all()


def test_more_include_fewer(labels):
    three, seven = (set(few(labels, CLASSES, per_class=count, seed=4).tolist()) for count in (3, 7))
    assert three < seven


def test_the_seed_decides_the_few(labels):
    once, again, other = (few(labels, CLASSES, per_class=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@pytest.mark.parametrize(
    ("per_class", "words"),
    [(0, "at least 1; got 0"), (8, "wanted 8 .*7 of 'bees'$"), (24, "23 of 'ants', 7 of")],
)
def test_more_than_there_are_is_refused(labels, per_class, words):
    with pytest.raises(ValueError, match=words):
        few(labels, CLASSES, per_class=per_class, seed=0)


def test_a_missing_class_is_reported():
    with pytest.raises(ValueError, match="0 of 'wasps'"):
        few(torch.tensor([0, 1]), CLASSES, per_class=1, seed=0)
    with pytest.raises(ValueError, match="0 of 'wasps'"):
        inverse_frequency(torch.tensor([0, 1]), CLASSES)


def test_weights_balance_the_classes(labels):
    weights = inverse_frequency(labels, CLASSES)
    assert weights.mean().item() == pytest.approx(1)
    totals = torch.zeros(3).index_add(0, labels, weights[labels])
    torch.testing.assert_close(totals, totals[:1].expand(3))


def test_weights_of_one_and_three():
    assert inverse_frequency(torch.tensor([0, 1, 1, 1]), ("a", "b")).tolist() == pytest.approx([1.5, 0.5])


def test_equal_classes_weigh_one():
    assert inverse_frequency(torch.arange(3).repeat(5), CLASSES).tolist() == [1, 1, 1]
