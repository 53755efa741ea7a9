"""Every probe on one logit, several labels, regression, four channels: right captions, maps and figures."""

from pathlib import Path

import pytest
import somebody
import torch
import torch.nn.functional as F
from every_probe import conflicts, every_probe
from task_networks import CASES, Dots, Linear, Named, red, trainer_for
from torch.utils.data import DataLoader

from fulgurite.callbacks.adversarial_examples import AdversarialExamples
from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.session import Session
from fulgurite.callbacks.framework.tasks import check_task
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.saliency import Saliency
from fulgurite.callbacks.shape_bias import ShapeBias
from fulgurite.callbacks.split_accuracy import SplitAccuracy
from fulgurite.probes.attacks.threat import Linf

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


SCALE = {"mean": None, "std": None}


def probes(**options) -> list[ProbeCallback]:
    # their data sets have three classes and channels
    found = [probe for probe in every_probe() if not isinstance(probe, SplitAccuracy | ShapeBias)]
    for probe in found:
        probe.mean = probe.std = None
        for name, value in options.items():
            setattr(probe, name, value)
    return found


def serves(name: str, task: str) -> bool:
    if task == "multilabel":
        return name not in OF_CLASSES
    return task != "regression" or name not in OF_CLASSES | OF_LOGITS


@pytest.mark.parametrize("case", CASES)
def test_each_probe_infers_the_task_or_raises_a_clear_error(case: str):
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
def test_every_probe_that_supports_the_task_runs(tmp_path: Path, case: str):
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


@pytest.mark.slow
def test_every_probe_looks_at_one_label_of_many(tmp_path: Path):
    model, data = Linear(3), Named(lambda present: present.float())
    own = probes(label="green")
    somebody.quiet(tmp_path, *own).validate(model, DataLoader(data, batch_size=8), verbose=False)
    numbers = somebody.scalars(tmp_path)
    assert numbers["Metrics/accuracy of green"][0][1] == numbers["Metrics/accuracy of no green"][0][1] == 1
    assert [value for tag, ((_, value),) in numbers.items() if tag.startswith("StageProbes/")] == [1.0]
    assert numbers["Robustness/clean"][0][1] == 1


def test_the_task_of_the_user_or_the_model_has_priority():
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


@pytest.mark.parametrize("smoothing", [0.1, 0.2])
def test_smoothed_labels_are_labels_and_no_regression(smoothing: float):
    def smoothed(present):
        return present.float() * (1 - smoothing) + smoothing / 2

    whole, given = (Metrics(images=None, seed=0) for _ in range(2))
    for probe, target in ((whole, lambda present: present.float()), (given, smoothed)):
        loader = DataLoader(Named(target), batch_size=8)
        Session().prepare(probe, trainer_for(Linear(3), loader), Linear(3))
    assert given.sample.task == "multilabel"
    assert torch.equal(given.sample.targets, whole.sample.targets)
    one = Metrics(images=None)
    loader = DataLoader(Dots(lambda present: smoothed(present)[:1]), batch_size=8)
    Session().prepare(one, trainer_for(Linear(1), loader), Linear(1))
    assert one.sample.task == "binary"
    assert one.sample.labels.tolist() == Dots(red).present[:, 0].long().tolist()


def test_a_label_may_be_a_number():
    loader, model = DataLoader(Named(lambda present: present.float()), batch_size=8), Linear(3)
    by_name, by_number = ClassImages(label="green"), ClassImages(label=1)
    for probe in (by_name, by_number):
        Session().prepare(probe, trainer_for(model, loader), model)
    assert by_number.sample.classes == by_name.sample.classes == ("no green", "green")
    with pytest.raises(ValueError, match="no label 3: there are 3, counted from 0"):
        Session().prepare(ClassImages(label=3), trainer_for(model, loader), model)


def test_a_label_is_refused_for_data_sets_of_classes():
    loader, model = DataLoader(Named(lambda present: present.float()), batch_size=8), Linear(3)
    for probe in (
        SplitAccuracy({"others": Named(red)}, label="green"),
        ShapeBias(conflicts(12), label="green"),
    ):
        with pytest.raises(ValueError, match=r"label=.green. is one of many, and the .* have class num"):
            Session().prepare(probe, trainer_for(model, loader), model)


@pytest.mark.parametrize(("label", "words"), [("gren", "no label 'gren'; nearest: green"), ("1", "no label")])
def test_an_unknown_label_is_reported(label: str, words: str):
    loader, model = DataLoader(Named(lambda present: present.float()), batch_size=8), Linear(3)
    with pytest.raises(ValueError, match=words):
        Session().prepare(ClassImages(label=label), trainer_for(model, loader), model)


def test_a_composite_of_missing_channels_is_reported():
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
def test_tags_of_training_images_name_them(tmp_path: Path):
    somebody.quiet(
        tmp_path, Metrics(mean=somebody.MEAN, std=somebody.STD, on_error="raise"), max_epochs=1
    ).fit(somebody.Theirs(), somebody.loader())
    tags = set(somebody.scalars(tmp_path))
    assert "Metrics of training images/accuracy" in tags
    assert "Metrics/accuracy" not in tags
