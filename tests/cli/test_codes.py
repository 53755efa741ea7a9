"""Nearest neighbours, image grids and strongest images from the shell."""

from pathlib import Path

import pytest
import torch
from drawn_words import words as drawn_words
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.models.networks import build


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), tmp_path / "weights.safetensors")
    for place in range(12):
        file = tmp_path / "photos" / ("red", "blue")[place % 2] / f"{place:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (20, 24, 3), dtype=torch.uint8)
        pixels[..., place % 2] //= 8
        Image.fromarray(pixels.numpy()).save(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: object) -> int:
    network = ["--network", "small_vgg", "--weights", "weights.safetensors", "--size", "16", "--side", "32"]
    return main([*(str(word) for word in words), *network])


def test_neighbours_are_a_row_for_each_query_and_numbers_where_there_are_classes(home, capsys):
    assert ask("neighbours", "photos", "--k", 3, "--queries", 4) == 0
    printed = capsys.readouterr().out.splitlines()
    # planted: the two classes differ in colour
    assert printed[0] == ("codes: accuracy of 3 nearest neighbours 100.0%, recall at 1 100.0%, at 3 100.0%")
    assert printed[1].startswith("pixels: accuracy of 3 nearest neighbours 100.0%")
    assert "3 neighbours of 4 among 12 images" in printed[2]
    with Image.open("neighbours.png") as picture:
        assert picture.height > 4 * 32
        assert picture.width > 7 * 32
        # all edges are green, none is red
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**20)}
        assert (89, 193, 90) in colours
        assert (225, 87, 89) not in colours
    assert ask("neighbours", "photos/red", "--metric", "l2") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(("metric", "number"), [("cosine", "1 - cosine"), ("l2", "L2 distance")])
def test_files_are_named_by_their_ends_and_numbers_by_what_they_are(metric, number, home, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "fulgurite.cli.codes.write_picture", lambda paper, *_, **__: drawn.extend(drawn_words(paper))
    )
    for file in (home / "photos" / "red").iterdir():
        file.rename(file.with_stem(f"n0144076401234_{file.stem}"))
    assert ask("neighbours", "photos/red", "--metric", metric) == 0
    assert " ".join(drawn).count(number) == 2
    assert any(word.startswith("…") and word.endswith("_00") for word in drawn)
    drawn.clear()
    assert ask("directions", "photos/red", "--k", 3) == 0
    assert any(word.startswith("…") and word.endswith("_00") for word in drawn)


def test_a_grid_and_a_map_of_all_images_say_how_good_they_are(home, capsys):
    for layout in ("grid", "map"):
        assert ask("image_grid", "photos", "--layout", layout, "--out", f"{layout}.png") == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[0].startswith("trustworthiness ")
        assert "12 images" in printed[1]
    with Image.open("grid.png") as picture:
        assert 4 * 32 <= picture.width < 450  # 4 columns, and words as wide as they need
        assert 3 * 32 + 3 * 15 <= picture.height < 3 * 36 + 5 * 15  # 3 rows, a title, a scale and a note
        assert len(set(picture.convert("L").tobytes())) > 20


def test_units_and_directions_are_shown_side_by_side_with_their_class_purity(home, capsys):
    assert ask("directions", "photos", "--k", 3, "--most", 2) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0].rpartition(", ")[2] for line in printed[:3]] == [
        "units",
        "random directions",
        "images drawn at random",
    ]
    shares = [float(line.partition(": ")[2].split()[0]) for line in printed[:3]]
    # planted: the two classes differ in colour, so that codes know them
    assert min(shares[:2]) > shares[2]
    assert "2 of 128 units, 12 images" in printed[3]
    with Image.open("directions.png") as picture:
        assert picture.width > 2 * 3 * 32
    assert ask("directions", "photos/red", "--k", 3, "--out", "plain.png") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1  # there are no classes


def test_an_unreadable_file_of_a_folder_is_left_out_with_a_note(home, capsys):
    (home / "photos" / "red" / "04.png").write_bytes(b"no picture")
    assert ask("neighbours", "photos", "--k", 10) == 1  # done in part
    printed = capsys.readouterr()
    assert "among 11 images" in printed.out
    assert "note: left out: " in printed.err
    assert ask("neighbours", "photos", "--k", 11) == 2
    assert "error: 11 images for 11 neighbours of each; wanted at least 12" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["neighbours", "photos", "--layer", "conv9"], "no layer 'conv9'"),
        (["neighbours", "photos", "--k", "12"], "12 images for 12 neighbours of each"),
        (["neighbours", "photos", "--k", "0"], "--k 0; wanted at least 1"),
        (["neighbours", "photos", "--queries", "many"], "--queries many; wanted a whole number"),
        (["directions", "photos", "--k", "13"], "12 images for the 13 strongest of each unit"),
        (["directions", "photos", "--most", "0"], "--most 0; wanted at least 1"),
        (["image_grid", "photos", "--method", "isomap"], "--method isomap: a map by 'isomap'; wanted tsne"),
        (["neighbours", "photos", "--metric", "l1"], "--metric l1; wanted cosine or l2"),
        (["image_grid", "photos/red/00.png"], "1 image on a grid; wanted 4 to 1600"),
        (["image_grid", "photos", "--layout", "heap"], "--layout heap; wanted grid or map"),
        (["neighbours", "photos/red/00.png"], "1 image for 5 neighbours of each"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(words, complaint, home, capsys):
    assert ask(*words) == 2
    reported = capsys.readouterr().err
    assert complaint in reported
    assert reported.count("\n") == 1
    assert not list(home.glob("*.png"))
