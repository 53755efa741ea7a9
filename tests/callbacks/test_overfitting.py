"""Catastrophic overfitting: detection, reactions, and training that is unchanged by it."""

import copy
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import somebody
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.callbacks import overfitting
from fulgurite.callbacks.overfitting import CatastrophicOverfitting
from fulgurite.models.classifier import Classifier
from fulgurite.models.losses import Adversarial, Fast, Plain, Trades
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.threat import Linf

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
THREAT = Linf(0.05)
SCALE = {"mean": somebody.MEAN, "std": somebody.STD}

# accuracy under FGSM and PGD-10 by epoch, as training from the image itself and by PGD had them on MNIST
FAILS = [(0.28, 0.01), (0.46, 0.0), (0.22, 0.0), (0.63, 0.0), (0.36, 0.0), (0.70, 0.0)]
HOLDS = [(0.08, 0.0), (0.53, 0.0), (0.73, 0.08), (0.76, 0.59), (0.80, 0.70), (0.83, 0.73)]


def fit(folder: Path, watch: pl.Callback, loss, *, epochs: int = 6, resume: Path | None = None, **options):
    """A small network trained on 24 coloured images, three batches an epoch."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3))
    data = somebody.Blobs()
    loader = DataLoader(TensorDataset(data.images, data.labels), 8)
    model = Classifier(network, classes=3, loss=loss)
    callbacks = options.pop("callbacks", [])
    trainer = somebody.quiet(folder, watch, *callbacks, max_epochs=epochs, **options)
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        trainer.fit(model, loader, ckpt_path=resume)
    ours = ("catastrophic", "accuracy under", "for an epoch")
    return model, trainer, [str(one.message) for one in printed if str(one.message).startswith(ours)]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch):
    """Given measurements, epoch by epoch."""

    def script(shares):
        left = iter(shares)
        measured = lambda *_, **__: (dict(zip(("FGSM", "PGD-10"), next(left), strict=True)), 3)  # noqa: E731
        monkeypatch.setattr(overfitting, "_withstood", measured)

    return script


@pytest.mark.parametrize(
    ("shares", "caught"),
    [
        (FAILS, True),
        (HOLDS, False),
        ([(0.9, 0.0)] * 2 + [(0.9, 0.5)] * 4, False),  # only in the first third
        ([(0.9, 0.5)] * 2 + [(0.9, 0.0), (0.9, 0.5)] * 2, False),  # never two in a row
        ([(0.9, 0.5)] * 3 + [(0.9, 0.0), (0.9, 0.2), (0.9, 0.5)], True),
        ([(0.0, 0.0)] * 6, False),  # no accuracy, no ratio
        ([(0.9, 0.23)] * 6, False),
    ],
)
def test_the_rule(tmp_path, scripted, shares, caught):
    scripted(shares)
    watch = CatastrophicOverfitting(THREAT)
    _, trainer, printed = fit(tmp_path, watch, Fast(THREAT))
    assert watch.caught == caught
    assert sum(words.startswith("catastrophic overfitting") for words in printed) == caught
    assert trainer.current_epoch == 6
    logged = somebody.scalars(tmp_path)
    assert [value for _, value in logged["overfitting/FGSM"]] == pytest.approx([one for one, _ in shares])
    assert [value for _, value in logged["overfitting/PGD-10"]] == pytest.approx([ten for _, ten in shares])
    ratios = [ten / one if one else 1 for one, ten in shares]
    assert [value for _, value in logged["overfitting/ratio"]] == pytest.approx(ratios)


def test_the_warning_has_the_measured_shares(tmp_path, scripted):
    scripted(FAILS)
    *_, (printed,) = fit(tmp_path, CatastrophicOverfitting(THREAT), Fast(THREAT))
    assert "of 24 training images 63% withstand one step, but 0% ten (ratio 0.00" in printed
    assert 'answer="stop" would end it' in printed
    assert "for a recipe: --overfitting stop" in printed


def test_nothing_counts_while_the_radius_grows(tmp_path, scripted):
    scripted([(0.9, 0.1)] * 4 + [(0.9, 0.8)] * 2)
    watch = CatastrophicOverfitting(THREAT)
    fit(tmp_path, watch, Fast(THREAT, warmup=0.7))
    assert not watch.caught


def test_a_fall_is_reported_once_and_changes_nothing(tmp_path, scripted):
    scripted([(0.9, 0.75), (0.9, 0.5), (0.9, 0.75), (0.9, 0.5), (0.9, 0.5), (0.9, 0.31)])
    watch = CatastrophicOverfitting(THREAT, answer="stop")
    _, trainer, printed = fit(tmp_path, watch, Fast(THREAT))
    assert ["from 75% to 50% in one epoch (24 training images)" in words for words in printed] == [True]
    assert trainer.current_epoch == 6


def test_it_can_stop_the_training(tmp_path, scripted):
    scripted(FAILS)
    _, trainer, (printed,) = fit(tmp_path, CatastrophicOverfitting(THREAT, answer="stop"), Fast(THREAT))
    assert trainer.current_epoch == 4
    assert printed.endswith("training stops")


@pytest.mark.parametrize(("answer", "epochs"), [("stop", 4), ("warn", 6)])
def test_a_training_that_it_stopped_stays_so_after_a_resume(tmp_path, scripted, answer, epochs):
    scripted(FAILS)
    _, trainer, _ = fit(tmp_path / "first", CatastrophicOverfitting(THREAT, answer="stop"), Fast(THREAT))
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    scripted(FAILS[4:])
    watch = CatastrophicOverfitting(THREAT, answer=answer)
    _, trainer, _ = fit(tmp_path / "again", watch, Fast(THREAT), resume=tmp_path / "stopped.ckpt")
    assert trainer.current_epoch == epochs


class Losses(pl.Callback):
    """The kind of loss in each epoch."""

    def __init__(self):
        self.kinds: list[str] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            self.kinds.append(type(pl_module.loss).__name__)


@pytest.mark.slow
def test_it_falls_back_on_pgd_from_the_next_epoch_on_and_after_a_resume_too(tmp_path, scripted):
    scripted(FAILS * 2)
    whole, losses = CatastrophicOverfitting(THREAT, answer="pgd"), Losses()
    model, _, printed = fit(tmp_path / "whole", whole, Fast(THREAT), callbacks=[losses])
    assert losses.kinds == ["Fast"] * 4 + ["Adversarial"] * 2
    assert model.loss == Adversarial(THREAT)
    assert len(printed) == 1
    assert f"the loss is {Adversarial(THREAT)!r}" in printed[0]

    class Stops(pl.Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = trainer.current_epoch == 4

    scripted(FAILS)
    first, again = (
        CatastrophicOverfitting(THREAT, answer="pgd"),
        CatastrophicOverfitting(THREAT, answer="pgd"),
    )
    _, trainer, _ = fit(tmp_path / "first", first, Fast(THREAT), callbacks=[Stops()])
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    losses.kinds.clear()
    scripted(FAILS[5:])
    *_, printed = fit(
        tmp_path / "again", again, Fast(THREAT), resume=tmp_path / "stopped.ckpt", callbacks=[losses]
    )
    assert losses.kinds == ["Adversarial"]
    assert not printed  # it has been


def test_what_was_low_before_a_resume_counts(tmp_path, scripted):
    class Stops(pl.Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = trainer.current_epoch == 2

    scripted(FAILS)
    watch = CatastrophicOverfitting(THREAT)
    _, trainer, _ = fit(tmp_path / "first", watch, Fast(THREAT), callbacks=[Stops()])
    assert not watch.caught
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    scripted(FAILS[3:])
    watch = CatastrophicOverfitting(THREAT, answer="stop")
    _, trainer, printed = fit(tmp_path / "again", watch, Fast(THREAT), resume=tmp_path / "stopped.ckpt")
    assert trainer.current_epoch == 4
    assert len(printed) == 1


def test_it_measures_some_training_images_as_attacks_leave_them(tmp_path):
    """Of data that are normalised, in a loader that shuffles, it measures what the network withstands."""

    class Twin(pl.Callback):
        def __init__(self):
            self.shares: list[list[float]] = []

        def on_train_epoch_end(self, trainer, pl_module):
            data = somebody.Blobs()
            images, labels = data.images[::2], data.labels[::2]
            mean, std = (torch.tensor(values)[:, None, None] for values in (somebody.MEAN, somebody.STD))
            twin = copy.deepcopy(pl_module).eval()
            whole = nn.Sequential(Scales(mean, std), twin)
            stands = whole(images).argmax(1) == labels
            shares = []
            for moved in (
                fgsm(whole, images, labels, THREAT),
                pgd(whole, images, labels, THREAT, steps=10, drop=True),
            ):
                stands &= whole(moved).argmax(1) == labels
                shares.append(float(stands.float().mean()))
            self.shares.append(shares)

    class Scales(nn.Module):
        def __init__(self, mean, std):
            super().__init__()
            self.mean, self.std = mean, std

        def forward(self, images):
            return (images - self.mean) / self.std

    twin = Twin()
    watch = CatastrophicOverfitting(THREAT, images=12, **SCALE)
    trainer = somebody.quiet(tmp_path, watch, twin, max_epochs=4)
    torch.manual_seed(3)
    trainer.fit(somebody.Theirs(), somebody.loader(shuffle=True))
    logged = somebody.scalars(tmp_path)
    for place, name in enumerate(("FGSM", "PGD-10")):
        assert [value for _, value in logged[f"overfitting/{name}"]] == pytest.approx(
            [shares[place] for shares in twin.shares]
        )
    assert len({shares[1] for shares in twin.shares}) > 1


@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}, {"frozen": True}], ids=str
)
def test_watching_changes_nothing(tmp_path, options):
    def trained(folder: Path, *watch: pl.Callback) -> list[torch.Tensor]:
        torch.manual_seed(7)
        model = somebody.Theirs(frozen=options.get("frozen", False))
        given = {name: value for name, value in options.items() if name != "frozen"}
        somebody.quiet(folder, *watch, **given).fit(model, somebody.loader(shuffle=True, augment=True))
        return [*model.losses, *model.state_dict().values(), torch.get_rng_state()]

    alone = trained(tmp_path / "alone")
    watched = trained(tmp_path / "watched", CatastrophicOverfitting(THREAT, **SCALE))
    assert len(alone) == len(watched)
    assert all(map(torch.equal, alone, watched))


class Constant(pl.Callback):
    """Sees to it that for some epochs the network has learnt nothing."""

    def __init__(self, epochs: int):
        self.epochs = epochs

    def on_train_batch_start(self, trainer, pl_module, *_):
        if trainer.current_epoch < self.epochs:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.zero_()


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", [Adversarial(THREAT), Trades(THREAT), Plain()], ids=lambda loss: type(loss).__name__
)
@pytest.mark.parametrize("accumulated", [1, 3])
def test_a_constant_network_is_reported_once_with_a_remedy(tmp_path, loss, accumulated):
    watch = CatastrophicOverfitting(THREAT)
    *_, printed = fit(tmp_path, watch, loss, callbacks=[Constant(6)], accumulate_grad_batches=accumulated)
    assert len(printed) == 1
    assert "for an epoch the training loss sat at 1.099, which is ln(3)" in printed[0]
    assert "the recipe's --warmup 0.4, or warmup=0.4 of the loss" in printed[0]


def test_a_loss_near_chance_in_the_first_epoch_is_not_reported(tmp_path):
    *_, printed = fit(tmp_path, CatastrophicOverfitting(THREAT), Plain(), epochs=1, callbacks=[Constant(1)])
    assert not printed


def test_a_network_that_learns_is_no_constant(tmp_path):
    *_, printed = fit(tmp_path, CatastrophicOverfitting(THREAT), Adversarial(THREAT))
    assert not printed


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: CatastrophicOverfitting(THREAT, images=0), "images=0; wanted at least 1"),
        (lambda: CatastrophicOverfitting(Linf("8/0")), "radius='8/0'"),
    ],
)
def test_what_cannot_be_is_reported_at_the_door(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


def test_a_loss_that_cannot_fall_back_is_reported_before_training_starts(tmp_path):
    watch = CatastrophicOverfitting(THREAT, answer="pgd")
    with pytest.raises(
        ValueError, match=r"needs a loss with fall_back\(\), such as Fast, but this is a Plain"
    ):
        fit(tmp_path, watch, Plain())
