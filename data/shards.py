"""Images in tar shards (the webdataset format), streamed: for data too large for a folder."""

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fulgurite.data.augmentation_presets import MIXING, PRESETS, preset
from fulgurite.data.crops import from_the_middle
from fulgurite.data.datasets import LabelledDataset
from fulgurite.data.image_data_module import ImageData, check_side, usual_statistics
from fulgurite.data.image_files import printable
from fulgurite.data.readable_images import OnBadImage, way_with_bad_images
from fulgurite.data.shard_index import Shard, indexed, shards_of
from fulgurite.data.shard_stream import ShardLoader, ShardStream
from fulgurite.data.splits import inverse_frequency

MOST_CLASSES = 1_000_000


class Shards(ImageData):
    """Images of tar files that are read from beginning to end: pairs such as `0001.jpg` and `0001.cls`.

    `path` and `val` are folders of `.tar` files or patterns such as `data/train-{000..009}.tar`; without
    `val`, `path` has the folders `train` and `val` in it. A `.cls` entry gives the class by number or by
    name. Names come from the JSON file `classes`, a list, or from `classes.json` next to the shards; else
    from the entries. `test` is `val`.

    Whole shards are divided among processes: there must be one for each process. The order follows from the
    seed, the epoch, and the numbers of processes and workers: a run that is resumed after an epoch with the
    same numbers continues as if never interrupted, bit for bit. An epoch has as many images as the shards;
    where they cannot be divided evenly, some are repeated in it and others come in the next. Images that
    cannot be read are named and left out, or end the run with `on_bad_image="raise"`.
    """

    framing = "middle"

    def __init__(
        self,
        path: str | Path,
        *,
        val: str | Path | None = None,
        classes: str | Path | None = None,
        size: int = 224,
        channels: int = 3,
        augment: bool | str = True,
        on_bad_image: str = "skip",
        shuffle: int = 1000,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size=batch_size, workers=workers, seed=seed)
        check_side(size)
        if channels not in (1, 3):
            raise ValueError(f"channels is 1 for grey or 3 for colour; got {channels}")
        if shuffle < 0:
            raise ValueError(f"shuffle is how many images wait to be drawn from, 0 for none; got {shuffle}")
        self.on_bad_image: OnBadImage = way_with_bad_images(on_bad_image)
        if missing := [
            name for name in ("webdataset", "braceexpand") if importlib.util.find_spec(name) is None
        ]:
            raise ValueError(f"shards need the package {missing[0]}: pip install 'fulgurite[shards]'")
        self.channels, self.size, self.shuffle = channels, size, shuffle
        self.mean, self.std = usual_statistics(channels)
        self.augment = preset(augment)
        self.mixing = MIXING.get(self.augment, ())
        where = (path, val) if val is not None else _halves(Path(path).expanduser())
        found = [shards_of(one) for one in where]
        if both := {*map(Path.resolve, found[0])} & {*map(Path.resolve, found[1])}:
            raise ValueError(
                f"{printable(min(both))} is for training and for validation; leave it out of one"
            )
        self._train, self._val = map(indexed, found)
        names = _names(Path(classes).expanduser() if classes else None, found[0][0].parent)
        self.classes, self._numbers = _classes([*self._train, *self._val], names)

    def parts(self) -> tuple[LabelledDataset, LabelledDataset, LabelledDataset]:
        """Streams have none.

        Raises:
            ValueError: always.
        """
        raise ValueError("images of shards have no numbers to be read by; put them into a folder for this")

    def setup(self, stage: str | None = None) -> None:
        """Nothing to download."""

    @property
    def class_weights(self) -> Float[Tensor, "k"]:
        """Weights that balance the classes in a loss: inverse to their training images, 1 on average."""
        numbers = [self._numbers[label] for shard in self._train for label in shard.labels]
        counts = [count for shard in self._train for count in shard.labels.values()]
        labels = torch.tensor(numbers).repeat_interleave(torch.tensor(counts))
        return inverse_frequency(labels, self.classes)

    def train_dataloader(self) -> ShardLoader:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The training images, shuffled, in full batches."""
        ranks = self.trainer.world_size if self.trainer else 1
        share = math.ceil(sum(map(len, self._train)) / ranks)
        batch = min(self.batch_size, share)
        frame = PRESETS[self.augment](self.size)
        return self._streamed(self._train, frame, batch, steps=math.ceil(share / batch))

    def val_dataloader(self) -> ShardLoader:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The validation images, each once."""
        return self._streamed(self._val, from_the_middle(self.size), self.batch_size, steps=None)

    def test_dataloader(self) -> ShardLoader:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The validation images."""
        return self.val_dataloader()

    def _streamed(
        self, shards: list[Shard], frame: Callable[[Image.Image], Tensor], batch: int, *, steps: int | None
    ) -> ShardLoader:
        ranks = self.trainer.world_size if self.trainer else 1
        if len(shards) < ranks:
            raise ValueError(f"shards: {len(shards)}, processes: {ranks}; wanted one shard or more for each")
        stream = ShardStream(
            shards,
            self._numbers,
            frame,
            channels=self.channels,
            batch_size=batch,
            on_bad_image=self.on_bad_image,
            steps=steps,
            shuffle=self.shuffle,
            seed=self.seed,
            ranks=ranks,
            rank=self.trainer.global_rank if self.trainer else 0,
        )
        return ShardLoader(stream, workers=self.workers)


def _halves(path: Path) -> tuple[Path, Path]:
    train, val = path / "train", path / "val"
    if not (train.is_dir() and val.is_dir()):
        raise ValueError(
            f"{printable(path)} has no folders train and val of shards; "
            "or give the validation shards by val, as a folder or a pattern"
        )
    return train, val


def _names(file: Path | None, beside: Path) -> list[str] | None:
    """The names of the classes in order, where a file has them."""
    if file is None:
        file = next(
            (
                place / "classes.json"
                for place in (beside, beside.parent)
                if (place / "classes.json").is_file()
            ),
            None,
        )
        if file is None:
            return None
    try:
        names = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{printable(file)} cannot be read as JSON: {printable(str(error))}") from None
    if not (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and len({*names}) == len(names)
    ):
        raise ValueError(f"{printable(file)} is not a list of different names; wanted the classes in order")
    return [printable(name) for name in names]


def _classes(shards: list[Shard], names: list[str] | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of the classes, and the number of each label."""
    labels = {label: shard for shard in shards for label in shard.labels}
    numbered = all(label.isascii() and label.isdigit() and len(label) < 10 for label in labels)
    if names is None:
        most = max(map(int, labels), default=0) + 1 if numbered else 0
        if most > MOST_CLASSES:
            raise ValueError(f"a label is {most - 1}; wanted numbers of classes, from 0")
        names = [str(number) for number in range(most)] if numbered else sorted(labels)
    if len(names) < 2:
        raise ValueError(f"only {len(names)} class in {printable(shards[0].path.parent)}; wanted two or more")
    places = {name: number for number, name in enumerate(names)}
    numbers = {label: int(label) if numbered else places.get(label, -1) for label in labels}
    if odd := [label for label, number in numbers.items() if not 0 <= number < len(names)]:
        where = printable(labels[odd[0]].path)
        raise ValueError(f"{where} has the label {odd[0]!r}, which is none of the {len(names)} classes")
    return tuple(names), numbers
