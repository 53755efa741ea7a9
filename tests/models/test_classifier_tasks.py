"""The classifier on one logit, several labels and values: losses, metrics, attacks, and what it refuses."""

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.models.batch_checks import BatchChecks, check_values
from fulgurite.models.classifier import Classifier
from fulgurite.models.losses import Adversarial, Plain
from fulgurite.models.task_heads import training_loss
from fulgurite.probes.attacks.threat import Linf

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Means(nn.Module):
    """Logits that are linear in the means of the channels."""

    def __init__(self, outputs: int):
        super().__init__()
        self.head = nn.Linear(3, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((2, 3)))


def data(task: str) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(60, 3, generator=generator) < 0.5
    images = torch.rand(60, 3, 6, 6, generator=generator) / 4 + 0.6 * present[:, :, None, None]
    labels = {
        "binary": present[:, 0].long(),
        "multilabel": present.float(),
        "regression": present[:, :1] * 2.0 - 1,
    }[task]
    return DataLoader(TensorDataset(images, labels), 20)


def trained(task: str, folder, outputs: int, **options) -> dict[str, float]:
    torch.manual_seed(0)
    classes = {"binary": 2}.get(task, outputs)
    model = Classifier(Means(outputs), classes=classes, task=task, lr=0.3, **options)
    trainer = pl.Trainer(max_epochs=40, default_root_dir=folder, enable_checkpointing=False, **QUIET)
    trainer.fit(model, data(task), data(task))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multilabel", 3)])
@pytest.mark.parametrize("robust", [False, True], ids=["plain", "min-max"])
def test_it_learns_from_one_logit_and_from_several_labels(tmp_path, task: str, outputs: int, robust: bool):
    threat = Linf(0.1)
    options = {"loss": Adversarial(threat, steps=2), "threat": threat} if robust else {}
    found = trained(task, tmp_path, outputs, **options)
    assert found["val/accuracy"] == 1
    assert found.get("val/exact match", 1) == 1
    assert found.get("val/robust accuracy", 1) == 1
    assert found["val/loss"] < 0.2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_learns_values(tmp_path):
    found = trained("regression", tmp_path, 1)
    assert found["val/mean absolute error"] < 0.15
    assert "val/accuracy" not in found


def test_losses_are_the_binary_cross_entropy_of_each_logit():
    images, labels = next(iter(data("multilabel")))
    network = Means(3)
    own = training_loss(Plain(), network, images, labels, "multilabel")
    torch.testing.assert_close(own, F.binary_cross_entropy_with_logits(network(images), labels))
    one = Means(1)
    own = training_loss(Plain(), one, images, labels[:, 0], "binary")
    torch.testing.assert_close(own, F.binary_cross_entropy_with_logits(one(images)[:, 0], labels[:, 0]))
    one(images)[:, 0].sum().backward()


def test_robust_accuracy_of_labels_is_that_of_all_of_them(tmp_path):
    network = Means(3)
    with torch.no_grad():
        network.head.weight.copy_(8 * torch.eye(3))
        network.head.bias.fill_(-8 * 0.42)
    threat = Linf(0.3)
    model = Classifier(network, classes=3, task="multilabel", threat=threat)
    trainer = pl.Trainer(default_root_dir=tmp_path, **QUIET)
    (found,) = trainer.validate(model, data("multilabel"), verbose=False)
    images, labels = data("multilabel").dataset.tensors
    moved = (images - threat.epsilon * (2 * labels - 1)[:, :, None, None]).clamp(0, 1)
    robust = ((network(moved) > 0) == (labels > 0)).all(1).float().mean()
    assert found["val/robust accuracy"] == pytest.approx(float(robust), abs=1e-6)
    assert 0 < float(robust) < 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 3, "task": "binary"}, 'classes=3; wanted 2 for task="binary"'),
        ({"classes": 1, "task": "regression", "threat": Linf(0.1)}, "has no classes to attack"),
        (
            {"classes": 3, "task": "multilabel", "threat": Linf(0.1), "robust_images": 8},
            "robust_images=8 is as many of each class",
        ),
    ],
)
def test_arguments_that_do_not_suit_a_task_are_reported(options, words):
    with pytest.raises(ValueError, match=words):
        Classifier(Means(1), **options)


@pytest.mark.parametrize(
    ("task", "own", "outputs", "words"),
    [
        ("multiclass", "binary", 1, r'one logit; wanted Classifier\(task="binary"\)'),
        ("binary", "binary", 3, r"gives \(20, 3\); wanted \[20, 1\]"),
        ("multilabel", "binary", 2, r"labels \(20,\); wanted \[20, 2\] for task=\"multilabel\""),
    ],
)
def test_logits_and_labels_of_another_task_are_reported(tmp_path, task, own, outputs, words):
    model = Classifier(Means(outputs), classes=2, task=task)
    with pytest.raises(ValueError, match=words):
        pl.Trainer(default_root_dir=tmp_path, **QUIET).validate(model, data(own), verbose=False)


MANY = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0]] * 4)
UNFIT = {
    "several labels": ({}, 4, MANY, r"labels int64 \(8, 4\); wanted class numbers \[8\].*multilabel"),
    "several labels, floats": ({}, 4, MANY.float(), r"labels float32 \(8, 4\); .*multilabel"),
    "5 logits": (
        {},
        5,
        MANY[:, 0],
        r"the network gives \(8, 5\); wanted \[8, 4\]: as many logits as classes=",
    ),
    "3 logits": ({}, 3, MANY[:, 0] * 3, r"the network gives \(8, 3\); wanted \[8, 4\]"),
    "a class too many": ({}, 4, MANY[:, 0] * 4, "labels from 0 to 4; wanted class numbers from 0 to 3"),
    "float classes": ({}, 4, MANY[:, 0].float(), r"labels float32 \(8,\); wanted whole class numbers"),
    "binary": ({"task": "binary", "classes": 2}, 1, MANY[:, 0] * 3, "labels from 0 to 3; wanted 0 or 1"),
    "multilabel": ({"task": "multilabel"}, 4, MANY * 2, "labels from 0 to 2; wanted 1 for the labels"),
}


def first_batch(folder, outputs, labels, *, stage: str, **options) -> None:
    model = Classifier(Means(outputs), **{"classes": 4, **options})
    trainer = pl.Trainer(max_epochs=1, default_root_dir=folder, enable_checkpointing=False, **QUIET)
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 6, 6), labels), 8)
    trainer.validate(model, loader, verbose=False) if stage == "val" else trainer.fit(model, loader)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("options", "outputs", "labels", "said"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_said_at_the_first_validation_batch(tmp_path, options, outputs, labels, said):
    with pytest.raises(ValueError, match=said):
        first_batch(tmp_path, outputs, labels, stage="val", **options)


# a training on fewer classes than logits is possible
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in UNFIT if name != "5 logits"])
def test_what_does_not_fit_is_said_at_the_first_training_batch(tmp_path, name):
    options, outputs, labels, said = UNFIT[name]
    with pytest.raises(ValueError, match=said):
        first_batch(tmp_path, outputs, labels, stage="train", **options)


def test_only_the_first_batch_is_read():
    network, images, checks = Means(4), torch.rand(8, 3, 6, 6), BatchChecks("multiclass", 4)
    for labels in (MANY[:, 0], MANY[:, 0] * 9):  # the second would be refused
        with checks.training(network, images, labels):
            pass
        checks.evaluation("val", network(images), labels)
    with pytest.raises(ValueError, match="from 0 to 9"):
        checks.evaluation("test", network(images), labels)


def test_soft_and_ignored_labels_are_fine():
    check_values(torch.full((8, 4), 0.25), "multiclass", 4)
    check_values(torch.tensor([-100, 0, 3]), "multiclass", 4)
    with pytest.raises(ValueError, match=r"labels \(8, 4\) of validation .*labels.argmax"):
        BatchChecks("multiclass", 4).evaluation("val", torch.zeros(8, 4), torch.full((8, 4), 0.25))


def test_a_classifier_of_one_class_is_refused():
    with pytest.raises(
        ValueError, match='classes=1; wanted a number of at least 2; one logit is task="binary"'
    ):
        Classifier(Means(1), classes=1)
