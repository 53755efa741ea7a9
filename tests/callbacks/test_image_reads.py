"""The probes of a Trainer read each image once, and keep no more than fit into the limit."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import somebody
import torch
from every_probe import every_probe
from torch.utils.data import DataLoader, IterableDataset

from fulgurite.callbacks.filters import Filters
from fulgurite.callbacks.framework.lazy_images import READ, LoadedImages
from fulgurite.callbacks.framework.sample import sample_of
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.saliency import Saliency

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}
CPU = torch.device("cpu")


def reads_of(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()]


class Noted(somebody.Blobs):
    """Notes in a file which images are read: a look puts back what is in memory."""

    def __init__(self, count: int, file: Path):
        super().__init__(count)
        self.file = file

    def __getitem__(self, index: int):
        with self.file.open("a") as out:
            out.write(f"{index}\n")
        return super().__getitem__(index)


class ReadsBefore(pl.Callback):
    """The images read when training starts, without those of the first look."""

    def __init__(self, file: Path):
        self.file, self.reads = file, list[int]()

    def on_train_epoch_start(self, trainer, *_):
        if trainer.current_epoch == 0:
            self.reads = reads_of(self.file)


@pytest.mark.slow
def test_all_probes_together_read_each_image_once(tmp_path: Path):
    data, before = Noted(40, tmp_path / "reads"), ReadsBefore(tmp_path / "reads")
    loader = DataLoader(data, batch_size=8)
    somebody.fit(tmp_path, *every_probe(), before, data=loader, num_sanity_val_steps=0)
    assert set(before.reads) == set(range(40))
    # the first few twice, to see whether they come out the same
    assert len(before.reads) == 40 + READ
    # later looks read none; two epochs of validation do
    assert len(reads_of(tmp_path / "reads")) == 40 + READ + 2 * 40


class Stream(IterableDataset):
    def __init__(self, file: Path):
        self.file = file

    def __iter__(self):
        with self.file.open("a") as out:
            out.write("0\n")
        yield from somebody.Blobs(30)


def test_a_stream_is_read_from_its_beginning_once(tmp_path: Path):
    stream = DataLoader(Stream(tmp_path / "reads"), batch_size=8)
    probes = Saliency(images=3, **SCALE), Metrics(images=20, **SCALE), Filters(**SCALE)
    before = ReadsBefore(tmp_path / "reads")
    trainer = somebody.fit(tmp_path, *probes, before, data=stream, num_sanity_val_steps=0)
    assert len(before.reads) == 2
    assert [len(probe.sample) for probe in trainer.callbacks[:3]] == [3, 20, 1]


def test_images_beyond_the_room_are_decoded_when_they_are_looked_at(tmp_path: Path):
    data = Noted(40, tmp_path / "reads")
    image = 4 * 3 * 12 * 12
    source = LoadedImages(DataLoader(data, batch_size=8), device=CPU, room=10 * image, **SCALE)
    sample = sample_of(source, None, classes=(), device=CPU)
    assert source.bytes_kept <= 10 * image
    before = len(reads_of(tmp_path / "reads"))
    torch.testing.assert_close(sample.chunk("000008", 8).images, data.images[8:16])
    # of the eight, two had been kept
    assert reads_of(tmp_path / "reads")[before:] == list(range(10, 16))
    assert sample.labels.tolist() == data.labels.tolist()


MEMORY = """
import resource, sys, torch
from torch.utils.data import DataLoader, Dataset
from fulgurite.callbacks.framework.lazy_images import LoadedImages
from fulgurite.callbacks.framework.exchange import exchange
from fulgurite.callbacks.framework.sample import Sample, sample_of

class Large(Dataset):
    def __len__(self): return 200
    def __getitem__(self, index): return torch.full((3, 256, 256), index / 200), index % 3

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
source = LoadedImages(DataLoader(Large()), device=torch.device("cpu"), room=30 * 2**20)
sample = sample_of(source, None, classes=(), device=torch.device("cpu"))
total = sum(float(sample.chunk(name, 16).images.mean()) for name in sample.chunks(16))
print(len(sample), peak() - before)
"""


@pytest.mark.slow
def test_the_peak_of_memory_is_bounded_however_large_the_sample():
    # what is freed goes back at once, and is not taken for what is held
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    count, grown = done.stdout.split()
    # all of them take 150 MB in float32; 30 MB are kept, and two chunks of 12 MB are looked at
    assert count == "200"
    assert float(grown) < 140, done.stdout
