"""Numbers, captions and maps of one logit, of several labels and of a regression."""

from pathlib import Path

import pytest
import somebody
import torch
import torch.nn.functional as F
from drawn_words import words as drawn_lines
from drawn_words import words_of
from task_networks import CASES, Dots, Linear, Named, red
from torch.utils.data import DataLoader

from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.framework import observation
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.occlusion import Occlusion
from fulgurite.callbacks.robustness import Robustness
from fulgurite.callbacks.saliency import Saliency
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.attribution.map_sheets import MapRow
from fulgurite.probes.drawing import Part, Text, drawing_of
from fulgurite.probes.render import titled
from fulgurite.probes.style import LINE


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
        ("several labels", {"pred red: ", "pred green: ", "pred blue: ", "pred none, at most blue: "}),
        ("regression", {"pred output: "}),
    ],
)
def test_captions_tell_the_probability_of_the_answer(
    case: str, captions: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    seen = list[str]()

    def row(image, maps, caption, wrong, **more):
        seen.extend(caption.split("\n"))
        return MapRow(image, maps, caption, wrong, **more)

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
            most = f"{names[int(own.argmax())]}: {float(own.max().sigmoid()):.0%}"
            likely = [
                f"{name}: {float(z.sigmoid()):.0%}" for name, z in zip(names, own, strict=True) if z > 0
            ]
            assert words == f"pred {' + '.join(likely) or f'none, at most {most}'}"
    if task == "multilabel":
        sets = [words for words in seen if words.startswith("true ")]
        assert "true none" in sets
        assert any(" + " in words for words in sets)


@pytest.mark.parametrize("kind", [Saliency, Attribution, Occlusion])
def test_maps_of_one_label_of_several_name_it(
    kind: type[ProbeCallback], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    model, data = Linear(3), Named(lambda present: present.float())
    with torch.no_grad():
        model.head.bias[2] += 40.0  # blue has the largest logit of all
    found = words_of(kind, monkeypatch)
    somebody.quiet(tmp_path, kind(images=3, on_error="raise")).validate(
        model, DataLoader(data, batch_size=8), verbose=False
    )
    assert "map of blue" in found
    # where blue is not true, that of a true label
    assert kind is Attribution or any(f"map of {name}" in found for name in ("red", "green"))
    one, found[:] = kind(images=3, on_error="raise"), []
    somebody.quiet(tmp_path, one).validate(
        Linear(3), DataLoader(Named(lambda present: int(present[0])), batch_size=8), verbose=False
    )
    assert found
    assert not [line for line in found if line.startswith("map of")]


def test_a_confusion_matrix_of_each_label_has_its_name_above_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pictures = []
    monkeypatch.setattr(
        "fulgurite.callbacks.metrics.grid", lambda tiles, **how: pictures.extend(tiles) or tiles[0]
    )
    somebody.quiet(tmp_path, Metrics(on_error="raise")).validate(
        Linear(3), DataLoader(Named(lambda present: present.float()), batch_size=8), verbose=False
    )
    for name, tile in zip(("red", "green", "blue"), pictures[:3], strict=True):
        drawing = drawing_of(tile)
        assert drawing is not None
        (title,) = [mark for mark in drawing.marks if isinstance(mark, Text)]
        (matrix,) = [mark for mark in drawing.marks if isinstance(mark, Part)]
        assert title.words == name
        assert title.at[1] + LINE <= matrix.at[1]


@pytest.mark.parametrize("count", [2, 9, 16])
def test_matrices_of_many_labels_are_drawn_for_the_film_not_shrunk(count: int):
    names = tuple(f"label {number}" for number in range(count))
    targets = (torch.arange(6 * count).reshape(6, count) % 3 == 0).float()
    device = torch.device("cpu")
    sample = Sample(torch.rand(6, 3, 4, 4), None, names, device, task="multilabel", targets=targets)
    probe = Metrics()
    probe.check(Linear(count), sample)
    probe.sample = sample
    seen = {"0": targets - 0.5}
    (own,) = probe.frames(seen, probe.compose(seen, sample)).values()
    assert max(own.pixels.shape[1:]) <= probe.film.side
    assert {"label 0", f"label {count - 1}", "predicted"} <= {*drawn_lines(own.pixels)}
    probe.film.add("start", {"confusion": own})
    probe.film.add("1", {"confusion": own})
    strip = probe.film.strip()
    assert strip is not None
    assert strip.pixels.shape[2] > 2 * own.pixels.shape[2]


def test_pictures_of_four_channels_say_which_three_they_show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    found = list[str]()
    monkeypatch.setattr(
        observation,
        "titled",
        lambda own, title: found.extend(drawn_lines(own)) or titled(own, title),
    )
    line = "shown as red channel 3, green channel 0, blue channel 1 (of 4, counted from 0)"
    for kind in (Saliency, Metrics):
        somebody.quiet(tmp_path, kind(images=3, composite="infrared", on_error="raise")).validate(
            Linear(1, channels=4), DataLoader(Dots(red, channels=4), batch_size=8), verbose=False
        )
        assert found
        assert " ".join(found).count(line) == (kind is Saliency)  # a chart shows no image
        found.clear()


def test_maps_of_both_sides_of_one_logit_are_its_gradient():
    from fulgurite.probes.attribution.gradient import gradient
    from fulgurite.probes.objectives import class_score

    model, images = Linear(1), torch.rand(2, 3, 12, 12)
    yes, no = (gradient(model, images, class_score(side)) for side in (1, 0))
    torch.testing.assert_close(yes, -no)
    torch.testing.assert_close(yes[:, 0], torch.full((2, 12, 12), 8 / 2 / 144))
