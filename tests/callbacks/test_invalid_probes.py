"""Invalid probes are reported before training starts; the folder and the tags of pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest
import somebody
from processes import Script

from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.filters import Filters
from fulgurite.callbacks.saliency import Saliency

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Saliency(std=(0.0,)), "wanted positive numbers"),
        (lambda: Saliency(every=0), "every=0"),
        (lambda: Saliency(images=0), "images=0"),
        (lambda: ClassImages(only="12"), "wanted a list of the names"),
        (lambda: ClassImages(steps=0), "steps=0"),
    ],
)
def test_an_invalid_probe_is_reported_before_training(make: Callable, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: Saliency(mean=(0.5, 0.5), std=(1.0, 1.0)),
            "2 numbers of mean or std for images of 3 channels",
        ),
        (lambda: Saliency(), "if the data are normalised, give the probe mean=, std="),
        (lambda: Saliency(layer="haed", **SCALE), "no layer 'haed' in Theirs; nearest: head"),
        (lambda: Filters(["head"], **SCALE), "'head' is a Linear, wanted a Conv2d"),
        (lambda: ClassImages(["gren"], **SCALE), "no class 'gren'; nearest: green"),
        (lambda: ClassImages(layer="features", **SCALE), "features has . outputs, the network 3 classes"),
        (lambda: Saliency(classes=["a"], **SCALE), "1 name for the 3 classes"),
    ],
)
def test_what_a_probe_cannot_do_is_reported_before_training_starts(
    tmp_path: Path, make: Callable, complaint: str
):
    model = somebody.Theirs()
    with pytest.raises(ValueError, match=complaint):
        somebody.quiet(tmp_path, make()).fit(model, somebody.loader(), somebody.loader(9))
    assert not model.losses


@pytest.mark.parametrize(
    "probes",
    [
        lambda: (Saliency(name="A", **SCALE), Filters(name="A", **SCALE)),
        lambda: (Saliency(name="A", **SCALE), Saliency(name="A", layer="head", **SCALE)),
    ],
)
def test_two_probes_of_one_name_are_reported(tmp_path: Path, probes: Callable):
    said = r"2 probes are called 'A'; give each its own name=, such as \w+\(..., name=\"A 2\"\)"
    with pytest.raises(ValueError, match=said):
        somebody.quiet(tmp_path, *probes()).fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))


def test_values_of_a_wrong_type_are_reported_without_a_type_checker(tmp_path: Path):
    code = """
from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.minimal_distances import MinimalDistances
from fulgurite.callbacks.saliency import Saliency
from fulgurite.callbacks.transfer import Drift
from fulgurite.probes.attacks.threat import Linf

for kind, wrong in [
    *((Saliency, {"mean": 0.5}), (Saliency, {"on_error": "stop"}), (ClassImages, {"only": [1]})),
    (Drift, {"reference": 3}),
    (MinimalDistances, {"attack": Linf("8/255")}),
    *((Saliency, wrong) for wrong in ({"layer": 3}, {"images": "x"}, {"every": 1.5}, {"every": "x"})),
    *((Saliency, wrong) for wrong in ({"classes": "ab"}, {"classes": ["a", 3]})),
    *((Saliency, wrong) for wrong in ({"name": ""}, {"label": 1.5})),
]:
    try:
        kind(**wrong)
    except ValueError as error:
        print(error)
"""
    (tmp_path / "wrong.py").write_text(code)
    done = Script(tmp_path / "wrong.py").ended()
    assert done.returncode == 0, done.stderr
    reported = [
        "wanted a number for each channel",
        'wanted "warn" or "raise"',
        "wanted a list of the names of classes",
        '3 to compare with; wanted "start", a file',
        "is a threat; wanted the name of an attack, and norm=",
        "layer=3; wanted the name of a layer",
        "images='x'; wanted a whole number of at least 1, or None for all",
        "every=1.5; wanted epochs from one run of the probe to the next, a whole number of at least 1",
        "every='x'; wanted epochs",
        "classes='ab'; wanted a list of names, one for each class",
        "classes=['a', 3]; wanted a list of names",
        "name=''; wanted a name to log under, or None",
        "label=1.5; wanted the name or the number of one label of many",
    ]
    assert all(words in line for words, line in zip(reported, done.stdout.splitlines(), strict=True))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_trainer_without_a_picture_logger_gets_a_folder_and_its_path_is_logged(tmp_path: Path, caplog):
    for number in range(2):
        trainer = somebody.quiet(
            tmp_path, Saliency(**SCALE), Filters(**SCALE), logger=False, default_root_dir=tmp_path
        )
        trainer.fit(somebody.Theirs(), somebody.loader())
        folder = tmp_path / "probes" / str(number)
        assert caplog.text.count(f"what the probes see is in {folder}") == 1
        steps = sorted(path.name for path in (folder / "pictures" / "Saliency").iterdir())
        assert steps == ["00000000.png", "00000003.png", "00000006.png", "film"]
        assert (folder / "histograms/Filters/features.0/strength/00000006.json").exists()
        assert "6,seconds/Saliency," in (folder / "scalars.csv").read_text()
