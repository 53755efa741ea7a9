"""The robustness report of a run."""

import json

import pytest
import torch
from jsonargparse import Namespace
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fulgurite.cli.command import main
from fulgurite.probes.attacks.ensembles import quick
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.robustness.evaluate import evaluate
from fulgurite.probes.robustness.gradient_masking import Check
from fulgurite.probes.robustness.report import UNCHECKED
from fulgurite.recipes import robust_digits
from fulgurite.recipes.robustness_report import _above, _verdict, threat_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["fit", "digits", "--epochs", "1", "--size", "8", "--network", "all_conv", "--every", "0"]
    assert main([*words, "--folder", str(folder), "--trainer.enable_progress_bar", "false"]) == 0
    return folder


def asked(run, *words):
    return main(["test", str(run), "--trainer.enable_progress_bar", "false", *words])


@pytest.mark.slow
def test_a_runs_robustness_is_printed_and_saved(run, capsys):
    assert asked(run, "--radius", "8/255", "--images", "12", "--ensemble", "false") == 0
    printed = capsys.readouterr().out
    for words in ("FGSM", "PGD-20", "95 % interval", "12"):
        assert words in printed
    saved = json.loads((run / "robustness.json").read_text())
    accuracies = [stage["accuracy"] for stage in saved["stages"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert saved["images"] == 12
    assert "radius=0.031" in saved["threat"]
    assert len(saved["checks"]) == 9
    assert saved["checked"] == 12
    assert "Sanity checks (gradient masking) on 12 of the 12 images" in printed
    assert UNCHECKED not in printed
    assert saved["notes"][-1] in printed
    assert "checks passed" in saved["notes"][-1] or "checks failed" in saved["notes"][-1]
    assert saved["stages"][2]["after"] == ["FGSM", "PGD-20"]
    assert "+ PGD-20" in printed
    assert "APGD" not in printed
    assert all(check["name"] in printed for check in saved["checks"])
    assert saved["curve"]["radii"][0] == 0
    assert saved["curve"]["accuracies"][0] == accuracies[0]
    assert set(saved["stages"][0]["per_class"]) <= {str(digit) for digit in range(10)}
    with Image.open(run / "pictures" / "test_curve.png") as picture:
        assert min(picture.size) > 200
    board = EventAccumulator(str(run / "test"))
    board.Reload()
    (clean,) = board.Scalars("test/clean")
    assert clean.value == pytest.approx(accuracies[0])
    assert clean.step > 0
    assert "test/curve" in board.Tags()["images"]


def test_minimal_distances_of_a_run_are_printed_saved_and_drawn(run, capsys):
    assert asked(run, "--minimal", "fmn", "--threat", "linf", "--images", "12") == 0
    printed = capsys.readouterr().out
    assert "median distance in Linf to the nearest adversarial image, by fmn, of 12 test images" in printed
    saved = json.loads((run / "minimal.json").read_text())
    assert saved["attack"] == "fmn"
    assert len(saved["distances"]) == 12
    assert f"{saved['median']:.4g}" in printed
    assert (run / "pictures" / "test_minimal_curve.png").exists()


def test_certificates_of_a_run_are_printed_saved_and_drawn(run, capsys):
    assert asked(run, "--smooth", "0.25", "--draws", "200", "--images", "12") == 0
    printed = capsys.readouterr().out
    assert "certified accuracy by L2 radius, under noise of 0.25, of 12 test images; 200 draws" in printed
    saved = json.loads((run / "smoothing.json").read_text())
    assert (saved["sigma"], saved["draws"], len(saved["radii"])) == (0.25, 200, 12)
    assert all(
        (answer is None) == (radius == 0)
        for answer, radius in zip(saved["answers"], saved["radii"], strict=True)
    )
    assert (run / "pictures" / "test_certified_curve.png").exists()


def test_corruptions_of_a_run_s_images_are_printed_saved_and_drawn(run, capsys, caplog):
    assert asked(run, "--corruptions", "--images", "12") == 0
    printed = capsys.readouterr().out
    assert "common corruptions of 12 test images: accuracy" in printed
    assert f"all figures in {run}: corruptions.json; pictures in {run / 'pictures'}" in caplog.text
    saved = json.loads((run / "corruptions.json").read_text())
    assert len(saved["accuracies"]) == len(saved["errors"]) == 15
    assert f"mean corruption error {saved['mean corruption error']:.4f}" in printed
    for name in ("corruption_curve", "corrupted_images"):
        assert (run / "pictures" / f"test_{name}.png").exists()


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--corruptions", "--images", "0"], "leaves --corruptions nothing"),
        (["--minimal", "ddn", "--threat", "linf"], "this attack supports l2"),
        (["--minimal", "ddn", "--images", "0"], "leaves --minimal ddn nothing"),
        (["--smooth", "0"], "sigma=0.0; wanted a finite standard deviation"),
        (["--smooth", "0.1", "--draws", "9"], "--draws 9 certify nothing; wanted at least 10"),
        (["--draws", "100"], "--draws 100 is about certificates"),
    ],
)
def test_what_cannot_be_measured_is_refused(run, words, reported, capsys):
    assert asked(run, *words) != 0
    assert reported in capsys.readouterr().err


def test_without_a_radius_a_plain_run_is_not_attacked(run, capsys):
    (run / "robustness.json").unlink(missing_ok=True)
    assert asked(run) == 0
    assert asked(run, "--images", "0") == 0
    assert not (run / "robustness.json").exists()
    assert "PGD" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_ensemble_runs_by_default(run, capsys):
    assert asked(run, "--radius", "0.5", "--threat", "l2", "--images", "6") == 0
    printed = capsys.readouterr().out
    assert "L2(radius=0.5" in printed
    for words in ("FGSM", "PGD-20", "APGD-CE", "APGD-T (DLR)", "FAB-T", "Square"):
        assert words in printed


def test_a_useless_radius_is_reported_with_its_origin():
    made = robust_digits.recipe(every=0)
    made.model.threat = Linf(1)
    asked = Namespace(radius=None, threat=None, images=None, ensemble=None)
    with pytest.raises(ValueError, match="the run's own radius 1, without --radius, turns any image"):
        threat_of(made, asked)


@pytest.mark.slow
def test_where_checks_fail_the_figure_to_go_by_is_named():
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 5)), torch.rand(6, 1, 2, 2)
    labels = network(images).argmax(1)
    failed = [Check("black box beats white box", 0.5, passed=False, says="so it does")]
    alone, all_of_them = (
        evaluate(network, images, labels, Linf(0.01), attacks) for attacks in (quick(Linf(0.01)), None)
    )
    assert _verdict(alone.with_checks(failed)).startswith("1 of 1 checks failed: black box beats white box")
    assert "go by" not in _verdict(alone.with_checks(failed))
    go_by = f"go by what all attacks leave, {all_of_them.accuracy():.4f}"
    assert f"about PGD-20, which gradients can mislead: {go_by}" in _verdict(all_of_them.with_checks(failed))
    passed = [failed[0]._replace(passed=True)]
    assert "go by" not in _verdict(all_of_them.with_checks(passed))


@pytest.mark.parametrize(("threat", "attack"), [("linf", "PGD-20"), ("l1", "APGD-20")])
def test_the_attack_of_the_robust_accuracy_is_printed(threat, attack):
    model = robust_digits.recipe(every=0, threat=threat).model
    for part in ("test", "val"):
        line = _above(model, model.threat, part)
        assert line.startswith(f"{part}/robust accuracy above is what {attack} leaves of all {part} images")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--radius", "much"], "8/255"),
        (["--radius", "-1"], "at least 0"),
        (["--radius", "0"], "--radius 0 moves no pixel"),
        (
            ["--radius", "8"],
            "--radius 8 turns any image into any other: pixels are in [0, 1]; wanted such as 8/255",
        ),
        (["--images", "64"], "--images is about attacks, and this run was not trained for a radius"),
        (["--images", "64", "--tta", "2"], "or 8/255, or --minimal, --smooth or --corruptions"),
        (["--ensemble", "true"], "wanted a --radius as well"),
        (["--threat", "l2"], "--radius"),
        (["--threat", "l3", "--radius", "1"], "l2"),
        (["--radius", "1", "--images", "-3"], "at least 1"),
        (["--radius", "0.1", "--images", "0"], "--radius 0.1 is about attacks, and --images 0 attacks none"),
        (["--ensemble", "false", "--images", "0"], "--images 0 attacks none; wanted at least --images 1"),
    ],
)
def test_what_cannot_be_measured_is_reported_before_the_test(run, words, message, capsys):
    assert asked(run, *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["validate", "probe"])
@pytest.mark.parametrize("words", [["--radius", "0.1", "--images", "0"], ["--radius=0.1"]])
def test_a_verb_that_attacks_nothing_names_the_one_that_does(run, verb, words, capsys):
    assert main([verb, str(run), *words]) == 2
    assert f"{verb} has no {words[0]}; wanted test RUN {words[0]}" in capsys.readouterr().err


def test_where_the_figures_cannot_be_written_is_reported_before_the_attacks(run, capsys):
    (run / "pictures").mkdir(exist_ok=True)
    (run / "pictures").rename(run / "kept")
    (run / "pictures").write_text("in the way")
    try:
        assert asked(run, "--radius", "0.1") == 2
    finally:
        (run / "pictures").unlink()
        (run / "kept").rename(run / "pictures")
    assert "pictures" in capsys.readouterr().err
