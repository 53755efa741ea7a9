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


def test_every_class_is_shared_out_alike():
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


def test_the_training_order_is_the_global_generators():
    data = ready(size=8, batch_size=500)

    def epoch():
        torch.manual_seed(5)
        return torch.cat([labels for _, labels in data.train_dataloader()])

    first = epoch()
    assert torch.equal(first, epoch())
    assert not torch.equal(first, torch.cat([labels for _, labels in data.train_dataloader()]))


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
    data.trainer = SimpleNamespace(world_size=2)
    share = -(-len(data.train) // 2)
    data.batch_size = share - 1
    assert data.train_dataloader().drop_last
    data.batch_size = share - 2
    assert not data.train_dataloader().drop_last


def test_a_loader_of_ones_own_takes_the_parts_collate():
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


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"size": 4}, "size 4"),
        ({"noise": -1}, "-1"),
        ({"shift": -2}, "-2"),
        ({"batch_size": 0}, "at least 1; got 0"),
        ({"workers": -1}, "got -1"),
    ],
)
def test_a_senseless_knob_is_refused(knobs, words):
    with pytest.raises(ValueError, match=words):
        Digits(**knobs)
