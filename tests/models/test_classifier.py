"""A classifier with a table: its groups, its schedule, what it keeps in eval mode, and what it draws."""

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.models.classifier import Classifier, warm_cosine
from fulgurite.models.weighted_loss import Weighted
from fulgurite.probes.attacks.threat import Linf

TABLE = [(0, {"stem": None, "head": 1.0}), (1, {"stem": 0.5, "head": 1.0})]
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        return self.head(self.stem(images).mean((2, 3)))


def loader():
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.rand(12, 1, 6, 6, generator=generator), torch.arange(12) % 3), 4)


def trained(*callbacks, folder, epochs=2, **knobs):
    torch.manual_seed(0)
    model = Classifier(Net(), classes=3, lr=0.05, **knobs)
    trainer = pl.Trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        **QUIET,
    )
    trainer.fit(model, loader(), loader())
    return model, trainer


class Diary(pl.Callback):
    def __init__(self):
        self.rates, self.modes, self.draws = [], [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.modes.append({name for name, part in pl_module.network.named_modules() if part.training})
        self.draws.append(float(torch.rand(())))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append({group.get("name"): group["lr"] for group in optimizer.param_groups})


def test_each_group_warms_up_and_falls_at_its_own_rate(tmp_path):
    trained(diary := Diary(), folder=tmp_path, table=TABLE, weight_decay=0.1)
    for step, rates in enumerate(diary.rates):
        share = 0.05 * warm_cosine(step, 6)
        expected = {"stem": 0.5, "stem spared": 0.5, "head": 1.0, "head spared": 1.0}
        assert rates == pytest.approx({name: factor * share for name, factor in expected.items()})


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_spares_norms_and_biases_with_a_table_too(optimizer, tmp_path):
    _, trainer = trained(folder=tmp_path, table=TABLE, weight_decay=0.1, optimizer=optimizer)
    decays = {group["name"]: group["weight_decay"] for group in trainer.optimizers[0].param_groups}
    assert decays == {"stem": 0.1, "stem spared": 0.0, "head": 0.1, "head spared": 0.0}


def test_what_is_frozen_is_in_eval_mode_through_validation_and_train(tmp_path):
    trained(diary := Diary(), folder=tmp_path, table=TABLE)
    assert diary.modes[0] == {"", "head"}
    assert diary.modes[-1] == {name for name, _ in Net().named_modules()}
    model = Classifier(Net(), classes=3, table={"stem": None, "": 1.0}).eval().train()
    assert not model.network.stem[1].training
    assert model.network.head.training


def test_a_resumed_trainer_gets_the_callback_once(tmp_path):
    model, trainer = trained(folder=tmp_path, table=TABLE)
    trainer.validate(model, loader(), verbose=False)
    assert sum(callback is model.finetuning for callback in trainer.callbacks) == 1


def test_without_a_table_nothing_is_brought_along(tmp_path):
    model, trainer = trained(folder=tmp_path)
    assert model.finetuning is None
    assert [set(group) & {"name", "frozen"} for group in trainer.optimizers[0].param_groups] == [set(), set()]


def test_a_table_of_equal_rates_trains_as_without_one(tmp_path):
    with_table, without = (trained(folder=tmp_path, **knobs)[0] for knobs in ({"table": {"": 1.0}}, {}))
    for mine, theirs in zip(with_table.parameters(), without.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_draws_begin_anew_at_each_step_if_there_is_a_seed(tmp_path):
    class Draws(pl.Callback):
        """A callback that draws random numbers between the steps."""

        def on_train_batch_start(self, *_):
            torch.rand(3)

    diaries = [Diary() for _ in range(3)]
    ends = [
        trained(*extra, diary, folder=tmp_path, seed=seed)[0]
        for diary, extra, seed in zip(diaries, ([], [Draws()], []), (1, 1, 2), strict=True)
    ]
    assert diaries[0].draws == diaries[1].draws
    assert len({*diaries[0].draws, *diaries[2].draws}) == 12
    assert all(map(torch.equal, ends[0].parameters(), ends[1].parameters()))


def test_weighted_is_the_mean_of_each_images_loss_times_its_classes_weight():
    network, labels = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.tensor([0, 2, 2])
    images, weights = torch.rand(3, 1, 2, 2), [0.5, 1.0, 1.5]
    probabilities = network(images).softmax(1)
    by_hand = sum(-weights[k] * probabilities[i, k].log() for i, k in enumerate(labels)) / 3
    torch.testing.assert_close(Weighted(weights)(network, images, labels), by_hand)
    smooth = F.cross_entropy(network(images), labels, label_smoothing=0.2)
    torch.testing.assert_close(Weighted([1.0] * 3, 0.2)(network, images, labels), smooth)


@pytest.mark.parametrize("weights", [[], [1.0, 0.0], [1.0, float("nan")]], ids=str)
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match="wanted a positive number for each class"):
        Weighted(weights)


def test_robust_accuracy_may_be_of_the_first_validation_images_of_each_class(tmp_path):
    seen = []

    def attack(network, images, labels, threat):
        seen.append(labels)
        return images

    images, labels = torch.rand(30, 3, 8, 8), torch.arange(30) % 3
    validation = DataLoader(TensorDataset(images, labels), batch_size=7)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    nn.init.zeros_(
        network[1].weight
    )  # no image is wrong but by its class, so that those of class 0 are attacked
    network[1].bias.data = torch.tensor([1.0, 0.0, -1.0])
    attacks = {"val": attack, "test": attack}
    model = Classifier(
        network, classes=3, threat=Linf(0.1), attacks=attacks, robust_images=12, lr=1e-9, weight_decay=0.0
    )
    trainer = pl.Trainer(
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        limit_train_batches=1,
    )
    trainer.fit(model, DataLoader(TensorDataset(images, labels), batch_size=6), validation)
    # four of each class, the same in each epoch; those that are right, of class 0, are attacked
    assert sum(len(part) for part in seen) == 2 * 4
    assert trainer.callback_metrics["val/robust accuracy"] == pytest.approx(1 / 3)
    seen.clear()
    trainer.test(model, validation, verbose=False)
    assert sum(len(part) for part in seen) == 10


def test_a_classifier_is_rebuilt_from_the_plain_arguments_in_its_checkpoint(tmp_path):
    model, trainer = trained(
        folder=tmp_path, epochs=1, optimizer="sgd", weight_decay=0.1, seed=3, threat=Linf(0.1)
    )
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    saved = torch.load(tmp_path / "model.ckpt", weights_only=True)["hyper_parameters"]
    assert saved == {
        "classes": 3,
        "task": "multiclass",
        "optimizer": "sgd",
        "lr": 0.05,
        "weight_decay": 0.1,
        "robust_images": None,
        "seed": 3,
    }
    again = Classifier.load_from_checkpoint(tmp_path / "model.ckpt", network=Net(), lr=0.5, weights_only=True)
    assert (again.optimizer, again.lr, again.weight_decay, again.seed) == ("sgd", 0.5, 0.1, 3)
    assert all(map(torch.equal, again.parameters(), model.parameters()))


def test_a_user_class_adds_no_module_to_the_checkpoint(tmp_path):
    class Mine(Classifier):
        def __init__(self, backbone, width=4):
            super().__init__(backbone, classes=3)

    pl.Trainer(max_epochs=0, default_root_dir=tmp_path, enable_checkpointing=False, **QUIET).fit(
        model := Mine(Net()), loader(), loader()
    )
    model.trainer.save_checkpoint(tmp_path / "mine.ckpt")
    assert torch.load(tmp_path / "mine.ckpt", weights_only=True)["hyper_parameters"]["classes"] == 3
    assert isinstance(Mine.load_from_checkpoint(tmp_path / "mine.ckpt", backbone=Net()), Mine)
