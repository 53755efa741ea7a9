"""Logged artifacts can be read back: pictures, scalars, histograms, tables, films, the projector's files."""

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import somebody
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch.utils.tensorboard import SummaryWriter

from fulgurite.callbacks.boards import projector
from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.boards.projector import CONFIG, thumbnails
from fulgurite.callbacks.boards.tensorboard import TensorBoard
from fulgurite.callbacks.embeddings import Embeddings
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
from fulgurite.callbacks.metrics import Metrics
from fulgurite.probes import atomic, render
from fulgurite.probes.activations.module_graph import GraphNode
from fulgurite.probes.style import colour, rgb

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


@pytest.fixture
def board(tmp_path: Path) -> TensorBoard:
    return TensorBoard(SummaryWriter(tmp_path), tmp_path)


def sample(count: int = 12, side: int = 8) -> Sample:
    generator = torch.Generator().manual_seed(0)
    return Sample(
        torch.rand(count, 1, side, side, generator=generator),
        torch.arange(count) % 3,
        ("a", "b", "c c"),
        torch.device("cpu"),
    )


def test_small_or_drawn_pictures_are_stored_exactly_and_large_photographs_nearly(board: TensorBoard):
    small = torch.randint(256, (3, 20, 30), dtype=torch.uint8)
    drawn = torch.randint(2, (1, 1100, 1100), dtype=torch.uint8).expand(3, -1, -1) * 255
    ramp = torch.linspace(0, 255, 1100).round().to(torch.uint8)
    large = torch.stack(
        [ramp.expand(1100, -1), ramp[:, None].expand(-1, 1100), ramp.flip(0).expand(1100, -1)]
    )
    board.log({"small": Picture(small), "large": Picture(large), "drawn": Picture(drawn)}, 3)
    read = somebody.images(board.folder)
    assert torch.equal(read["small", 3], small)
    assert torch.equal(read["drawn", 3], drawn)
    assert 0 < (read["large", 3].int() - large.int()).abs().float().mean() <= 2


def test_pictures_can_also_be_written_to_a_folder(tmp_path: Path):
    LatestPictures(tmp_path / "pictures").log({"a/b": Picture(torch.zeros(3, 5, 6, dtype=torch.uint8))}, 0)
    with Image.open(tmp_path / "pictures" / "a_b.png") as picture:
        assert picture.size == (6, 5)


def test_a_module_graph_is_read_back_from_the_graph_tab(board: TensorBoard):
    nodes = [
        GraphNode("images", "Input", (1, 3), ()),
        GraphNode("a.b", "Linear", (1, 2), ("images",)),
        GraphNode("output", "Output", (1, 2), ("a.b", "images")),
    ]
    board.log({"graph": Graph(nodes)}, 0)
    run = EventAccumulator(str(board.folder))
    run.Reload()
    read = {node.name: node for node in run.Graph().node}
    assert {name: (node.op, list(node.input)) for name, node in read.items()} == {
        "images": ("Input", []),
        "a/b": ("Linear", ["images"]),
        "output": ("Output", ["a/b", "images"]),
    }
    shapes = read["a/b"].attr["_output_shapes"].list.shape
    assert [side.size for side in shapes[0].dim] == [1, 2]


def test_numbers_come_back(board: TensorBoard):
    values = torch.tensor([1.0, 2.0, torch.nan, torch.inf])
    board.log({"one": Scalar(torch.tensor(1.5)), "many": Histogram(values), "none": Histogram(values[2:])}, 7)
    board.log({"words": Table(["layer", "size"], [["conv|1", "9"]]), "trace": Text("one\n  two")}, 7)
    assert somebody.scalars(board.folder) == {"one": [(7, 1.5)]}
    run = EventAccumulator(str(board.folder))
    run.Reload()
    assert run.Tags()["histograms"] == ["many"]
    (event,) = run.Histograms("many")
    histogram = event.histogram_value
    assert (event.step, histogram.num, histogram.min, histogram.max) == (7, 2, 1, 2)
    assert (histogram.sum, sum(histogram.bucket)) == (3, 2)
    texts = {
        tag: tensor.tensor_proto.string_val[0].decode()
        for tag in run.Tags()["tensors"]
        for tensor in run.Tensors(tag)
    }
    assert texts == {
        "words/text_summary": "| layer | size |\n| --- | --- |\n| conv\\|1 | 9 |",
        "trace/text_summary": "    one\n      two",
    }


def entries(folder: Path) -> ProjectorConfig:
    return text_format.Parse((folder / CONFIG).read_text(), ProjectorConfig())


def test_the_projector_s_files_are_small_shared_and_sorted(board: TensorBoard):
    for step in (100, 20):
        board.log({"Embeddings": Embedding(torch.randn(12, 5), sample())}, step)
    listed = entries(board.folder).embeddings
    # the projector opens on the first by name: what was written last
    names = ["Embeddings (last: step 20)", "Embeddings 00000020", "Embeddings 00000100"]
    assert [entry.tensor_name for entry in listed] == names
    assert listed[0].tensor_path == listed[1].tensor_path
    assert (
        len({entry.sprite.image_path for entry in listed})
        == len({entry.metadata_path for entry in listed})
        == 1
    )
    for entry in listed:
        rows = (board.folder / entry.tensor_path).read_text().splitlines()
        assert [len(row.split("\t")) for row in rows] == [5] * 12
    labels = (board.folder / listed[0].metadata_path).read_text().splitlines()
    assert labels[:2] == ["class\tlabel", "a\t0"]
    assert len(labels) == 13
    side = listed[0].sprite.single_image_dim[0]
    with Image.open(board.folder / listed[0].sprite.image_path) as sheet:
        assert sheet.size == (4 * side, 4 * side)


def test_thumbnails_are_framed_in_the_colours_of_their_classes():
    labels = torch.tensor([0, 2, 1])
    plain = Sample(torch.full((3, 1, 30, 30), 0.5), labels, tuple("abc"), torch.device("cpu"))
    sheet = thumbnails(plain, 30)
    for place, label in enumerate(labels.tolist()):
        tile = sheet[:, place // 2 * 30 :, place % 2 * 30 :]
        assert tuple(tile[:, 0, 0].tolist()) == rgb(colour(label))
        assert tile[:, 3, 3].tolist() == [128] * 3


def test_the_projector_keeps_the_entries_of_a_run_that_is_resumed(tmp_path: Path):
    for step in (10, 20):
        board = TensorBoard(SummaryWriter(tmp_path), tmp_path)
        board.log({"Embeddings": Embedding(torch.randn(12, 5), sample())}, step)
    assert len(entries(tmp_path).embeddings) == 3  # the last one twice


def test_passing_codes_give_way_to_the_next_and_others_stay(board: TensorBoard):
    codes, looks = torch.randn(12, 5), {0: False, 10: True, 20: True, 30: False, 40: True}
    for step, passing in looks.items():
        board.log({"other": Embedding(codes, sample(), passing=True)}, 7)
        board.log({"Embeddings": Embedding(codes, sample(), passing=passing)}, step)
    names = [entry.tensor_name for entry in entries(board.folder).embeddings]
    assert names[:2] == ["Embeddings (last: step 40)", "Embeddings 00000000"]
    assert names[2:] == [
        "Embeddings 00000030",
        "Embeddings 00000040",
        "other (last: step 7)",
        "other 00000007",
    ]
    files = sorted(file.name for file in (board.folder / "projector" / "Embeddings").glob("0*"))
    assert files == ["00000000.tsv", "00000030.tsv", "00000040.passing.tsv"]
    for entry in entries(board.folder).embeddings:
        assert (board.folder / entry.tensor_path).exists()


@pytest.mark.parametrize("written", range(4))
def test_a_kill_leaves_no_embedding_half_written(
    board: TensorBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
):
    """After any number of its four files: labels, thumbnails, codes and the entry."""

    class KilledError(BaseException):
        pass

    write, left = atomic.write_atomic, iter(range(written))

    def write_some(path, content):
        if next(left, None) is None:
            raise KilledError
        write(path, content)

    embedding = Embedding(torch.randn(12, 5), sample())
    with monkeypatch.context() as patch:
        for module in (projector, render):
            patch.setattr(module, "write_atomic", write_some)
        with pytest.raises(KilledError):
            board.log({"Embeddings": embedding}, 1)
    assert not (board.folder / "projector_config.pbtxt").exists()
    board.log({"Embeddings": embedding}, 1)
    TensorBoard(SummaryWriter(tmp_path / "whole"), tmp_path / "whole").log({"Embeddings": embedding}, 1)
    one, other = (
        {path.relative_to(run): path.read_bytes() for path in run.rglob("*.*") if "tfevents" not in path.name}
        for run in (board.folder / "projector", tmp_path / "whole" / "projector")
    )
    assert len(one) == 3
    assert one == other
    assert len(entries(board.folder).embeddings) == 2


@pytest.mark.slow
def test_ten_thousand_thumbnails_fit_into_the_sheet_that_the_projector_can_show(board: TensorBoard):
    plain = Sample(torch.zeros(70000, 1, 32, 32), None, (), torch.device("cpu"))
    board.log({"many": Embedding(torch.zeros(70000, 1), plain)}, 0)
    entry = entries(board.folder).embeddings[0]
    with Image.open(board.folder / entry.sprite.image_path) as sheet:
        width, height = sheet.size
    assert width == height <= 8192
    assert width // entry.sprite.single_image_dim[0] == 265


@pytest.mark.slow
def test_the_server_answers_for_scalars_images_and_projector(tmp_path: Path):
    probes = [kind(**SCALE) for kind in (Filters, Metrics, Embeddings)]
    somebody.quiet(tmp_path, *probes).fit(somebody.Theirs(), somebody.loader(), somebody.loader(12))
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(tmp_path),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    server = subprocess.Popen(
        [*command, "--samples_per_plugin", "images=500"], stderr=subprocess.PIPE, text=True
    )
    try:
        line = next(line for line in server.stderr if "http://" in line)
        root = line[line.index("http://") :].split()[0].rstrip("/")
        reported = ""
        for _ in range(60):
            reported = _get(f"{root}/data/plugin/images/tags") + _get(f"{root}/data/plugin/projector/runs")
            if "Metrics/confusion" in reported and '"."' in reported.split("}")[-1]:
                break
            time.sleep(0.5)
        assert "Metrics/confusion" in reported
        assert "Metrics/accuracy" in _get(f"{root}/data/plugin/scalars/tags")
        seen = _get(f"{root}/data/plugin/images/images?run=.&tag=Metrics/confusion&sample=0")
        assert seen.count('"step"') == 3
        assert "Embeddings 00000006" in _get(f"{root}/data/plugin/projector/info?run=.")
        assert "\t" in _get(f"{root}/data/plugin/projector/metadata?run=.&name=Embeddings%2000000006")
    finally:
        server.terminate()
        server.wait(10)
        server.stderr.close()


def _get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read().decode(errors="replace")
