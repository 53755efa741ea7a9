"""Images of 2 or 4 to 13 channels: from .npy, TIFFs of several bands, and by a user's loader."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from fulgurite.cli.command import main
from fulgurite.cli.outputs import write_picture
from fulgurite.data.arrays import ArrayReader
from fulgurite.data.decoding import UnreadableImageError
from fulgurite.data.folder import Folder
from fulgurite.probes.composites import channels_of, composites_noted
from fulgurite.probes.render import picture

RANDOM = np.random.default_rng(0)
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
LOADER = """
import numpy as np


def load(path):
    assert path.suffix == ".dcm"
    return np.fromfile(path, np.int16).reshape(16, 16) / 1000 + 0.5
"""


def npy(file: Path, values: np.ndarray) -> None:
    np.save(file.with_suffix(".npy"), values)


def tiff(file: Path, values: np.ndarray) -> None:
    tifffile.imwrite(file.with_suffix(".tif"), values, photometric="minisblack", planarconfig="contig")


def planes(file: Path, values: np.ndarray) -> None:
    tifffile.imwrite(
        file.with_suffix(".tiff"), np.moveaxis(values, -1, 0), photometric="minisblack", compression="zlib"
    )


def fill(folder: Path, write=npy, *, channels: int = 5, top: int = 4000, dtype: type = np.uint16) -> Path:
    """Two classes that differ in the last channel alone."""
    for number, name in enumerate(("dry", "wet")):
        (folder / name).mkdir(parents=True)
        for place in range(6):
            values = RANDOM.integers(0, top, (16, 16, channels)).astype(dtype)
            values[..., -1] = (number + 1) * top // 4 + place
            values[0, 0, 0] = top
            write(folder / name / f"{place}", values)
    return folder


@pytest.mark.parametrize("write", [npy, tiff, planes], ids=lambda write: write.__name__)
@pytest.mark.parametrize("channels", [2, 4, 5, 13])
def test_a_folder_of_arrays_gives_their_values_by_the_range_of_the_folder(tmp_path, write, channels, caplog):
    data = Folder(fill(tmp_path / "x", write, channels=channels), size=16, channels=channels, augment=False)
    data.setup()
    assert data.white == 4095
    assert "4095 is white; if it is not, give white=, or --white in the shell" in caplog.text
    assert len(data.mean) == channels
    for image, label in data.val:
        assert image.shape == (channels, 16, 16)
        assert image.dtype == torch.float32
        assert float(image[-1].median()) == pytest.approx((label + 1) * 1000 / 4095, abs=0.003)


def test_what_is_read_is_what_was_written_bit_for_bit(tmp_path):
    values = RANDOM.random((9, 7, 6)).astype(np.float32)
    for write, name in ((npy, "x.npy"), (tiff, "x.tif"), (planes, "x.tiff")):
        write(tmp_path / "x", values)
        assert np.array_equal(ArrayReader(6)(tmp_path / name).numpy(), np.moveaxis(values, -1, 0))
    bands = RANDOM.integers(0, 256, (4, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "bands.npy", bands)
    assert np.array_equal(ArrayReader(4)(tmp_path / "bands.npy").numpy(), bands / np.float32(255))


def test_training_images_are_framed_at_random_in_their_range_and_the_same_by_seed(tmp_path):
    folder = fill(tmp_path / "x", channels=4)
    batches = []
    for _ in range(2):
        data = Folder(folder, size=12, channels=4, batch_size=4)
        data.setup()
        batches.append(next(iter(data.train_dataloader()))[0])
    assert torch.equal(*batches)
    assert batches[0].shape == (4, 4, 12, 12)
    assert 0 <= float(batches[0].min()) < float(batches[0].max()) <= 1
    with pytest.raises(ValueError, match=r"changes colours; arrays take \"none\", \"light\" or \"standard\""):
        Folder(folder, channels=4, augment="colour")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.zeros((4, 4, 3)), "an array of 4 x 4 x 3; wanted height x width x 5 channels"),
        (np.full((4, 4, 5), -1.0), "its values go from -1 to -1; wanted 0 to 1"),
        (np.full((4, 4, 5), 7.0), "its values go from 7 to 7; wanted 0 to 1, so scale them first"),
        (np.full((4, 4, 5), np.nan), "NaN or infinite"),
        (np.zeros((4, 4, 5), bool), "it holds bool; wanted plain numbers"),
        (np.array([{}] * 5), "Python objects"),
        (np.zeros((0, 4, 5)), "an array of 0 x 4 x 5"),
    ],
)
def test_an_array_that_is_no_image_is_refused_in_a_sentence(tmp_path, values, why):
    np.save(tmp_path / "x.npy", values, allow_pickle=True)
    with pytest.raises(UnreadableImageError, match=why) as reported:
        ArrayReader(5)(tmp_path / "x.npy")
    assert "\n" not in str(reported.value)
    (tmp_path / "x.npy").write_bytes(b"no array")
    with pytest.raises(UnreadableImageError):
        ArrayReader(5)(tmp_path / "x.npy")


def test_a_bad_array_is_replaced_by_the_next_of_its_class(tmp_path):
    folder = fill(tmp_path / "x")
    (folder / "dry" / "0.npy").write_bytes(b"no array")
    data = Folder(folder, size=16, channels=5, augment=False, val_share=0.5)
    data.setup()
    with pytest.warns(UserWarning, match=r"0\.npy cannot be read as an image: .*takes its place"):
        assert all(image.shape == (5, 16, 16) for part in (data.train, data.val) for image, _ in part)


@pytest.mark.parametrize("white", [None, 4095])
def test_a_folder_of_arrays_of_other_channels_is_refused_before_they_are_loaded(tmp_path, white):
    folder = fill(tmp_path / "x", channels=4)
    wanted = "channels=5, but of 12 files that were tried none can be read so; .*an array of 16 x 16 x 4"
    with pytest.raises(ValueError, match=wanted):
        Folder(folder, size=16, channels=5, augment=False, white=white)
    npy(folder / "wet" / "5", np.zeros((16, 16, 5)))  # the last one that is tried
    with pytest.raises(ValueError, match="none"):
        Folder(folder, size=16, channels=6, augment=False)
    assert Folder(folder, size=16, channels=5, augment=False).channels == 5


def test_channels_and_composites_are_checked(tmp_path):
    with pytest.raises(
        ValueError, match="channels is 1 for grey, 3 for colour, or up to 13 of arrays; got 14"
    ):
        Folder(tmp_path, channels=14)
    assert channels_of("3,2,1") == (3, 2, 1)
    with pytest.raises(ValueError, match="wanted one of first three"):
        channels_of("3,2")


def fit(*words: str) -> int:
    own = ["--network", "small_vgg", "--size", "32", "--workers", "0", "--lr", "0.003", "--augment", "false"]
    return main(["fit", "folder", "--path", "x", "--folder", "run", *own, *QUIET, *words])


@pytest.mark.slow
def test_a_run_on_five_bands_learns_shows_a_composite_and_predicts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(Path("x"), tiff)
    words = ["--channels", "5", "--composite", "4,3,0", "--epochs", "8", "--every", "8", "--budget", "null"]
    assert fit(*words) == 0
    assert main(["predict", "run", "x/wet", "--out", "out.csv", "--explain"]) == 0
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert [row["class_1"] for row in rows] == ["wet"] * 6
    sheet = np.asarray(Image.open(rows[0]["sheet"]).convert("RGB")).reshape(-1, 3)
    assert (sheet[:, 0] > sheet[:, 1]).any()  # in colour
    assert main(["grad_cam", "x/wet", "--network", "run", "--out", "cam.svg"]) == 0
    assert "shown as red channel " in Path("cam.svg").read_text()


def test_the_picture_of_a_command_says_which_channels_it_shows(tmp_path: Path):
    for channels in (1, 3, 4):
        with composites_noted():
            write_picture(picture(torch.rand(channels, 8, 8)), tmp_path / "x.svg", "", title="cat")
        found = "shown as red channel 0, green channel 1" in (tmp_path / "x.svg").read_text()
        assert found == (channels == 4)


def test_a_loader_reads_files_of_any_name_and_is_only_imported_when_typed_or_trusted(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_TRUSTED", raising=False)
    Path("scans.py").write_text(LOADER)
    for number, name in enumerate(("sick", "well")):
        Path("x", name).mkdir(parents=True)
        for place in range(6):
            hounsfield = RANDOM.integers(-100, 100, (16, 16)).astype(np.int16) + np.int16(
                300 * (2 * number - 1)
            )
            hounsfield.tofile(f"x/{name}/{place}.dcm")
    assert fit("--channels", "1", "--loader", "scans.load", "--epochs", "8", "--every", "0") == 0
    sys.modules.pop("scans")
    capsys.readouterr()
    assert main(["predict", "run", "x/well", "--out", "out.csv"]) == 2
    assert "the loader scans.load is code of a package that a run's folder names" in capsys.readouterr().err
    assert "scans" not in sys.modules
    monkeypatch.setenv("FULGURITE_TRUSTED", "scans")
    assert main(["predict", "run", "x/well", "--out", "out.csv"]) == 0
    assert [row["class_1"] for row in csv.DictReader(Path("out.csv").read_text().splitlines())] == [
        "well"
    ] * 6
    sys.modules.pop("scans")
