"""Every probe on one logit, several labels, regression, four channels: right captions, maps and figures."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import somebody
import torch
import torch.nn.functional as F
from every_probe import conflicts, every_probe
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fulgurite.callbacks.adversarial_examples import AdversarialExamples
from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.session import Session
from fulgurite.callbacks.framework.tasks import check_task
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.robustness import Robustness
from fulgurite.callbacks.saliency import Saliency
from fulgurite.callbacks.shape_bias import ShapeBias
from fulgurite.callbacks.split_accuracy import SplitAccuracy
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.attribution.map_sheets import MapRow

NAMES = ("red", "green", "blue")
# they ask for classes that exclude each other, or for one label of many by label=
OF_CLASSES = {
    "Difficulty",
    "Fooling",
    "Concepts",
    "Equivariance",
    "Faithfulness",
    "Health",
    "LayerHistograms",
    "SaliencyAlignment",
    "StageProbes",
    "TrainingInfluence",
    "WorstMistakes",
}
OF_LOGITS = {
    *("AdversarialExamples", "Corruptions", "MinimalDistances", "Robustness"),
    *("ClassImages", "Occlusion"),
}


class Dots(Dataset):
    """Images in [0, 1], bright in the channels of their labels, of which there is one at least."""

    def __init__(self, target: Callable[[Tensor], Tensor | int | float], *, channels: int = 3):
        generator = torch.Generator().manual_seed(0)
        self.present = torch.rand(24, 3, generator=generator) < 0.5
        self.images = torch.rand(24, channels, 12, 12, generator=generator) / 4
        self.images[:, :3] += self.present[:, :, None, None] * 0.6
        self.target = target

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.images[index], self.target(self.present[index])


class Named(Dots):
    classes = NAMES


class Linear(pl.LightningModule):
    """The means of the first channels, less a half, times a factor: right without any training."""

    def __init__(self, outputs: int, *, channels: int = 3, squeeze: bool = False):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU())
        self.head = nn.Linear(channels, outputs)
        self.squeeze = squeeze
        with torch.no_grad():
            self.features[0].weight.copy_(torch.eye(channels)[:, :, None, None])
            self.features[0].bias.fill_(0.5)  # the ReLU is never in the way
            self.head.weight.copy_(8 * torch.eye(outputs, channels))
            self.head.bias.fill_(-8 * (0.42 + 0.5))

    def forward(self, images: Tensor) -> Tensor:
        out = self.head(self.features(images).mean((2, 3)))
        return out[:, 0] if self.squeeze else out

    def validation_step(self, *_): ...


def red(present: Tensor) -> int:
    return int(present[0])


# a module and its data, the task that is to be found, and the names of what it tells
CASES: dict[str, tuple[Callable, Callable, str, tuple[str, ...]]] = {
    "one logit": (lambda: Linear(1), lambda: Dots(red), "binary", ("0", "1")),
    "one logit, squeezed, floats": (
        lambda: Linear(1, squeeze=True),
        lambda: Dots(lambda present: float(present[0])),
        "binary",
        ("0", "1"),
    ),
    "several labels": (
        lambda: Linear(3),
        lambda: Named(lambda present: present.float()),
        "multilabel",
        NAMES,
    ),
    "four channels": (lambda: Linear(2, channels=4), lambda: Dots(red, channels=4), "multiclass", ("0", "1")),
    "regression": (
        lambda: Linear(1),
        lambda: Dots(lambda present: 8 * 0.6 * present[0].float() - 2),
        "regression",
        ("output",),
    ),
    "regression of two": (
        lambda: Linear(2),
        lambda: Dots(lambda present: 8 * 0.6 * present[:2].float() - 2),
        "regression",
        ("output 0", "output 1"),
    ),
}
SCALE = {"mean": None, "std": None}


def probes(**options) -> list[ProbeCallback]:
    # their data sets have three classes and channels
    found = [probe for probe in every_probe() if not isinstance(probe, SplitAccuracy | ShapeBias)]
    for probe in found:
        probe.mean = probe.std = None
        for name, value in options.items():
            setattr(probe, name, value)
    return found


def trainer_for(model: pl.LightningModule, data: DataLoader) -> pl.Trainer:
    class BeforeTraining(pl.Trainer):
        train_dataloader = val_dataloaders = test_dataloaders = lightning_module = datamodule = None

        def __init__(self):
            self.train_dataloader = self.val_dataloaders = data
            self.lightning_module = model

    return BeforeTraining()


def serves(name: str, task: str) -> bool:
    if task == "multilabel":
        return name not in OF_CLASSES
    return task != "regression" or name not in OF_CLASSES | OF_LOGITS


@pytest.mark.parametrize("case", CASES)
def test_each_probe_finds_the_task_or_says_in_one_sentence_that_it_cannot_serve(case: str):
    make, data, task, names = CASES[case]
    loader, model = DataLoader(data(), batch_size=8), make()
    for probe in probes():
        name = type(probe).__name__
        if serves(name, task):
            Session().prepare(probe, trainer_for(model, loader), model)
            if probe.needs == "logits":
                assert (probe.sample.task, probe.sample.classes) == (task, names), name
            continue
        with pytest.raises(ValueError, match=f"{task.replace('multi', 'multi-')}.*{name} asks for") as error:
            Session().prepare(probe, trainer_for(model, loader), model)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case != "one logit")) for case in CASES]
)
def test_every_probe_that_serves_looks_at_it(tmp_path: Path, case: str):
    make, data, task, _ = CASES[case]
    model = make()
    own = [probe for probe in probes() if serves(type(probe).__name__, task)]
    before = model(torch.stack([image for image, _ in data()]))
    somebody.quiet(tmp_path, *own).validate(model, DataLoader(data(), batch_size=8), verbose=False)
    assert torch.equal(model(torch.stack([image for image, _ in data()])), before)
    pictured = {tag.split("/")[0] for tag, _ in somebody.images(tmp_path)}
    without = {"Drift", "LayerHistograms", "LayerTable", "Robustness", "TrainingInfluence"}
    without |= {"Metrics"} if task == "regression" else set()
    assert {type(probe).__name__ for probe in own} - without <= pictured


def test_every_probe_looks_at_one_label_of_many(tmp_path: Path):
    model, data = Linear(3), Named(lambda present: present.float())
    own = probes(label="green")
    somebody.quiet(tmp_path, *own).validate(model, DataLoader(data, batch_size=8), verbose=False)
    numbers = somebody.scalars(tmp_path)
    assert numbers["Metrics/accuracy of green"][0][1] == numbers["Metrics/accuracy of no green"][0][1] == 1
    assert [value for tag, ((_, value),) in numbers.items() if tag.startswith("StageProbes/")] == [1.0]
    assert numbers["Robustness/clean"][0][1] == 1


def test_one_logit_is_read_by_the_sigmoid(tmp_path: Path):
    model, data = Linear(1), Dots(red)
    somebody.quiet(tmp_path, Metrics(), Robustness(Linf(0.02), on_error="raise")).validate(
        model, DataLoader(data, batch_size=8), verbose=False
    )
    numbers = {tag: values[0][1] for tag, values in somebody.scalars(tmp_path).items()}
    logits, labels = model(data.images).detach()[:, 0], data.present[:, 0].float()
    assert numbers["Metrics/loss"] == pytest.approx(
        float(F.binary_cross_entropy_with_logits(logits, labels)), abs=1e-6
    )
    assert numbers["Metrics/accuracy"] == numbers["Metrics/AUROC"] == numbers["Robustness/clean"] == 1
    # a mean moves by the radius at most, the logit by 8 times that
    assert numbers["Robustness/PGD-20"] == float((logits.abs() > 8 * 0.02).float().mean())


def test_labels_are_read_each_by_its_sigmoid(tmp_path: Path):
    model, data = Linear(3), Named(lambda present: present.float())
    with torch.no_grad():
        model.head.bias[1] = -3.0  # says yes to green where there is none
    threat = Linf(0.3)
    somebody.quiet(tmp_path, Metrics(), Robustness(threat, on_error="raise")).validate(
        model, DataLoader(data, batch_size=8), verbose=False
    )
    numbers = {tag: values[0][1] for tag, values in somebody.scalars(tmp_path).items()}
    logits, labels = model(data.images).detach(), data.present.float()
    right = (logits > 0) == data.present
    assert numbers["Metrics/loss"] == pytest.approx(
        float(F.binary_cross_entropy_with_logits(logits, labels)), abs=1e-6
    )
    assert numbers["Metrics/accuracy"] == pytest.approx(float(right.float().mean()))
    assert numbers["Metrics/exact match"] == numbers["Robustness/clean"] == float(right.all(1).float().mean())
    assert numbers["Metrics/F1 of red"] == 1 > numbers["Metrics/F1 of green"]
    # each label's channel moves by the radius at most, where pixels stay in [0, 1]
    moved = (data.images - threat.epsilon * (2 * labels - 1)[:, :, None, None]).clamp(0, 1)
    robust = ((model(moved) > 0) == data.present).all(1)
    assert numbers["Robustness/PGD-20"] == pytest.approx(float(robust.float().mean()), abs=1e-6)
    assert 0 < numbers["Robustness/PGD-20"] < numbers["Robustness/clean"]


def test_errors_of_a_regression(tmp_path: Path):
    model, data = Linear(2), CASES["regression of two"][1]()
    somebody.quiet(tmp_path, Metrics()).validate(model, DataLoader(data, batch_size=8), verbose=False)
    numbers = {tag: values[0][1] for tag, values in somebody.scalars(tmp_path).items()}
    errors = model(data.images).detach() - torch.stack([target for _, target in data])
    assert numbers["Metrics/mean absolute error"] == pytest.approx(float(errors.abs().mean()), abs=1e-5)
    assert 0.9 < numbers["Metrics/R2 of output 1"] < 1


@pytest.mark.parametrize(
    ("case", "captions"),
    [
        ("one logit", {"pred 0: ", "pred 1: "}),
        ("several labels", {"pred red: ", "pred green: ", "pred blue: "}),
        ("regression", {"pred output: "}),
    ],
)
def test_captions_tell_the_probability_of_the_answer(
    case: str, captions: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    seen = list[str]()

    def row(image, maps, caption, wrong):
        seen.extend(caption.split("\n"))
        return MapRow(image, maps, caption, wrong)

    monkeypatch.setattr("fulgurite.callbacks.saliency.MapRow", row)
    make, data, task, names = CASES[case]
    model, dots = make(), data()
    somebody.quiet(tmp_path, Saliency(on_error="raise")).validate(
        model, DataLoader(dots, batch_size=8), verbose=False
    )
    predictions = [words for words in seen if not words.startswith("true ")]
    assert len(predictions) == 16
    assert {f"{words.partition(': ')[0]}: " for words in predictions} <= captions
    ids = [place * len(dots) // 16 for place in range(16)]
    logits = model(dots.images[ids]).detach()
    for words, own in zip(predictions, logits, strict=True):
        if task == "regression":
            assert words == f"pred output: {float(own):.3g}"
        elif task == "binary":
            sure = max(float(own.sigmoid()), float((-own).sigmoid()))
            assert words == f"pred {int(own > 0)}: {sure:.0%}"
        else:
            assert words == f"pred {names[int(own.argmax())]}: {float(own.max().sigmoid()):.0%}"
    if task == "multilabel":
        sets = [words for words in seen if words.startswith("true ")]
        assert "true none" in sets
        assert any(" + " in words for words in sets)


def test_maps_of_both_sides_of_one_logit_are_its_gradient():
    from fulgurite.probes.attribution.gradient import gradient
    from fulgurite.probes.objectives import class_score

    model, images = Linear(1), torch.rand(2, 3, 12, 12)
    yes, no = (gradient(model, images, class_score(side)) for side in (1, 0))
    torch.testing.assert_close(yes, -no)
    torch.testing.assert_close(yes[:, 0], torch.full((2, 12, 12), 8 / 2 / 144))


def test_what_the_user_or_the_model_says_of_the_task_counts():
    rows = Dots(lambda present: F.one_hot(present.sum().clamp(max=2), 3))
    loader, model = DataLoader(rows, batch_size=8), Linear(3)
    for task, labelled in {"multilabel": False, "multiclass": True}.items():
        probe = Metrics(task=task)
        Session().prepare(probe, trainer_for(model, loader), model)
        assert (probe.sample.task, probe.sample.labels is not None) == (task, labelled)
    model.task = "multilabel"
    probe = Metrics()
    Session().prepare(probe, trainer_for(model, loader), model)
    assert probe.sample.task == "multilabel"
    with pytest.raises(
        ValueError, match='task="binary", but Linear gives 3 numbers for an image; wanted one'
    ):
        Session().prepare(Metrics(task="binary"), trainer_for(model, loader), model)
    with pytest.raises(ValueError, match="task='segmentation'; wanted one of multiclass, binary"):
        check_task("segmentation")


def test_data_sets_of_classes_are_not_asked_about_one_label():
    loader, model = DataLoader(Named(lambda present: present.float()), batch_size=8), Linear(3)
    for probe in (
        SplitAccuracy({"others": Named(red)}, label="green"),
        ShapeBias(conflicts(12), label="green"),
    ):
        with pytest.raises(ValueError, match=r"label=.green. is one of many, and the .* have class num"):
            Session().prepare(probe, trainer_for(model, loader), model)


@pytest.mark.parametrize(("label", "words"), [("gren", "no label 'gren'; nearest: green"), ("1", "no label")])
def test_a_label_that_is_none_is_told(label: str, words: str):
    loader, model = DataLoader(Named(lambda present: present.float()), batch_size=8), Linear(3)
    with pytest.raises(ValueError, match=words):
        Session().prepare(ClassImages(label=label), trainer_for(model, loader), model)


def test_a_composite_of_channels_that_are_not_there_is_told():
    loader, model = DataLoader(Dots(red, channels=4), batch_size=8), Linear(2, channels=4)
    with pytest.raises(ValueError, match=r"composite of channels \(7, 3, 2\), but images have 4"):
        Session().prepare(Saliency(composite="sentinel-2 infrared"), trainer_for(model, loader), model)
    with pytest.raises(ValueError, match="composite='nir'; wanted one of first three"):
        Saliency(composite="nir")


def test_a_composite_shows_the_channels_that_it_names(tmp_path: Path):
    model, data = Linear(2, channels=4), Dots(red, channels=4)
    data.images[:, 3] = 1.0
    options = {"composite": "infrared", "images": 4, "on_error": "raise"}
    somebody.quiet(tmp_path, Attribution(**options), AdversarialExamples(Linf(0.1), **options)).validate(
        model, DataLoader(data, batch_size=8), verbose=False
    )
    for picture in somebody.images(tmp_path).values():
        # near infrared is shown as red, and it is full everywhere
        assert (picture[0] == 255).float().mean() > 0.05


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_figures_of_training_images_say_so(tmp_path: Path):
    somebody.quiet(
        tmp_path, Metrics(mean=somebody.MEAN, std=somebody.STD, on_error="raise"), max_epochs=1
    ).fit(somebody.Theirs(), somebody.loader())
    tags = set(somebody.scalars(tmp_path))
    assert "Metrics of training images/accuracy" in tags
    assert "Metrics/accuracy" not in tags
