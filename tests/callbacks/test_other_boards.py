"""Boards that are no TensorBoard: a plain folder, Weights & Biases and MLflow, both offline."""

import csv
import json
from pathlib import Path

import pytest
import somebody
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, WandbLogger

from fulgurite.callbacks.boards.choice import boards_of
from fulgurite.callbacks.boards.folder import Folder, file_name
from fulgurite.callbacks.boards.tensorboard import TensorBoard
from fulgurite.callbacks.filters import Filters
from fulgurite.callbacks.framework.artifacts import (
    Embedding,
    Graph,
    Histogram,
    Picture,
    Scalar,
    Table,
    Text,
)
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.activations.module_graph import GraphNode
from fulgurite.probes.render import decoded

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}
PICTURE = torch.arange(3 * 4 * 5).view(3, 4, 5).to(torch.uint8)
SAMPLE = Sample(torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 0]), ("a", "b, c"), torch.device("cpu"))
CODES = torch.tensor([[0.5, 1.0], [1.5, 2.0], [2.5, 3.0]])
ARTIFACTS = {
    "seen/picture": Picture(PICTURE),
    "seen/number": Scalar(torch.tensor(1.5)),
    "seen/many": Histogram(torch.tensor([1.0, 2.0, 2.0, torch.nan])),
    "seen/none": Histogram(torch.tensor([torch.inf])),
    "seen/table": Table(["layer", "size"], [["conv, 1", "9"]]),
    "failures/seen": Text("Traceback:\n  here"),
    "codes": Embedding(CODES, SAMPLE),
    "graph": Graph(
        [GraphNode("images", "Input", (1, 3), ()), GraphNode("a.b", "Linear", (1, 2), ("images",))]
    ),
}


def rows(file: Path) -> list[list[str]]:
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


def pixels(file: Path) -> torch.Tensor:
    return decoded(file.read_bytes())


def check_files(folder: Path) -> None:
    """What every board but TensorBoard and Weights & Biases leaves behind as files."""
    assert torch.equal(pixels(folder / "pictures/seen/picture/00000007.png"), PICTURE)
    many = json.loads((folder / "histograms/seen/many/00000007.json").read_text())
    assert (many["number"], sum(many["counts"]), many["counts"][0], many["counts"][-1]) == (3, 3, 1, 2)
    assert (many["edges"][0], many["edges"][-1]) == (1, 2)
    assert many["mean"] == pytest.approx(5 / 3)
    assert json.loads((folder / "histograms/seen/none/00000007.json").read_text())["number"] == 0
    assert rows(folder / "tables/seen/table/00000007.csv") == [["layer", "size"], ["conv, 1", "9"]]
    assert (folder / "texts/failures/seen/00000007.txt").read_text() == "Traceback:\n  here\n"
    assert json.loads((folder / "graphs/graph/00000007.json").read_text())[1] == {
        "path": "a.b",
        "kind": "Linear",
        "shape": [1, 2],
        "inputs": ["images"],
    }
    assert rows(folder / "embeddings/codes/00000007.csv") == [
        ["image", "class", "x0", "x1"],
        *(["0", "a", "0.5", "1.0"], ["1", "b, c", "1.5", "2.0"], ["2", "a", "2.5", "3.0"]),
    ]


def test_a_folder_holds_every_artifact_as_a_file(tmp_path: Path):
    board = Folder(tmp_path / "seen here")
    board.log(ARTIFACTS, 7)
    board.log({"seen/number": Scalar(2.5)}, 8)
    check_files(board.folder)
    assert rows(board.folder / "scalars.csv") == [
        *(["step", "tag", "value"], ["7", "seen/number", "1.5"], ["8", "seen/number", "2.5"])
    ]
    assert str(board.folder) in board.where()


@pytest.mark.parametrize("tag", ["../up", "a/../../b", "/etc/x", "a//b", "c:\\d", "ü ß/ñ", "..", "name\n2"])
def test_whatever_a_class_is_called_its_file_lies_below_the_folder(tag: str, tmp_path: Path):
    path = (tmp_path / "pictures" / file_name(tag)).resolve()
    assert path.is_relative_to(tmp_path / "pictures")
    assert path != tmp_path / "pictures"
    assert "\n" not in str(path)


def test_beside_a_csv_logger_the_folder_lies_with_its_files(tmp_path: Path):
    logger = CSVLogger(tmp_path, name="", version="mine")
    somebody.quiet(tmp_path, Filters(**SCALE), logger=logger).fit(
        somebody.Theirs(), somebody.loader(), somebody.loader(9)
    )
    assert (tmp_path / "mine" / "metrics.csv").exists()
    assert (tmp_path / "mine/probes/pictures/Filters/features.0/00000006.png").exists()


def test_every_logger_that_takes_pictures_gets_them_and_a_test_run_writes_nothing(tmp_path: Path):
    one, other = (
        somebody.TensorBoardLogger(tmp_path / name, name="", version="") for name in ("one", "other")
    )
    trainer = somebody.quiet(tmp_path, Filters(**SCALE), logger=[one, CSVLogger(tmp_path), other])
    assert [type(board) for board in boards_of(trainer)] == [TensorBoard] * 2
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    pictures = [somebody.images(tmp_path / name).keys() for name in ("one", "other")]
    assert pictures[0] == pictures[1] != set()
    nothing = tmp_path / "nothing"
    somebody.quiet(nothing, Filters(**SCALE), fast_dev_run=True, default_root_dir=nothing).fit(
        somebody.Theirs(), somebody.loader(), somebody.loader(9)
    )
    assert not nothing.exists()


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    trainer = somebody.quiet(tmp_path, Filters(**SCALE), logger=logger)
    logged = []
    log = logger.experiment.log
    monkeypatch.setattr(logger.experiment, "log", lambda row, *more: logged.append(row) or log(row, *more))
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    seen = [row for row in logged if "Filters/features.0" in row]
    assert [row["trainer/global_step"] for row in seen] == [0, 3, 6]
    assert all(isinstance(row["Filters/features.0"], wandb.Image) for row in seen)
    (board,) = boards_of(trainer)
    board.log(ARTIFACTS, 7)
    row = logged[-1]
    assert row["seen/number"] == 1.5
    assert row["trainer/global_step"] == 7
    assert sum(row["seen/many"].histogram) == 3
    assert row["seen/table"].data == [["conv, 1", "9"]]
    assert row["failures/seen"].data == [["Traceback:\n  here"]]
    assert row["graph"].data[1] == ["a.b", "Linear", "(1, 2)", "images"]
    assert row["codes"].columns == ["image", "class", "x0", "x1"]
    files = Path(logger.experiment.dir)
    wandb.finish()
    assert torch.equal(pixels(next(files.rglob("seen/picture*.png"))), PICTURE)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=(tmp_path / "mlruns").as_uri())
    trainer = somebody.quiet(tmp_path, Filters(**SCALE), logger=logger)
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    (board,) = boards_of(trainer)
    board.log({**ARTIFACTS, "accuracy of ü=1": Scalar(0.5)}, 7)
    client, run = logger.experiment, logger.run_id
    assert [(one.step, one.value) for one in client.get_metric_history(run, "seen/number")] == [(7, 1.5)]
    assert len(client.get_metric_history(run, "seconds/Filters")) == 3
    assert "accuracy of ü_1" in client.get_run(run).data.metrics
    files = Path(client.get_run(run).info.artifact_uri.removeprefix("file://"))
    check_files(files)
    assert (files / "pictures/Filters/features.0/00000006.png").exists()
    assert run in board.where()
