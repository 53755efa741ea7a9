"""Images made for a network, from the shell: any photograph, any objective, Ctrl-C keeps the best."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_words import words
from folder_kinds import painted
from PIL import Image
from processes import Script
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.cli.synthesis import PROBES
from fulgurite.models.networks import build
from fulgurite.probes.render import noted

FEW = ["--steps", "2", "--size", "16", "--side", "32"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        painted(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(probe: str, *words: object, few: list[str] = FEW) -> int:
    network = ["--network", "small_vgg", "--weights", "weights.safetensors"]
    return main([probe, *(str(word) for word in words), *network, *few])


@pytest.mark.parametrize("probe", PROBES)
def test_a_picture_has_a_row_for_each_image_or_layer(probe, home, capsys):
    assert ask(probe, "photos") == 0
    with Image.open(f"{probe}.png") as picture:
        assert picture.height > 2 * 32
        assert len(set(picture.convert("L").tobytes())) > 20
    output = capsys.readouterr().out
    assert " rows" in output.splitlines()[-1]
    assert "2 rows" in output or probe == "features"


@pytest.mark.parametrize("probe", PROBES)
def test_several_networks_are_compared_in_one_picture(probe, home, capsys):
    own = (
        ["--near", "pool1", "--near", "pool1"]
        if probe == "accentuate"
        else ["--layers", "pool1", "--layers", "pool2"]
    )
    second = ["--network", "small_vgg", "--weights", "weights.safetensors"]
    assert ask(probe, "photos", *second, *own) == 0
    assert "2 networks" in capsys.readouterr().out
    assert ask(probe, "photos", *own[:2], "--out", "one.png") == 0
    with Image.open(f"{probe}.png") as both, Image.open("one.png") as one:
        assert both.width > 1.6 * one.width  # whose title is wider than its tiles


MODES = {"L": (50, 20), "RGBA": (20, 50), "LA": (30, 30), "P": (9, 70), "I;16": (20, 31)}


# all read images by the same function: each kind is tried on one of them, or two
@pytest.mark.parametrize(
    ("probe", "mode"),
    [
        (probe, mode)
        for turn, probe in enumerate(PROBES)
        for place, mode in enumerate(MODES)
        if (place - turn) % len(MODES) < 2
    ],
)
def test_photographs_of_any_kind_are_taken(probe, mode, home):
    size = MODES[mode]
    Image.new(mode, size, 90 if mode in ("L", "P", "I;16") else tuple([90] * len(mode))).save("odd.png")
    assert ask(probe, "odd.png", "--out", "out.jpg") == 0
    assert Path("out.jpg").read_bytes().startswith(b"\xff\xd8")


def test_features_need_no_image_where_the_question_is_reported(home, capsys):
    words = ["--channel", "conv2:3", "--unit", "conv2:1:2:2", "--unit", "conv3:0"]
    assert ask("features", *words) == 0
    assert "3 rows" in capsys.readouterr().out
    assert ask("features") == 2
    assert "wanted some, or --channel, --unit" in capsys.readouterr().err


def test_inversions_are_printed_as_a_table(home, capsys):
    asked = "conv1,logits,log-probabilities"
    assert (
        ask("invert", "photos", "--layers", asked, "--repeats", 2, few=["--steps", "40", "--size", "16"]) == 0
    )
    head, *lines, last = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "layer"
    assert [line.split()[0] for line in lines] == ["conv1", "logits", "log-probabilities"]
    assert float(lines[0].split()[-2]) > float(lines[1].split()[-2])  # dB
    assert "4 rows" in last  # of two images, two repeats each


def test_a_table_of_one_image_and_one_repeat_has_no_empty_columns(home, capsys):
    assert ask("invert", "photos/a.png", "--layers", "conv1,logits") == 0
    output = capsys.readouterr().out
    assert output.split("\n")[0].split() == ["layer", "relative", "error", "PSNR", "(dB)"]
    assert "nan" not in output


def test_a_legend_is_broken_into_lines_and_not_cut(home, monkeypatch):
    found = []
    told = lambda pixels, *notes: found.append(noted(pixels, *notes)) or found[-1]  # noqa: E731
    monkeypatch.setattr("fulgurite.cli.synthesis.noted", told)
    assert ask("features", "photos", "--layers", "conv1", "--most", 1) == 0
    assert ask("invert", "photos", "--layers", "conv1") == 0
    drawn = [" ".join(words(pixels)) for pixels in found]
    assert "below each: channel, and its activation over the most that images reach" in drawn[0]
    assert "below each: relative error at the layer, and PSNR" in drawn[1]


def test_an_accentuated_class_rises(home, capsys):
    words = ["--target", 2, "--near", "conv1"]
    assert ask("accentuate", "photos", *words, few=["--steps", "60", "--size", "16", "--lr", "0.2"]) == 0
    for line in capsys.readouterr().out.splitlines()[:2]:
        before, _, after = line.split()[-3:]
        assert float(after) > float(before)


@pytest.mark.parametrize("start", ["image", "noise"])
def test_a_caricature_is_not_what_it_began_with(start, home):
    words = ["photos/a.png", "--layers", "conv2,conv3", "--start", start]
    few = ["--size", "32", "--side", "160"]  # wider than its legend
    assert ask("caricature", *words, few=[*few, "--steps", "0"]) == 2
    assert ask("caricature", *words, few=[*few, "--steps", "1", "--lr", "1e-9", "--out", "start.png"]) == 0
    assert ask("caricature", *words, few=[*few, "--steps", "30"]) == 0
    begun, made = (
        torch.from_numpy(np.array(Image.open(name).convert("RGB"))).float()
        for name in ("start.png", "caricature.png")
    )
    for tile in ((0, 162), (162, 324)):  # of conv3, of conv2, from the right
        columns = slice(begun.shape[1] - tile[1], begun.shape[1] - tile[0])
        assert (begun - made)[:, columns].abs().max() > 40


@pytest.mark.parametrize(
    ("kind", "expected"), [("dark photographs", 0.5), ("digits on black", 0.05), ("digits on white", 0.95)]
)
def test_features_have_the_background_of_digits_and_are_mid_grey_for_photographs(
    kind, expected, home, monkeypatch
):
    images = 0.4 * torch.rand(3, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    if kind != "dark photographs":
        images = torch.zeros(3, 16, 16, 3)
        images[:, 4:12, 6:10] = 0.9
        images = images if kind == "digits on black" else 1 - images
    Path("few").mkdir()
    for place, image in enumerate(images):
        Image.fromarray((image * 255).byte().numpy()).save(f"few/{place}.png")
    asked = []

    def maker(network, objective, shape, *, seeds, background, **_):
        asked.append(background)
        return torch.rand(len(seeds), *shape)

    monkeypatch.setattr("fulgurite.cli.synthesis.feature_images", maker)
    assert ask("features", "few", "--layers", "conv1", "--most", 1) == 0
    assert asked == [pytest.approx([expected] * 3)]


def test_a_seed_gives_the_same_picture_and_another_one_another(home):
    pictures = []
    for seed in (0, 0, 1):
        assert ask("features", "photos", "--layers", "conv2", "--most", 2, "--seed", seed) == 0
        pictures.append(Path("features.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    ("probe", "words", "message"),
    [
        ("invert", [], "required: images"),
        ("invert", ["photos", "--layers", "conv9"], "no layer 'conv9' in SmallVGG; nearest: conv"),
        ("invert", ["photos", "--prior", "tv3"], "--prior tv3; wanted one of none, tv1, tv2"),
        ("invert", ["photos", "--strength", "-1"], "--strength -1; wanted at least 0"),
        ("invert", ["photos", "--repeats", "0"], "--repeats 0; wanted at least 1"),
        ("invert", ["photos", "--repeats", "101"], "--repeats 101; wanted at most 100"),
        (
            "features",
            [
                "photos",
                "--network",
                "small_vgg",
                "--weights",
                "weights.safetensors",
                "--layers",
                "conv1,conv2",
            ],
            "for 2 networks; wanted once for each, in their order: --layers conv1,conv2 --layers ...",
        ),
        ("features", ["photos", "--most", "0"], "--most 0; wanted at least 1"),
        ("features", ["--channel", "conv2"], "--channel conv2; wanted LAYER:INDEX"),
        ("features", ["--channel", "conv2:999"], "no channel 999"),
        ("features", ["photos", "--transform", "roll"], "invalid choice: 'roll'"),
        ("caricature", ["photos", "--start", "grey"], "invalid choice: 'grey'"),
        ("caricature", ["photos", "--steps", "many"], "--steps many; wanted a whole number"),
        ("accentuate", ["photos", "--near", "conv"], "no layer 'conv'"),
        ("accentuate", ["photos", "--strength", "-2.5"], "--strength -2.5; wanted at least 0"),
        ("accentuate", ["photos", "--score_layer", "conv1"], "outputs, the network 4 classes"),
        ("accentuate", ["photos", "--target", "tiger"], "no class 'tiger' among 4"),
        ("accentuate", ["photos", "--target", "1", "--unit", "conv2:3"], "several objectives at once"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_mistake_is_one_line_and_writes_nothing(probe, words, message, home, capsys):
    before = sorted(home.rglob("*"))
    assert ask(probe, *words, few=["--size", "16"]) == 2
    output = capsys.readouterr().err
    assert message in output
    assert output.count("\n") == 1
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("probe", PROBES)
def test_ctrl_c_ends_with_what_was_reached(probe, home):
    words = [probe, "photos", "--network", "small_vgg", "--weights", "weights.safetensors", "--size", "16"]
    words += ["--steps", "100000", "--side", "32"]
    code = (
        "import sys\n"
        "from fulgurite.probes.synthesis import watch\n"
        "tell = watch.Bar.update\n"
        "def first(bar, values):\n"
        "    watch.Bar.update = tell\n"
        "    print('begun', flush=True)\n"
        "    tell(bar, values)\n"
        "watch.Bar.update = first\n"
        "from fulgurite.cli.command import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    Path("begins.py").write_text(code)
    started = Script("begins.py", *words)
    ends = time.monotonic() + 120
    while not (out := started.printed / "out").exists() or out.read_text() != "begun\n":
        assert time.monotonic() < ends, "it never began"
        time.sleep(0.05)
    time.sleep(0.2)
    assert started.process.pid is not None
    os.kill(started.process.pid, signal.SIGINT)
    done = started.ended(60)
    assert done.returncode == 0, done.stderr
    assert "note: interrupted; this is what was reached" in done.stderr
    assert Path(f"{probe}.png").read_bytes().startswith(b"\x89PNG")
    assert " row" in done.stdout
