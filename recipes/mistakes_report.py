"""Mistakes of a run on its test images: the worst, suspected label errors and near-duplicates."""

from dataclasses import replace
from pathlib import Path

from fulgurite.callbacks.framework.artifacts import Picture, Table
from fulgurite.callbacks.framework.sample import Sample, fetch
from fulgurite.callbacks.worst_mistakes import WorstMistakes
from fulgurite.probes.atomic import check_no_folder, check_writable, csv_text, write_atomic
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.render import write
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robustness_report import test_images

FILES = {"worst": "mistakes.csv", "suspects": "suspected_labels.csv", "duplicates": "duplicates.csv"}
PAGE = "mistakes.png"
SHOWN, TRAINING = 48, 5000  # images on the page, and training images that duplicates are looked for in


def check_places(folder: Path) -> None:
    """Check that the files can be written.

    Raises:
        OSError: one cannot.
    """
    check_no_folder(folder, (*FILES.values(), PAGE))
    check_writable(folder / PAGE)


def report_mistakes(recipe: Recipe, folder: Path) -> str:
    """Write three tables and a page of the worst mistakes into a run's folder; returns a line.

    Raises:
        ValueError: the test images have no class numbers.
    """
    sample, part = test_images(recipe, None)
    if sample.labels is None:
        raise ValueError("--mistakes: the test images have no class numbers, so there are no mistakes")
    probe = WorstMistakes(most=SHOWN, rows=len(sample) ** 2, duplicates_in=TRAINING, images=None)
    recipe.data.setup("fit")
    probe.training_sample = fetch(
        recipe.data.train_dataloader(), TRAINING, classes=sample.classes, device=device_of(recipe.network)
    )
    sample = named(sample)
    subjects = probe.subjects(recipe.network, sample)
    found = probe.compose(probe.observe(recipe.network, sample, subjects), sample)
    counts = {}
    for name, file in FILES.items():
        table = found[name]
        assert isinstance(table, Table)
        write_atomic(folder / file, csv_text([table.head, *table.rows]))
        counts[name] = len(table.rows)
    page = found[""]
    assert isinstance(page, Picture)
    write(page.pixels, folder / PAGE)
    return (
        f"of {len(sample)} {part} images {counts['worst']} misclassified, {counts['suspects']} labels "
        f"probably wrong, {counts['duplicates']} near-duplicates: {', '.join(FILES.values())} and {PAGE}"
    )


def named(sample: Sample) -> Sample:
    """The sample with numbers for the names of its classes, if it has none."""
    assert sample.labels is not None
    return replace(sample, classes=sample.classes or tuple(map(str, range(int(sample.labels.max()) + 1))))
