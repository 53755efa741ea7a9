"""Accuracy of a run's test images under common corruptions: printed, as JSON, and as pictures."""

import json
from pathlib import Path

from jsonargparse import Namespace

from fulgurite.callbacks.boards.board import log_all
from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.boards.tensorboard import tensorboard
from fulgurite.callbacks.corruptions import corrupted_sheet, curves
from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar, Table
from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.robustness.corruption_accuracy import corruption_accuracy
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robustness_report import test_images

FILE = "corruptions.json"


def check_options(args: Namespace) -> None:
    """Check that there are images to corrupt, if that is asked for.

    Raises:
        ValueError: there are none.
    """
    if args.corruptions and args.images is not None and args.images < 1:
        raise ValueError(f"--images {args.images} leaves --corruptions nothing; wanted at least 1")


def report_corruptions(recipe: Recipe, folder: Path, *, images: int, step: int) -> None:
    """Corrupt a run's test images, print the accuracies by kind and strength, and save them."""
    sample, part = test_images(recipe, images)
    assert sample.labels is not None
    labels = sample.labels.to(sample.images.device)
    found = corruption_accuracy(recipe.network, sample.images, labels, progress="corruptions")
    print(f"common corruptions of {len(sample)} {part} images: {found.text()}")
    write_atomic(folder / FILE, json.dumps(found.as_dict(), indent=2) + "\n")
    artifacts: dict[str, Artifact] = {
        "test/corruption_curve": Picture(curves(found, sample)),
        "test/corrupted_images": Picture(corrupted_sheet(sample.images[:1])),
        "test/corruptions": Table(found.table()[0], found.table()[1:]),
        "test/mean_corruption_error": Scalar(found.mean_error()),
    }
    with tensorboard(folder / "test") as board:
        log_all([board, LatestPictures(folder / "pictures")], artifacts, step)
