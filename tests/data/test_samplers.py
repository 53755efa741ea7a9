"""Order and augmentation of training images depend on seed and epoch, not on the workers."""

import copy
import pickle

import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from fulgurite.data.digits import Digits
from fulgurite.data.folder import Folder
from fulgurite.data.samplers import EpochSampler, EvaluationSampler, SeededIndex, seeded_by


def epoch_of(data, epoch, *, started=False):
    """What an epoch shows; or, as on a resume, the epoch set after the iterator was asked for."""
    loader = data.train_dataloader()
    if started:
        batches = iter(loader)
        loader.sampler.set_epoch(epoch)
    else:
        loader.sampler.set_epoch(epoch)
        batches = iter(loader)
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def digits(**knobs):
    data = Digits(size=8, per_class=4, batch_size=8, **knobs)
    data.setup()
    return data


def photographs(folder, **knobs):
    for place, name in enumerate("ab"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(6):
            Image.new("RGB", (20, 20), (20 * number, 100 * place, 50)).save(folder / name / f"{number}.png")
    data = Folder(folder, size=16, augment="strong", batch_size=4, **knobs)
    data.setup()
    return data


@pytest.mark.parametrize("kind", ["digits", "photographs"])
def test_an_epoch_is_the_same_whenever_it_is_asked_for_and_unlike_others(kind, tmp_path):
    made = {"digits": digits, "photographs": lambda **knobs: photographs(tmp_path, **knobs)}[kind]
    data = made()
    first, second = (epoch_of(data, epoch) for epoch in (0, 1))
    torch.manual_seed(5)
    again = epoch_of(made(), 1, started=True)
    assert all(map(torch.equal, second, again))
    assert not torch.equal(first[1], second[1])
    assert not torch.equal(epoch_of(made(seed=1), 1)[0], second[0])
    # the same images, changed otherwise
    assert not torch.equal(first[0].sum((1, 2, 3)).sort().values, second[0].sum((1, 2, 3)).sort().values)


@pytest.mark.parametrize("started", [False, True])
def test_processes_that_load_ahead_change_nothing(started, tmp_path):
    alone = epoch_of(photographs(tmp_path), 2)
    assert all(map(torch.equal, alone, epoch_of(photographs(tmp_path, workers=2), 2, started=started)))


def test_processes_that_train_share_the_turns_out():
    data = digits()
    whole = list(EpochSampler(data.train, seed=3))
    parts = [list(EpochSampler(data.train, seed=3, ranks=2, rank=rank)) for rank in range(2)]
    assert [turn for pair in zip(*parts, strict=True) for turn in pair] == whole
    assert [turn.seed for pair in zip(*parts, strict=True) for turn in pair] == [turn.seed for turn in whole]
    assert sorted(whole) == list(range(len(data.train)))


def test_draws_of_a_turn_leave_all_others_alone():
    (turn, *_) = EpochSampler(digits().train, seed=0)
    before = torch.get_rng_state()
    with seeded_by(turn):
        first = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    with seeded_by(copy.copy(pickle.loads(pickle.dumps(turn)))):
        assert torch.equal(torch.rand(3), first)
    with seeded_by(int(turn)):
        torch.rand(3)
    assert not torch.equal(before, torch.get_rng_state())


def test_augmentation_of_an_image_does_not_depend_on_its_batch(tmp_path):
    data = photographs(tmp_path)
    turns = list(EpochSampler(data.train, seed=0))
    assert isinstance(turns[0], SeededIndex)
    images = [data.train[turn][0] for turn in turns]
    assert all(
        torch.equal(data.train[turn][0], image)
        for turn, image in reversed([*zip(turns, images, strict=True)])
    )


def test_in_a_plain_loop_each_full_pass_is_the_next_epoch():
    loader = digits().train_dataloader()
    next(iter(loader))
    passes = [torch.cat([images for images, _ in loader]) for _ in range(3)]
    for epoch, seen in enumerate(passes):
        assert torch.equal(seen, epoch_of(digits(), epoch)[0])


@pytest.mark.parametrize(("images", "ranks"), [(153, 2), (7, 3), (3, 3)])
def test_images_to_judge_by_are_shared_out_each_of_them_once(images, ranks):
    shares = [EvaluationSampler(range(images), ranks=ranks, rank=rank) for rank in range(ranks)]
    assert sorted(index for share in shares for index in share) == list(range(images))
    assert {len(share) for share in shares} <= {images // ranks, images // ranks + 1}
    assert all(len(list(share)) == len(share) for share in shares)


def test_a_process_without_an_image_to_judge_by_is_reported():
    with pytest.raises(
        ValueError, match="images to judge by: 2, processes that share them: 3; wanted one each"
    ):
        EvaluationSampler(range(2), ranks=3, rank=0)


@pytest.mark.parametrize("images", [64, 70, 75])
def test_two_processes_see_the_same_images_in_the_same_steps_as_one(images):
    data = TensorDataset(torch.zeros(images))
    alone = list(EpochSampler(data, seed=3))
    both = [list(EpochSampler(data, seed=3, ranks=2, rank=rank)) for rank in (0, 1)]
    for step in range(0, images, 16):
        together = [turn for own in both for turn in own[step // 2 : step // 2 + 8]]
        again = alone[: images % 2] if step + 16 > images else []
        expected = [*alone[step : step + 16], *again]
        assert sorted((turn, turn.seed) for turn in together) == sorted(
            (turn, turn.seed) for turn in expected
        )
