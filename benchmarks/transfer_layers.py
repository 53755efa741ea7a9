"""How transferable each stage of a small network is: halves of shapes, and of CIFAR-10 as JPEG.

Both at 16 px, with copies of only the other task's stages. With 120 shapes of each class, the accuracy on
five classes is 43.5 %: too low to show an effect of depth, so there are 400 here (docs/transfer.md).
"""

import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

from fulgurite.data.augment import shifted
from fulgurite.data.class_halves import Half, halves, in_memory
from fulgurite.data.folder_in_memory import FolderInMemory
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.shapes import Shapes
from fulgurite.recipes.transferability import Copied, Plan, Transferability, study

CIFAR = "cifar10_jpeg_small_5000_1000.zip"
KINDS = ("AnB", "AnB+")
"""The kinds that the bars apply to."""


def layer_lines(folder: Path, *, quick: bool) -> list[str]:
    """The tables of both data sets, with the bars; without the small CIFAR-10, only of shapes.

    The quick form is only of CIFAR-10, and without bars: few shapes are not enough to learn from, and
    intervals of two seeds are too wide.
    """
    lines = list[str]()
    if not quick:
        shapes = Shapes(classes=10, size=16, images=4000, held_out=1000)
        # at a rate of 4e-3 some halves of the shapes are not learnt
        lines = ["Shapes, 16 px, 4000 images:", *table(shapes, epochs=8, seeds=5, lr=2e-3)]
    if not (folder / CIFAR).is_file():
        return [*lines, "", f"no {CIFAR} where FULGURITE_DATA points"]
    with tempfile.TemporaryDirectory() as place:
        zipfile.ZipFile(folder / CIFAR).extractall(place)
        cifar = FolderInMemory(place, size=16, augment=False, val_share=0.02)
        found = table(cifar, epochs=2, seeds=2, judged=False) if quick else table(cifar, epochs=6, seeds=5)
        return [*lines, "", "CIFAR-10 as JPEG, 16 px, a tenth of it:", *found]


def table(data: ImageData, *, epochs: int, seeds: int, lr: float = 4e-3, judged: bool = True) -> list[str]:
    """The results and, if `judged`, whether the bars are met; progress goes to stderr."""
    parts = in_memory(data, augment=partial(shifted, by=data.size / 16, fill="border"))

    def tasks(seed: int) -> tuple[ImageData, ImageData]:
        first, second = (Half(data, parts, own, seed=seed) for own in halves(len(data.classes), seed=seed))
        return first, second

    lines = list[str]()
    for found in study(Plan("small_vgg", epochs, lr), tasks, seeds=seeds, kinds=KINDS):
        verdict = bars(found) if judged else []
        lines = [*found.lines(), "", *verdict]
        print(f"{len(found.base)} seeds", *verdict, sep="\n", file=sys.stderr, flush=True)
    return lines


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
        f"learning from scratch; bar: not below 0 for sure: {'met' if least.high >= 0 else 'missed'}",
    ]
