"""Numbers, captions and maps of one logit, of several labels and of a regression."""

from pathlib import Path

import pytest
import somebody
import torch
import torch.nn.functional as F
from task_networks import CASES, Dots, Linear, Named, red
from torch.utils.data import DataLoader

from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.robustness import Robustness
from fulgurite.callbacks.saliency import Saliency
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.attribution.map_sheets import MapRow


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
            most = f"{names[int(own.argmax())]}: {float(own.max().sigmoid()):.0%}"
            likely = [
                f"{name}: {float(z.sigmoid()):.0%}" for name, z in zip(names, own, strict=True) if z > 0
            ]
            assert words == f"pred {' + '.join(likely) or f'none, at most {most}'}"
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
