"""The digits data module: images, folds, few-shot subsets, and what is refused."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

from fulgurite.data.digits import Digits


def ready(**knobs):
    data = Digits(**knobs)
    data.setup()
    return data


def test_facts_are_known_at_once():
    data = Digits()
    assert (data.classes, data.channels, data.size) == (tuple("0123456789"), 1, 32)
    assert 0.2 < data.mean[0] < 0.4
    assert 0.2 < data.std[0] < 0.5


def test_the_statistics_are_those_of_the_training_images():
    data = ready(shift=0, noise=0)
    images = torch.stack([image for image, _ in data.train])
    assert images.mean().item() == pytest.approx(data.mean[0], rel=1e-4)
    assert images.std().item() == pytest.approx(data.std[0], rel=1e-4)


def test_the_parts_share_out_all_digits():
    data = ready(shift=0, noise=0, size=8)
    sizes = [len(part) for part in (data.train, data.val, data.test)]
    assert sum(sizes) == 1797
    assert sizes == pytest.approx([0.7 * 1797, 0.1 * 1797, 0.2 * 1797], abs=5)
    together = torch.cat([part.images for part in (data.train, data.val, data.test)])
    # scikit-learn's 1797 are all different
    assert len(together.flatten(1).unique(dim=0)) == 1797


def test_every_class_is_divided_equally():
    data = ready()
    for part in (data.train, data.val, data.test):
        counts = part.labels.bincount(minlength=10) / len(part)
        assert (counts - 0.1).abs().max() < 0.01


def test_the_seed_decides_the_split():
    assert torch.equal(ready(seed=1).val.images, ready(seed=1).val.images)
    assert not torch.equal(ready(seed=1).val.images, ready(seed=2).val.images)


def test_making_them_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ready()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [8, 28, 32])
def test_images_are_in_bounds_and_of_the_size(size):
    data = ready(size=size, batch_size=500)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for images, labels in loader:
            assert images.shape == (len(labels), 1, size, size)
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
            assert images.min() >= 0
            assert images.max() <= 1


def test_only_training_images_change():
    data = ready()
    assert torch.equal(data.val[3][0], data.val[3][0])
    assert not torch.equal(data.train[3][0], data.train[3][0])
    still = ready(shift=0, noise=0)
    assert torch.equal(still.train[3][0], still.train[3][0])


def test_one_index_gives_what_the_batch_gives():
    data = ready()
    images, labels = next(iter(data.val_dataloader()))
    for index in range(10):
        image, label = data.val[index]
        assert torch.equal(image, images[index])
        assert label == labels[index]
        assert isinstance(label, int)


def test_iterating_a_part_ends():
    assert len(list(ready().val)) == len(ready().val)


def test_the_training_order_depends_on_the_seed_and_not_on_the_global_generator():
    def epoch(seed):
        data = ready(size=8, batch_size=500, seed=seed)
        return torch.cat([images.flatten(1).mean(1) for images, _ in data.train_dataloader()])

    first = epoch(5)
    torch.manual_seed(1)
    assert torch.equal(first, epoch(5))
    assert not torch.equal(first, epoch(6))


def test_training_never_ends_on_a_single_image():
    data = Digits()
    data.setup()
    images = len(data.train)
    data.batch_size = images - 1
    assert [len(labels) for _, labels in data.train_dataloader()] == [images - 1]
    data.batch_size = images - 2
    assert [len(labels) for _, labels in data.train_dataloader()] == [images - 2, 2]
    data.batch_size = 1
    assert len(data.train_dataloader()) == images


def test_nor_does_it_on_one_of_two_ranks():
    data = ready()
    data.trainer = SimpleNamespace(world_size=2, global_rank=0)
    share = -(-len(data.train) // 2)
    data.batch_size = share - 1
    assert data.train_dataloader().drop_last
    data.batch_size = share - 2
    assert not data.train_dataloader().drop_last


def test_a_user_loader_can_use_the_parts_collate():
    data = ready()
    images, labels = next(iter(DataLoader(data.val, batch_size=7, collate_fn=data.val.collate)))
    assert (len(images), len(labels)) == (7, 7)


def test_it_loads_in_other_processes():
    data = ready(workers=1)
    with_help = [labels for _, labels in data.val_dataloader()]
    assert torch.equal(torch.cat(with_help), data.val.labels)
    assert len(pickle.loads(pickle.dumps(data.train))) == len(data.train)


def test_a_trainer_takes_it(tmp_path):
    class Model(BoringModel):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, images):
            return self.layer(images.flatten(1))

        def training_step(self, batch, _):
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.log("seen", float(len(batch[1])))

    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Model(), datamodule=Digits(size=8))
    assert trainer.global_step == len(ready().train_dataloader())


def pictures(*parts):
    return {image.numpy().tobytes() for part in parts for image in part.images}


def test_folds_take_turns_and_leave_the_test_alone():
    every = [ready(size=8, fold=(number, 4)) for number in range(4)]
    plain = ready(size=8)
    rest = pictures(plain.train, plain.val)
    for data in every:
        assert pictures(data.test) == pictures(plain.test)
        assert pictures(data.train, data.val) == rest
        assert not pictures(data.train) & pictures(data.val)
        assert abs(len(data.val) - len(rest) / 4) < 1
    assert sum(len(pictures(data.val)) for data in every) == len(rest)
    assert pictures(*(data.val for data in every)) == rest


def test_only_some_digits_are_classes_of_their_own():
    data = ready(only=(7, 2, 5), size=8)
    assert data.classes == data.val.classes == ("7", "2", "5")
    whole = ready(size=8)
    for part in ("train", "val", "test"):
        own, among_all = getattr(data, part), getattr(whole, part)
        for label, digit in enumerate((7, 2, 5)):
            assert torch.equal(own.images[own.labels == label], among_all.images[among_all.labels == digit])
        assert len(own) == sum(int((among_all.labels == digit).sum()) for digit in (7, 2, 5))


def test_source_and_target_share_no_image():
    source, target = (ready(size=8, only=range(*ends)) for ends in ((0, 5), (5, 10)))
    whole = ready(size=8)
    assert target.classes == tuple("56789")
    for part in ("train", "val", "test"):
        assert pictures(getattr(source, part), getattr(target, part)) == pictures(getattr(whole, part))
        assert not pictures(getattr(source, part)) & pictures(getattr(target, part))


def test_few_to_train_on_leave_the_rest_as_it_was():
    data, whole = ready(only=(5, 6, 7), per_class=5, size=8), ready(only=(5, 6, 7), size=8)
    assert data.train.labels.bincount().tolist() == [5, 5, 5]
    assert pictures(data.train) < pictures(ready(only=(5, 6, 7), per_class=20, size=8).train)
    assert pictures(data.train) < pictures(whole.train)
    assert torch.equal(data.val.images, whole.val.images)
    assert torch.equal(data.test.images, whole.test.images)
    assert data.mean[0] == pytest.approx(data.train.images.mean().item())


def test_folds_and_few_go_together():
    data = ready(only=(0, 1), fold=(2, 3), per_class=4, size=8)
    assert len(data.train) == 8
    assert not pictures(data.train) & pictures(data.val)


def test_three_channels_hold_the_same_grey():
    grey, colour = ready(shift=0, noise=0), ready(channels=3, shift=0, noise=0)
    assert (colour.mean, colour.std) == (grey.mean * 3, grey.std * 3)
    for part in ("train", "val", "test"):
        one, three = getattr(grey, part)[5][0], getattr(colour, part)[5][0]
        assert torch.equal(three, one.expand(3, -1, -1))
    torch.manual_seed(0)
    noisy = next(iter(ready(channels=3).train_dataloader()))[0]
    assert noisy.shape[1] == 3
    assert torch.equal(noisy, noisy[:, :1].expand_as(noisy))


def test_classes_weigh_inversely_to_their_training_images():
    data = Digits(only=(3, 8))
    three, eight = data.class_weights.tolist()
    counts = data.train.labels.bincount()
    assert three + eight == pytest.approx(2)
    assert three * counts[0] == pytest.approx(eight * counts[1])


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"size": 4}, "size 4"),
        ({"noise": -1}, "-1"),
        ({"shift": -2}, "-2"),
        ({"batch_size": 0}, "at least 1; got 0"),
        ({"workers": -1}, "got -1"),
        ({"channels": 2}, "got 2"),
        ({"only": (5,)}, r"two or more different digits of 0 to 9; got \(5,\)"),
        ({"only": (5, 5)}, "different digits"),
        ({"only": (5, 10)}, "of 0 to 9"),
        ({"fold": (0, 1)}, "2 folds or more"),
        ({"fold": (3, 3)}, "from 0 to 2"),
        ({"fold": (0, 200)}, "each of 200 folds .* of '0'"),
        ({"per_class": 0}, "at least 1; got 0"),
        ({"per_class": 500}, "wanted 500 .* of '0'"),
        ({"only": (8, 9), "per_class": 127}, "wanted 127 .* 122 of '8'"),
    ],
)
def test_a_senseless_knob_is_refused(knobs, words):
    with pytest.raises(ValueError, match=words):
        Digits(**knobs)
