"""Dreams, textures, styles and images that fool, from the shell."""

from pathlib import Path

import pytest
import torch
from folder_kinds import painted
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli import dreams
from fulgurite.cli.command import main
from fulgurite.models.networks import build


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        painted(tmp_path / "photos" / name)
    Image.new("RGB", (90, 5)).save(tmp_path / "thin.png")
    Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 50).convert("RGB").save(tmp_path / "wide.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(probe: str, *words: object) -> int:
    network = ["--network", "small_vgg", "--weights", "weights.safetensors"]
    return main([probe, *(str(word) for word in words), *network])


def test_one_photograph_is_dreamed_on_at_its_own_size(home, capsys):
    assert ask("dream", "wide.png", "--layers", "conv2", "--steps", 3, "--octaves", 2) == 0
    with Image.open("dream.png") as made:
        assert made.size == (60, 40)
    before, after = map(float, capsys.readouterr().out.splitlines()[0].split()[-3::2])
    assert after > before
    assert ask("dream", "wide.png", "--layers", "conv2", "--steps", 1, "--size", 30, "--tile", 20) == 0
    with Image.open("dream.png") as made:
        assert made.size == (30, 20)


def test_several_photographs_layers_and_channels_are_a_sheet(home):
    words = ["--steps", 1, "--octaves", 1, "--side", 40]
    assert ask("dream", "photos", *words) == 0
    assert ask("dream", "photos", *words, "--channel", "conv1:2", "--unit", "conv2:1", "--out", "f.png") == 0
    for name in ("dream.png", "f.png"):
        with Image.open(name) as made:
            assert made.width > 3 * 40
            assert made.height > 2 * 20


def test_a_guide_is_another_dream(home):
    words = ["wide.png", "--layers", "conv2", "--steps", 2, "--octaves", 1]
    assert ask("dream", *words, "--out", "plain.png") == 0
    assert ask("dream", *words, "--guide", "photos/a.png", "--out", "guided.png") == 0
    assert Path("plain.png").read_bytes() != Path("guided.png").read_bytes()


def test_a_guided_dream_names_its_guide(home, capsys):
    words = ["wide.png", "--layers", "conv2", "--steps", 1, "--octaves", 1, "--guide", "photos/a.png"]
    assert ask("dream", *words) == 0
    assert "wide: conv2 guided by a " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("probe", "function", "words", "results"),
    [
        ("dream", "deep_dream", ["--layers", "conv1,conv2", "--octaves", 1], 1),
        ("texture", "texture", ["--count", 2], 2),
        ("style", "style_transfer", ["--style", "wide.png"], 1),
    ],
)
def test_after_ctrl_c_no_other_image_is_begun(probe, function, words, results, home, capsys, monkeypatch):
    made = getattr(dreams, function)

    def interrupted(*args, watch, **knobs):
        found = made(*args, watch=watch, **knobs)
        watch.interrupted = True
        return found

    monkeypatch.setattr(dreams, function, interrupted)
    assert ask(probe, "photos", *words, "--steps", 1, "--size", 16, "--side", 40, "--save", "saved") == 0
    printed = capsys.readouterr()
    assert printed.err.count("note: interrupted; this is what was reached") == 1
    saved = list(Path("saved").iterdir())
    assert len(saved) == results
    if results == 1:  # as it is, without columns that were not reached
        assert Path(f"{probe}.png").read_bytes() == saved[0].read_bytes()


def test_textures_print_their_distance_to_the_example(home, capsys):
    words = ["wide.png", "--layers", "conv1,conv2", "--size", 24, "--count", 2]
    losses = []
    for steps in (1, 60):
        assert ask("texture", *words, "--steps", steps) == 0
        reported = capsys.readouterr().out.splitlines()[0].replace(",", "").split()
        losses.append([float(word) for word in reported[-2:]])
    assert all(after < before / 5 for before, after in zip(*losses, strict=True))


def test_photographs_of_any_size_take_on_the_style_of_others(home, capsys):
    words = ["--style", "wide.png", "--style", "photos/b.png", "--mix", "2,1", "--size", 32, "--steps", 20]
    layers = ["--layers", "conv1,conv2", "--content_layer", "conv3"]
    assert ask("style", "photos", *words, *layers, "--keep_colours", "--by", "adam") == 0
    lines = capsys.readouterr().out.splitlines()
    for line in lines[:2]:
        before, after = map(float, line.split()[-3::2])
        assert after != before
    assert ask("style", "wide.png", *words, *layers, "--out", "one.jpg") == 0
    with Image.open("one.jpg") as made:
        assert made.size == (32, 21)


@pytest.mark.parametrize("words", [["wide.png"], ["photos/a.png", "--style", "wide.png"]])
def test_no_picture_takes_the_place_of_a_photograph_that_is_read(words, home, capsys):
    before = Path("wide.png").read_bytes()
    assert ask("style" if "--style" in words else "texture", *words, "--steps", 1, "--out", "./wide.png") == 2
    assert "--out wide.png is a file that is read; wanted another name" in capsys.readouterr().err
    assert Path("wide.png").read_bytes() == before


def test_results_are_saved_at_their_own_size(home):
    words = ["--layers", "conv1,conv2", "--steps", 1, "--octaves", 1, "--size", 24]
    assert ask("dream", "photos", "wide.png", *words, "--save", "dreams") == 0
    with Image.open("dreams/wide_conv2.png") as made:
        assert made.size == (24, 16)
    assert len(list(Path("dreams").iterdir())) == 6
    assert ask("fool", "wide.png", "--target", 1, "--size", 16, "--save", "fooled") == 0
    with Image.open("fooled/wide_as_1.png") as made:
        assert made.size == (16, 16)


@pytest.mark.parametrize("method", ["gradient", "direct", "cppn"])
def test_fooling_images_are_printed_with_their_probabilities(method, home, capsys):
    few = ["--steps", 30] if method == "gradient" else ["--generations", 3, "--children", 8]
    assert ask("fool", "--method", method, *few, "--size", 16) == 0
    printed = capsys.readouterr().out
    assert "4 classes" in printed
    assert ("reached a probability of 0.99" in printed) == (method == "gradient")
    assert ("generation 3: median probability" in printed) == (method != "gradient")


def test_photographs_that_fool_are_shown_with_what_was_added(home, capsys):
    assert ask("fool", "photos", "--target", 1, "--target", 2, "--size", 16, "--side", 40) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if "changed by" in line]) == 4
    assert printed[-1].endswith("2 photographs")
    with Image.open("fool.png") as made:
        assert made.height > 4 * 40


@pytest.mark.parametrize(
    ("probe", "words", "printed"),
    [
        ("dream", ["none.png"], "no image none.png"),
        ("dream", ["wide.png", "--layers", "nine"], "nine"),
        ("dream", ["wide.png", "--octaves", "0"], "wanted at least 1"),
        (
            "dream",
            ["wide.png", "--layers", "conv3", "--tile", "1"],
            "tiles of 1 x 1 pixels are too small for",
        ),
        ("dream", ["wide.png", "--save", "wide.png"], "--save wide.png is not a folder"),
        ("dream", ["wide.png", "--scale", "0.5"], "a scale of at least 1"),
        ("dream", ["wide.png", "--lr", "0"], "a positive lr"),
        ("dream", ["wide.png", "--lr=-1"], "a positive lr"),
        ("dream", ["wide.png", "--guide", "none.png"], "no image none.png"),
        ("dream", ["wide.png", "--guide", "wide.png", "--channel", "conv1:0"], "wanted --layers"),
        ("texture", ["wide.png", "--count", "0"], "wanted at least 1"),
        ("texture", ["wide.png", "--steps", "many"], "wanted a whole number"),
        ("style", ["wide.png"], "--style"),
        ("style", ["wide.png", "--style", ""], "argument --style: the name is empty; wanted a file"),
        ("style", ["wide.png", "--style", "wide.png,"], "--style wide.png,: a name is empty"),
        ("style", ["", "--style", "wide.png"], "argument images: the name is empty"),
        ("style", ["wide.png", "--style", "wide.png", "--mix", "[1,2]"], "a weight for each"),
        ("style", ["wide.png", "--style", "wide.png", "--mix", "heavy"], "wanted a weight for each style"),
        ("style", ["wide.png", "--style", "wide.png", "--content_layer", "nine"], "nine"),
        (
            "style",
            ["wide.png", "--style", "wide.png", "--tv=-1"],
            "weight=10, tv=-1; wanted no negative ones",
        ),
        ("dream", ["thin.png"], "cannot take 3 x 1 x 16"),
        ("style", ["thin.png", "--style", "wide.png"], "cannot take 3 x 1 x 16"),
        ("style", ["wide.png", "--style", "thin.png"], "cannot take 3 x 1 x 16"),
        ("fool", ["--target", "unicorn"], "unicorn"),
        ("fool", ["photos"], "photographs without --target"),
        ("fool", ["photos", "--target", "1", "--method", "cppn"], "wanted --method gradient"),
        ("fool", ["--confidence", "2"], "wanted a probability between 0 and 1"),
        ("fool", ["--score_layer", "conv1"], "the network 4 classes; wanted a layer with a score for each"),
        ("fool", ["--score_layer", "nine"], "nine"),
        ("fool", ["--generations", "5"], "--generations is not for --method gradient"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(probe, words, printed, home, capsys):
    assert ask(probe, *words, "--size", 16) == 2
    error = capsys.readouterr().err.strip()
    assert printed in error
    assert len(error.splitlines()) == 1
    assert not Path(f"{probe}.png").exists()
