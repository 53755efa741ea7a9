"""A full disk: training continues, written files can be read, and nothing is left half-written."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning.pytorch as pl
import pytest
import somebody
import torch
from google.protobuf import text_format
from PIL import Image
from small_disks import small_disk_at
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch.utils.tensorboard import SummaryWriter

from fulgurite.callbacks.boards.tensorboard import TensorBoard
from fulgurite.callbacks.embeddings import Embeddings
from fulgurite.callbacks.filters import Filters
from fulgurite.callbacks.framework.artifacts import Picture, Scalar
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.transfer import Drift

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}
NOISE = torch.randint(256, (3, 200, 200), dtype=torch.uint8)


class Silent(somebody.Theirs):
    """Logs nothing: what Lightning does with a full disk is its own business."""

    def log(self, *_, **__):
        return


class Noise(ProbeCallback):
    """A picture of 120 kB."""

    def subjects(self, network, sample):
        return [""]

    def observe(self, network, sample, subjects):
        return {"": Picture(NOISE)}


@pytest.fixture
def limit() -> Iterator[Callable]:
    """A limit on the size of any file: writes fail in their middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    with small_disk_at(tmp_path / "disk", 1) as disk:
        yield disk


def events(folder: Path) -> list[bytes]:
    """Every event of a run; a half one is an error."""
    found = []
    for file in sorted(folder.glob("events.*")):
        reader, size = PyRecordReader_New(str(file)), 0
        while size < file.stat().st_size:
            reader.GetNext()
            found.append(reader.record())
            size += len(found[-1]) + 16
    return found


def whole_files(folder: Path) -> None:
    """See that nothing is half-written, and no temporary file is left."""
    for file in (path for path in folder.rglob("*") if path.is_file()):
        assert not file.name.endswith((".tmp", ".draft")), file
        if file.suffix == ".png":
            with Image.open(file) as picture:
                picture.load()
        if file.suffix == ".tsv":
            assert file.read_text().endswith("\n")
        if file.suffix == ".pbtxt":
            listed = text_format.Parse(file.read_text(), ProjectorConfig()).embeddings
            assert all((folder / entry.tensor_path).exists() for entry in listed)
            assert all((folder / entry.sprite.image_path).exists() for entry in listed)


class Fills(pl.Callback):
    """Leaves no room from the end of the second epoch to the end of the third."""

    def __init__(self, fill: Callable, free: Callable):
        self.fill, self.free = fill, free

    def on_train_epoch_end(self, trainer: pl.Trainer, _):
        if trainer.current_epoch == 1:
            self.fill()

    def on_train_epoch_start(self, trainer: pl.Trainer, _):
        if trainer.current_epoch == 3:
            self.free()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("room", [None, 100], ids=["room is reserved", "the writer fails"])
def test_training_continues_when_events_cannot_be_written(tmp_path: Path, limit: Callable, room: int | None):
    def fill() -> None:
        # below a picture's size, or just above that of the file as it is
        limit(1000 if room is None else room + max(file.stat().st_size for file in tmp_path.glob("events.*")))

    fills = Fills(fill, lambda: limit(None))
    trainer = somebody.quiet(tmp_path, fills, Noise(**SCALE), Drift(**SCALE), max_epochs=4)
    with pytest.warns(UserWarning, match="failed, training goes on: OSError"):
        trainer.fit(Silent(), somebody.loader(), somebody.loader(9))
    assert trainer.global_step == 12
    steps = {step for tag, step in somebody.images(tmp_path) if tag == "Noise"}
    assert steps >= {0, 3, 12}
    assert 6 not in steps
    assert events(tmp_path)
    whole_files(tmp_path)


@pytest.mark.parametrize("where", ["event", "picture", "projector"])
def test_training_continues_on_a_full_disk(tmp_path: Path, small_disk: Path, where: str):
    filler, run = small_disk / "filler", tmp_path / "run" if where == "picture" else small_disk

    def fill() -> None:
        block = b"0" * 1024
        with filler.open("wb", buffering=0) as file:
            while file.write(block) == len(block):
                pass

    def fill_all() -> None:
        try:
            fill()
        except OSError:
            return

    probe = {"event": Noise, "picture": Noise, "projector": Embeddings}[where]
    pictures = small_disk / "pictures" if where == "picture" else None
    callbacks = Fills(fill_all, filler.unlink), probe(pictures=pictures, **SCALE)
    trainer = somebody.quiet(run, *callbacks, max_epochs=4)
    words = r"failed, training goes on: OSError: \[Errno 28\].*; free some space on the disk"
    with pytest.warns(UserWarning, match=words) as reported:
        trainer.fit(Silent(), somebody.loader(), somebody.loader(9))
    assert not [one for one in reported if "Traceback" in str(one.message)]
    assert trainer.global_step == 12
    assert events(run)
    whole_files(run)
    whole_files(small_disk)
    steps = {step for tag, step in somebody.images(run) if tag.startswith(probe.__name__)}
    assert {0, 3, 12} <= steps


def test_a_film_that_cannot_be_written_is_reported(tmp_path: Path, limit: Callable):
    class Last(pl.Callback):
        def on_train_end(self, *_):
            limit(1)

    trainer = somebody.quiet(tmp_path, Filters(**SCALE))
    trainer.callbacks.insert(0, Last())
    with pytest.warns(UserWarning, match="Filters failed, training goes on: OSError"):
        trainer.fit(Silent(), somebody.loader(), somebody.loader(9))


class Breaks(ProbeCallback):
    """Fails at the given places."""

    def __init__(self, where: str, **schedule):
        super().__init__(**schedule)
        self.where, self.looks = where, 0

    def _step(self, where: str):
        if where == self.where and self.looks:
            raise KeyError(where)

    def note(self, trainer, pl_module):
        self._step("note")

    def subjects(self, network, sample):
        self._step("subjects")
        return ["a"]

    def observe(self, network, sample, subjects):
        self._step("observe")
        return {"a": Scalar(1.0)}

    def compose(self, seen, sample):
        self._step("compose")
        self.looks += 1
        return seen


@pytest.mark.parametrize("where", ["note", "subjects", "observe", "compose"])
def test_any_failure_of_a_look_is_reported_and_training_continues(tmp_path: Path, where: str):
    trainer = somebody.quiet(tmp_path, Breaks(where, **SCALE))
    with pytest.warns(UserWarning, match=f"Breaks failed, training goes on: KeyError: '{where}'"):
        trainer.fit(Silent(), somebody.loader(), somebody.loader(9))
    assert trainer.global_step == 6
    assert [step for step, _ in somebody.scalars(tmp_path)["Breaks/a"]] == [0]


@pytest.mark.filterwarnings("ignore:Breaks failed, training goes on")
def test_a_probe_that_looks_no_more_does_not_begin_again_after_a_resume(tmp_path: Path):
    trainer = somebody.quiet(tmp_path / "first", Breaks("observe", **SCALE), max_epochs=3)
    with pytest.warns(UserWarning, match="failed 3 times in a row and is switched off"):
        trainer.fit(Silent(), somebody.loader(), somebody.loader(9))
    trainer.save_checkpoint(tmp_path / "third.ckpt")
    trainer = somebody.quiet(tmp_path / "again", Breaks("nowhere", **SCALE), max_epochs=5)
    trainer.fit(Silent(), somebody.loader(), somebody.loader(9), ckpt_path=tmp_path / "third.ckpt")
    assert trainer.global_step == 15
    assert "Breaks/a" not in somebody.scalars(tmp_path / "again")


def test_of_a_look_that_fails_no_event_is_written(tmp_path: Path):
    class FailingNumber(float):
        def __float__(self):
            raise OSError("on purpose")

    board = TensorBoard(SummaryWriter(tmp_path), tmp_path)
    board.log({"first": Scalar(1.0)}, 0)
    with pytest.raises(OSError, match="on purpose"):
        board.log({"second": Scalar(1.0), "third": Scalar(FailingNumber())}, 1)
    assert list(somebody.scalars(tmp_path)) == ["first"]
