"""How transferable each stage of a small network is: halves of shapes, and of CIFAR-10 as JPEG."""

import tempfile
import zipfile
from functools import partial
from pathlib import Path

from fulgurite.cli.transferability import data_of
from fulgurite.data.augment import shifted
from fulgurite.data.class_halves import Half, halves, in_memory
from fulgurite.data.image_data_module import ImageData
from fulgurite.recipes.transferability import Copied, Plan, Transferability, study

CIFAR = "cifar10_jpeg_small_5000_1000.zip"


def layer_lines(folder: Path, *, quick: bool) -> list[str]:
    """The tables of both data sets, with the bars; without the small CIFAR-10, of shapes alone."""
    shapes = data_of("shapes", size=16, images=600 if quick else 1200)
    lines = ["Shapes, 16 px:", *table(shapes, epochs=4 if quick else 8, seeds=2 if quick else 5)]
    if not (folder / CIFAR).is_file():
        return [*lines, "", f"no {CIFAR} where FULGURITE_DATA points"]
    with tempfile.TemporaryDirectory() as place:
        zipfile.ZipFile(folder / CIFAR).extractall(place)
        cifar = data_of(f"{place}/train", size=32, images=0)
        found = table(cifar, epochs=3 if quick else 12, seeds=2 if quick else 5)
    return [*lines, "", "CIFAR-10 as JPEG, a tenth of it:", *found]


def table(data: ImageData, *, epochs: int, seeds: int) -> list[str]:
    parts = in_memory(data, augment=partial(shifted, by=data.size / 16, fill="border"))

    def tasks(seed: int) -> tuple[ImageData, ImageData]:
        first, second = (Half(data, parts, own, seed=seed) for own in halves(len(data.classes), seed=seed))
        return first, second

    *_, found = study(Plan("small_vgg", epochs), tasks, seeds=seeds)
    return [*found.lines(), "", *bars(found)]


def bars(found: Transferability) -> list[str]:
    """Whether frozen copies fall from the first to the last stage, and fine-tuned ones reach the base."""
    last = len(found.stages)
    first, deep = (found.found[Copied("AnB", depth)] for depth in (1, last))
    falls = found.difference(deep, first)
    reaches = [found.gain("AnB+", depth) for depth in range(1, last + 1)]
    least = min(reaches, key=lambda one: one.mean)
    return [
        f"another task, frozen, {last} stages less 1: {100 * falls.mean:+.1f} ± {100 * falls.half:.1f} "
        f"points; bar: below 0 by more than the interval: {'met' if falls.high < 0 else 'missed'}",
        f"another task, fine-tuned, at its worst: {100 * least.mean:+.1f} ± {100 * least.half:.1f} points on "
        f"learning from nothing; bar: not below 0 for sure: {'met' if least.high >= 0 else 'missed'}",
    ]
