"""Probes of image files from the shell: pictures and notes."""

import subprocess
import sys

import drawn_words
import pytest
import torch
from safetensors.torch import save_file

from fulgurite.cli import attribution
from fulgurite.cli.command import main
from fulgurite.cli.image_probes import probes
from fulgurite.models.networks import build
from fulgurite.probes.attribution.methods import METHODS, OF_ATTENTION, knobs_of
from fulgurite.probes.render import LINE

FEW = {"draws": 2, "steps": 2, "masks": 6, "samples": 12, "segments": 4, "window": 8, "stride": 8}


def few(name: str) -> list[str]:
    return [word for knob in knobs_of(METHODS[name]) if knob in FEW for word in (f"--{knob}", f"{FEW[knob]}")]


def test_help_has_a_line_for_every_probe(capsys):
    assert main(["--help"]) == 0
    reported = capsys.readouterr().out
    assert {"attack", "compare", *METHODS} <= set(probes())
    for name in probes():
        *of_runs, line = [line for line in reported.splitlines() if line.startswith(f"  {name} ")]
        assert line.endswith(".")
        assert bool(of_runs) == (name == "compare")  # which compares runs, too


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_ATTENTION])
def test_every_method_answers_from_the_shell(name, ask, photos):
    skipped = ["--layer", "relu3"] if name == "cam" else []
    seen = ask(name, photos / "a.png", *few(name), *skipped, "--side", 32)
    if name == "cam":
        assert seen == 2  # the small network's scores are not linear in any maps
    else:
        assert seen.width > 64
        assert len(set(seen.tobytes())) > 10


def test_a_folder_is_all_its_images(ask, photos, capsys):
    one = ask("saliency", photos / "a.png", "--side", 32).height
    assert ask("saliency", photos, "--side", 32).height > one + 2 * 32
    assert "3 rows" in capsys.readouterr().out


def test_a_sheet_compares_methods(ask, photos):
    names = "gradient,grad_cam,occlusion"
    assert ask("compare", photos, "--methods", names, "--side", 32).width > 4 * 32


def test_a_class_that_is_not_predicted_is_named_below_its_map_or_below_the_image(ask, photos, monkeypatch):
    drawn = list[str]()

    def listened(pixels: torch.Tensor, *_, **__) -> None:
        drawn.extend(drawn_words.words(pixels))

    monkeypatch.setattr(attribution, "write_picture", listened)
    with pytest.raises(FileNotFoundError):  # no picture is written
        ask("grad_cam", photos / "a.png", "--target", "0,1,2,3", "--side", 96)
    (guess,) = {line.removeprefix("pred ").split(":")[0] for line in drawn if line.startswith("pred ")}
    found = [line.split(" (")[0] for line in drawn if line.startswith("map of")]
    assert sorted(found) == [f"map of {number}" for number in range(4) if str(number) != guess]
    drawn.clear()
    with pytest.raises(FileNotFoundError):
        ask(
            "compare",
            photos / "a.png",
            "--methods",
            "gradient,saliency",
            "--target",
            3 - int(guess),
            "--side",
            96,
        )
    assert sum(line.startswith(f"maps of {3 - int(guess)} (") for line in drawn) == 1


@pytest.mark.slow
def test_default_methods_that_do_not_suit_the_network_are_left_out(photos, tmp_path, capsys):
    file, out = tmp_path / "silu.safetensors", tmp_path / "silu.png"
    save_file(build("timm/efficientnet_b0", classes=3).state_dict(), file)
    words = [
        "compare",
        photos / "a.png",
        "--network",
        "timm/efficientnet_b0",
        "--weights",
        file,
        "--out",
        out,
    ]
    few = ["--size", "32", "--draws", "2", "--steps", "2", "--samples", "12", "--segments", "4"]
    assert main([str(word) for word in [*words, *few]]) == 0
    printed = capsys.readouterr().err
    for name in ("deconvnet", "guided_backprop", "guided_grad_cam"):
        assert f"note: without {name}: " in printed
    assert main([str(word) for word in [*words, *few, "--methods", "deconvnet"]]) == 2


def test_maps_that_are_0_everywhere_are_named_in_a_line(photos, tmp_path, capsys):
    """Networks of timm begin with a classifier of zeros, through which no gradient passes."""
    network = build("small_vgg", classes=3)
    *_, classifier = (part for part in network.modules() if isinstance(part, torch.nn.Linear))
    torch.nn.init.zeros_(classifier.weight)
    save_file(network.state_dict(), tmp_path / "no.safetensors")
    two = "gradient,grad_cam"
    for probe, words, named in (
        ("grad_cam", [], "grad_cam (3 of 3)"),
        ("compare", ["--methods", two], "gradient (3 of 3), grad_cam (3 of 3)"),
    ):
        base = [probe, photos, "--network", "small_vgg", "--weights", tmp_path / "no.safetensors"]
        assert main([str(word) for word in [*base, *words, "--out", tmp_path / "no.png"]]) == 0
        printed = capsys.readouterr().err
        assert printed.startswith(f"note: maps that are 0 everywhere: {named}; nothing in these images")
        assert printed.count("\n") == 1


def test_all_methods_are_compared_by_one_word(ask, photos):
    few = [word for knob, value in FEW.items() for word in (f"--{knob}", value)]
    assert ask("compare", photos / "a.png", "--methods", "all", "--side", 32, *few).width > 14 * 32


def test_a_folders_unreadable_image_is_left_out_and_a_named_one_is_not(ask, photos, capsys):
    (photos / "d.jpg").write_text("no image")
    ask("gradient", photos, "--side", 32)
    printed = capsys.readouterr()
    assert "3 rows" in printed.out
    assert "note: left out:" in printed.err
    assert ask("gradient", photos, photos / "d.jpg") == 2


def test_files_of_one_name_in_two_folders_are_two_rows(ask, photos, capsys):
    (photos / "more" / "a.png").write_bytes((photos / "a.png").read_bytes())
    ask("gradient", photos, "--side", 32)
    assert "4 rows" in capsys.readouterr().out


def test_the_object_is_cut_out(ask, photos):
    assert ask("segment", photos / "b.jpg", "--rounds", 1, "--components", 2).width > 4 * 128


def test_several_targets_are_rows(ask, photos, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\ncrane\nCrane\n")
    ask("gradient", photos / "a.png", "--classes", names, "--target", "DOG", "--target", "3")
    assert "2 rows" in capsys.readouterr().out
    assert ask("gradient", photos / "a.png", "--classes", names, "--target", "crane") == 2
    assert "[2, 3]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--channel", "conv2:3"], ["--unit", "conv2:3"], ["--unit", "conv2:3:1:2"], ["--of", "probability"]],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["guided_backprop", "grad_cam"])
def test_other_questions_than_class_scores(name, words, ask, photos):
    assert ask(name, photos / "a.png", *words, "--side", 32).width > 64


def test_channels_and_units_of_one_place_are_rows_of_their_own(ask, photos, capsys):
    ask("gradient", photos / "a.png", "--channel", "conv2:3", "--unit", "conv2:3", "--unit", "conv2:4")
    assert "3 rows" in capsys.readouterr().out


def test_a_grey_network_is_shown_grey_images(photos, tmp_path):
    file, out = tmp_path / "grey.safetensors", tmp_path / "grey.png"
    save_file(build("small_vgg", classes=3, channels=1).state_dict(), file)
    words = ["gradient", photos / "a.png", "--network", "small_vgg", "--weights", file, "--out", out]
    assert main([str(word) for word in words]) == 0


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["--methods", "gradient"], 1),
        (["--methods", "grad_cam"], 1),
        (["--methods", "gradient,grad_cam"], 2),
        (["--methods", "gradient,grad_cam", "--look", "heat"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_legend_is_of_the_maps_that_are_there(words, lines, ask, photos):
    least = ask("compare", photos / "a.png", "--methods", "gradient", "--side", 64)
    # one method's sheet is narrow, but no wider sheet is higher
    assert ask("compare", photos / "a.png", *words, "--side", 64).height - least.height == (lines - 1) * LINE


def test_a_reader_that_leaves_early_is_no_error():
    words = f"{sys.executable} -m fulgurite --help; echo status $? >&2"
    done = subprocess.run(["bash", "-c", f"({words}) | head -1"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Train a CNN")
    assert done.stderr in ("status 0\n", "status 141\n")
