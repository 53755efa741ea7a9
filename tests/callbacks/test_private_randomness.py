"""Data and modules with private state train as without probes, or a warning comes before training."""

import itertools
import random
import re
import tempfile
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import somebody
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.occlusion import Occlusion
from fulgurite.callbacks.saliency import Saliency
from fulgurite.callbacks.transfer import StageProbes

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}
GLOBAL = np.random.default_rng(5)


def brighter(image, amount: float):
    """Somewhat brighter, in the pixels of the data: no more than the images have room for."""
    return image + 0.05 * amount


class Augmented(somebody.Blobs):
    """Images that depend on a private random number, drawn at each reading."""

    def __init__(self, draw: Callable, count: int = 24):
        super().__init__(count)
        self.draw = draw

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return brighter(image, self.draw(self)), label


class Counting(Augmented):
    """Counts what was read, in an attribute, a list, an array and on the class."""

    reads = 0

    def __init__(self):
        super().__init__(self.count)
        self.calls, self.order, self.counts = 0, [], np.zeros(24, dtype=int)

    @staticmethod
    def count(self):
        self.calls += 1
        type(self).reads += 1
        self.order.append(self.calls)
        self.counts[0] += 1
        return (self.calls + self.reads + len(self.order) + self.counts[0]) % 7 / 7


class Stream(IterableDataset):
    """Images in a private random order and with private noise, which continue from pass to pass."""

    def __init__(self):
        self.blobs, self.rng, self.passes = somebody.Blobs(24), np.random.default_rng(1), 0

    def __iter__(self):
        self.passes += 1
        for index in self.rng.permutation(24):
            image, label = self.blobs[int(index)]
            yield brighter(image, self.rng.random() / self.passes), label


def loader(data, **options) -> DataLoader:
    return DataLoader(data, **{"batch_size": 8, "shuffle": not isinstance(data, IterableDataset), **options})


def own(generator) -> Callable:
    """Draws from a generator in a closure."""
    return lambda _: float(generator.random())


def attribute(generator) -> Augmented:
    data = Augmented(lambda self: float(self.rng.random()))
    data.rng = generator
    return data


def bound(method: Callable) -> Augmented:
    data = Augmented(lambda self: float(self.method()))
    data.method = method
    return data


def collated(rng) -> Callable:
    def collate(batch):
        images, labels = zip(*batch, strict=True)
        return brighter(torch.stack(images), rng.random()), torch.tensor(labels)

    return collate


def torchs() -> Augmented:
    data = Augmented(lambda self: float(torch.rand((), generator=self.rng)))
    data.rng = torch.Generator().manual_seed(4)
    return data


def from_file(folder: Path) -> Augmented:
    (folder / "numbers").write_text("".join(f"{number % 10 / 10}\n" for number in range(5000)))
    data = Augmented(lambda self: float(self.file.readline()))
    data.file = (folder / "numbers").open()
    weakref.finalize(data, data.file.close)
    return data


LOADERS: dict[str, Callable[[], DataLoader]] = {
    "numpy": lambda: loader(attribute(np.random.default_rng(0))),
    "legacy numpy": lambda: loader(attribute(np.random.RandomState(0))),
    "python": lambda: loader(attribute(random.Random(0))),
    "torch": lambda: loader(torchs()),
    "closure": lambda: loader(Augmented(own(np.random.default_rng(0)))),
    "global": lambda: loader(Augmented(lambda _: float(GLOBAL.random()))),
    "counters": lambda: loader(Counting()),
    "open file": lambda: loader(from_file(Path(tempfile.mkdtemp()))),
    "method of a generator": lambda: loader(bound(np.random.default_rng(0).random)),
    "collate": lambda: loader(somebody.Blobs(), collate_fn=collated(random.Random(0))),
    "sampler": lambda: loader(
        somebody.Blobs(),
        shuffle=False,
        sampler=RandomSampler(range(24), generator=torch.Generator().manual_seed(3)),
    ),
    "loader": lambda: loader(somebody.Blobs(), generator=torch.Generator().manual_seed(3)),
    "stream": lambda: loader(Stream()),
    "workers": lambda: loader(attribute(np.random.default_rng(0)), num_workers=1),
    "stream in persistent workers": lambda: loader(Stream(), num_workers=1, persistent_workers=True),
}


class OwnNoise(somebody.Theirs):
    """Keeps generators, a counter and a list, and uses them in eval mode too."""

    def __init__(self):
        super().__init__()
        self.rng, self.calls, self.history = np.random.default_rng(0), 0, []
        self.noise = torch.Generator().manual_seed(0)

    def forward(self, images):
        self.calls += 1
        self.history.append(float(images.detach().mean()))
        factor = 1 + 0.1 * float(self.rng.random()) + 0.1 * (self.calls % 5) + 0.01 * (len(self.history) % 3)
        return super().forward(images) * factor + torch.rand(3, generator=self.noise)


class HiddenNoise(somebody.Theirs):
    """Draws from a generator that the search for state does not find."""

    def forward(self, images):
        return super().forward(images) + float(GLOBAL.random())


def probes() -> list[ProbeCallback]:
    kinds = (Saliency, Metrics, StageProbes)
    return [kind(on_error="raise", **SCALE) for kind in kinds]


def trained(
    folder: Path, *probes: pl.Callback, model: Callable, data: Callable, validated: bool = True
) -> tuple:
    global GLOBAL
    torch.manual_seed(7)
    GLOBAL = np.random.default_rng(5)
    Counting.reads = 0
    own, train, val = model(), data(), data() if validated else None
    trainer = somebody.quiet(folder, *probes, reload_dataloaders_every_n_epochs=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You defined a `validation_step`")
        warnings.filterwarnings("ignore", ".*sampler has shuffling enabled")
        warnings.filterwarnings("ignore", ".*does not have many workers|.*IterableDataset.*__len__")
        trainer.fit(own, train, val)
    metrics = {name: value.clone() for name, value in trainer.callback_metrics.items()}
    state = {"calls": getattr(own, "calls", 0), "history": getattr(own, "history", [])}
    return own.losses, metrics, own.state_dict(), trainer.optimizers[0].state_dict(), state


# without validation data, probes look at training images
CASES = [(kind, True) for kind in LOADERS] + [(kind, False) for kind in ("counters", "stream", "sampler")]


QUICK = {("counters", True), ("stream", True), ("method of a generator", True), ("sampler", False)}


@pytest.mark.parametrize(
    ("kind", "validated"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case not in QUICK)) for case in CASES],
)
def test_data_with_private_state_train_as_without_probes(tmp_path: Path, kind: str, validated: bool):
    options = {"model": somebody.Theirs, "data": LOADERS[kind], "validated": validated}
    alone = trained(tmp_path / "alone", **options)
    assert somebody.same(alone, trained(tmp_path / "watched", *probes(), **options))


def test_a_module_with_private_state_trains_as_without_probes(tmp_path: Path):
    options = {"model": OwnNoise, "data": somebody.loader}
    alone = trained(tmp_path / "alone", **options)
    assert somebody.same(alone, trained(tmp_path / "watched", *probes(), **options))


def hidden() -> Augmented:
    """Reads on in an iterator, which can be neither copied nor wound back."""
    data = Augmented(lambda self: next(self.numbers))
    data.numbers = (number % 10 / 10 for number in itertools.count())
    return data


def on_disk() -> Augmented:
    """Counts in a file, which it opens again at each reading."""
    file = Path(tempfile.mkdtemp()) / "count"
    file.write_text("0")

    def draw(_):
        count = int(file.read_text()) + 1
        file.write_text(str(count))
        return count % 7 / 7

    return Augmented(draw)


CANNOT = pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"data": lambda: loader(hidden())},
            r"Augmented holds a state that cannot be restored .*dataset.numbers is a generator",
        ),
        (
            {"data": lambda: loader(on_disk())},
            "Augmented holds a state .*the images differ when they are read once more",
        ),
        (
            {"model": HiddenNoise},
            "HiddenNoise holds a state .*its output differs when run once more",
        ),
    ],
    ids=["generator", "file", "module"],
)


@CANNOT
def test_what_cannot_be_restored_is_reported_before_training(tmp_path: Path, options: dict, words: str):
    given = {"model": somebody.Theirs, "data": somebody.loader, **options}
    steps = []

    class Steps(pl.Callback):
        def on_train_batch_start(self, *_):
            steps.append(1)

    # warnings are errors in tests
    with pytest.raises(UserWarning, match=words):
        trained(tmp_path, Saliency(**SCALE), Steps(), **given)
    assert not steps


@CANNOT
def test_what_cannot_be_restored_is_reported_once(tmp_path: Path, options: dict, words: str):
    given = {"model": somebody.Theirs, "data": somebody.loader, **options}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trained(tmp_path, Saliency(**SCALE), Metrics(**SCALE), Occlusion(**SCALE), **given)
    reported = [str(one.message) for one in seen if "holds a state" in str(one.message)]
    assert len(reported) == 1
    assert re.search(words, reported[0])
