"""Accumulators: independent of how images are split into batches and processes."""

import random
from pathlib import Path

import pytest
import torch
from processes import in_two_processes
from torch.testing import assert_close
from torch.utils.data import DistributedSampler

from fulgurite.probes.accumulators import Accumulator, Counts
from fulgurite.probes.distributed import merge_processes, shard
from fulgurite.probes.moments import Moments
from fulgurite.probes.representation.similarity import cka, cka_from_moments
from fulgurite.probes.top_k import TopK

COUNT = 37
GENERATOR = torch.Generator().manual_seed(0)
ONE = torch.randn(COUNT, 6, generator=GENERATOR) + 3
OTHER = ONE @ torch.randn(6, 4, generator=GENERATOR) + torch.randn(COUNT, 4, generator=GENERATOR)
LABELS = torch.arange(COUNT) % 3
MAPS = torch.randn(COUNT, 5, 3, 4, generator=GENERATOR).mul(4).round() / 4  # with ties
PAIRS = [("one", "other"), ("one", "one"), ("other", "other")]


def moments() -> Moments:
    return Moments(PAIRS, classes=3)


KINDS = {
    "moments": (
        moments,
        lambda kept, ids: kept.update(ids, {"one": ONE[ids], "other": OTHER[ids]}, LABELS[ids]),
    ),
    "counts": (lambda: Counts(3, 4), lambda kept, ids: kept.update(ids, LABELS[ids], ids % 4)),
    "several counts": (
        lambda: Counts(5, 2),
        lambda kept, ids: kept.update(
            ids, torch.arange(5).expand(len(ids), 5), (MAPS[ids].amax((2, 3)) > 2).long()
        ),
    ),
    "top 4": (lambda: TopK(4), lambda kept, ids: kept.update(ids, MAPS[ids])),
}


def result(kept: Accumulator) -> dict[str, torch.Tensor]:
    """What is asked of it, without what it holds to know which images it has had."""
    return {
        name: value
        for name, value in kept.state_dict().items()
        if name != "seen" and not name.startswith("tail")
    }


def filled(kind: str, ids, size: int = COUNT) -> Accumulator:
    make, update = KINDS[kind]
    kept = make()
    for part in torch.tensor([*ids], dtype=torch.long).split(size):
        update(kept, part)
    return kept


def check_same(one: Accumulator, other: Accumulator) -> None:
    assert result(one).keys() == result(other).keys()
    for name, value in result(one).items():
        assert_close(value, result(other)[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 5, 36])
def test_batches_may_be_cut_and_ordered_in_any_way(kind, size):
    order = [*range(COUNT)]
    random.Random(size).shuffle(order)
    check_same(filled(kind, order, size), filled(kind, range(COUNT)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 3, 8, 40])
def test_processes_may_share_in_any_way_padding_and_all(kind, ranks):
    shares = [[*DistributedSampler(range(COUNT), ranks, rank, shuffle=False)] for rank in range(ranks)]
    assert sum(map(len, shares)) > COUNT
    parts = [filled(kind, share, 4) for share in shares]
    for order in (parts, parts[::-1]):
        merged = filled(kind, [])
        for part in order:
            merged.merge(part)
        check_same(merged, filled(kind, range(COUNT)))


@pytest.mark.parametrize("kind", KINDS)
def test_merging_in_pairs_is_merging_in_turn(kind):
    parts = [filled(kind, range(rank, COUNT, 4)) for rank in range(4)]
    parts[0].merge(parts[1])
    parts[2].merge(parts[3])
    parts[0].merge(parts[2])
    check_same(parts[0], filled(kind, range(COUNT)))
    # it goes on where it was
    KINDS[kind][1](parts[2], torch.arange(COUNT))
    check_same(parts[2], parts[0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_comes_again_counts_once(kind):
    kept = filled(kind, [*range(COUNT), 0, 0, 5, 5, *range(9)], 10)
    check_same(kept, filled(kind, range(COUNT)))
    check_same(filled(kind, [3, 3, 3, 1]), filled(kind, [1, 3]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_plain_tensors_that_restore_it(kind):
    kept = filled(kind, range(20), 6)
    state = torch.load(_saved(kept.state_dict()), weights_only=True)
    other = filled(kind, range(3))
    other.load_state_dict(state)
    check_same(other, kept)
    KINDS[kind][1](other, torch.arange(15, COUNT))
    check_same(other, filled(kind, range(COUNT)))
    assert torch.equal(next(iter(kept.state_dict().values())), next(iter(state.values())))


def _saved(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", ["moments", "counts"])
def test_sums_of_the_same_images_are_not_added(kind):
    one, other = filled(kind, range(COUNT)), filled(kind, range(5, 30))
    with pytest.raises(ValueError, match=r"\d+ images were counted in both, such as 5; wanted each in one"):
        one.merge(other)
    check_same(one, filled(kind, range(COUNT)))


def test_moments_are_those_of_all_features_at_once():
    kept = filled("moments", range(COUNT), 7)
    one, other = ONE.double(), OTHER.double()
    assert kept.count == COUNT
    assert_close(kept.mean("one"), one.mean(0))
    assert_close(kept.covariance("one"), one.T.cov(correction=0))
    joint = torch.cat([one, other], 1).T.cov(correction=0)
    assert_close(kept.covariance("one", "other"), joint[:6, 6:])
    for label, mean in enumerate(kept.class_means("other")):
        assert_close(mean, other[label == LABELS].mean(0))
    assert Moments().count == 0


def test_an_origin_near_the_mean_saves_digits():
    far = {"one": ONE.double() + 1e5, "other": OTHER.double() - 1e5}
    kept = Moments(PAIRS, classes=3, origin={name: values[0] for name, values in far.items()})
    kept.update(torch.arange(COUNT), far, LABELS)
    assert_close(kept.covariance("one"), far["one"].T.cov(correction=0), rtol=1e-9, atol=1e-9)
    assert_close(kept.mean("other"), far["other"].mean(0))
    assert_close(kept.class_means("one")[1], far["one"][LABELS == 1].mean(0))
    assert cka_from_moments(kept, "one", "other") == pytest.approx(cka(ONE, OTHER), abs=1e-9)


@pytest.mark.parametrize("shift", [0, 10])
def test_cka_from_sums_is_cka_of_full_matrices(shift):
    one, other = ONE.double() + shift, OTHER.double()
    kept = Moments(PAIRS)
    for ids in torch.arange(COUNT).split(5):
        kept.update(ids, {"one": one[ids], "other": other[ids]})
    assert cka_from_moments(kept, "one", "other") == pytest.approx(cka(one, other), abs=1e-9)
    assert cka_from_moments(kept, "one", "one") == pytest.approx(1, abs=1e-12)


def test_cka_of_features_that_never_change_is_nan():
    kept = Moments(PAIRS)
    kept.update(torch.arange(COUNT), {"one": torch.full((COUNT, 2), 1 / 3), "other": OTHER})
    assert cka_from_moments(kept, "one", "other") != cka_from_moments(kept, "one", "other")


def test_cka_needs_its_sums():
    kept = Moments([("one", "other")])
    kept.update(torch.arange(COUNT), {"one": ONE, "other": OTHER})
    with pytest.raises(ValueError, match=r"no products of the pair \('one', 'one'\); wanted Moments\(pairs="):
        cka_from_moments(kept, "one", "other")
    with pytest.raises(ValueError, match="3 images; wanted at least 4"):
        cka_from_moments(filled("moments", range(3)), "one", "other")


def test_a_confusion_matrix():
    predictions = (LABELS + (torch.arange(COUNT) % 5 == 0)) % 3
    kept = Counts(3, 3)
    for ids in torch.arange(COUNT).split(8):
        kept.update(ids, LABELS[ids], predictions[ids])
    expected = torch.zeros(3, 3, dtype=torch.long)
    for label, predicted in zip(LABELS, predictions, strict=True):
        expected[label, predicted] += 1
    assert torch.equal(kept.counts, expected)
    assert torch.equal(Counts(2, 3).counts, torch.zeros(2, 3, dtype=torch.long))


def test_the_top_k_by_brute_force():
    kept = filled("top 4", range(COUNT), 6)
    flat = MAPS.flatten(2)
    for unit in range(5):
        best = sorted((-float(flat[image, unit].max()), image) for image in range(COUNT))[:4]
        assert kept.values[unit].tolist() == [-value for value, _ in best]
        assert kept.ids[unit].tolist() == [image for _, image in best]
        for image, (row, column) in zip(kept.ids[unit], kept.positions[unit].tolist(), strict=True):
            own = flat[image, unit]
            assert row * 4 + column == next(place for place in range(12) if own[place] == own.max())


def test_the_top_of_fewer_images_than_asked_for_ends_in_nothing():
    kept = TopK(3)
    kept.update(torch.tensor([4, 9]), torch.tensor([[1.0, -torch.inf], [2.0, 0.0]]))
    assert kept.values.tolist() == [[2.0, 1.0, -torch.inf], [0.0, -torch.inf, -torch.inf]]
    assert kept.ids.tolist() == [[9, 4, -1], [9, 4, -1]]
    assert not kept.positions.any()


def check() -> None:
    rank = torch.distributed.get_rank()
    assert shard(COUNT) == range(rank, COUNT, 2)
    for kind in KINDS:
        own = filled(kind, DistributedSampler(range(COUNT), 2, rank, shuffle=False), 4)
        merge_processes(own)
        check_same(own, filled(kind, range(COUNT)))


@pytest.mark.slow
@pytest.mark.ranks
def test_two_processes_hold_the_same_in_the_end(tmp_path: Path):
    in_two_processes(__file__, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_process_has_nothing_to_merge(kind):
    kept = filled(kind, range(9))
    merge_processes(kept)
    check_same(kept, filled(kind, range(9)))
    assert shard(9) == range(9)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: TopK(0), "the top 0; wanted at least 1"),
        (lambda: TopK(2).merge(TopK(3)), "wanted another top 2 to merge with"),
        (
            lambda: TopK(2).update(torch.arange(2), torch.tensor([[1.0], [torch.nan]])),
            "responses that are NaN",
        ),
        (lambda: moments().merge(Counts(3)), "a Counts to merge with a Moments"),
        (lambda: Counts(3, 2).update(torch.arange(2), torch.arange(2)), "1 indices for a table of 3 x 2"),
        (
            lambda: Counts(3).update(torch.arange(2), torch.tensor([0, 3])),
            "indices from 0 to 3; wanted 0 to 2",
        ),
        (lambda: moments().update(torch.arange(COUNT), {"one": ONE}), "no features of other; there are one"),
        (
            lambda: Moments(classes=3).update(torch.arange(COUNT), {"one": ONE}),
            "no labels; wanted the number",
        ),
        (
            lambda: Moments(classes=2).update(torch.arange(COUNT), {"one": ONE}, LABELS),
            "labels up to 2; wanted 0 to 1",
        ),
        (
            lambda: Moments().update(torch.arange(2), {"one": torch.tensor([[1.0], [torch.inf]])}),
            "features of 'one' that are not finite",
        ),
    ],
)
def test_what_cannot_be_accumulated_is_reported(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_other_layers_or_units_than_before_are_reported():
    kept = Moments()
    kept.update(torch.arange(2), {"one": ONE[:2]})
    with pytest.raises(ValueError, match="of count, sum/other, norm/other; wanted those of count, sum/one"):
        kept.update(torch.arange(2, 4), {"other": ONE[:2]})
    top = filled("top 4", range(5))
    with pytest.raises(ValueError, match="6 units; wanted 5, as before"):
        top.update(torch.arange(COUNT), ONE)
