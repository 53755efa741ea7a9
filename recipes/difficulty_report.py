"""Difficult classes and images of a run's test images: a page with pictures and a table."""

from collections.abc import Sequence
from pathlib import Path

from fulgurite.callbacks.difficulty import Difficulty
from fulgurite.callbacks.framework.artifacts import Picture, Scalar, Table
from fulgurite.data.image_files import printable
from fulgurite.probes.atomic import check_no_folder, check_writable, csv_text, write_atomic
from fulgurite.probes.counted import counted
from fulgurite.probes.render import write
from fulgurite.recipes.mistakes_report import named
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robustness_report import test_images

PAGE, TABLE = "difficulty.md", "difficulty.csv"
PICTURES = {"": "difficulty.png", "images": "difficulty_images.png"}
SHOWN = 6  # classes from either end


def check_places(folder: Path) -> None:
    """Check that the files can be written.

    Raises:
        OSError: one cannot.
    """
    check_no_folder(folder, (PAGE, TABLE, *PICTURES.values()))
    check_writable(folder / PAGE)


def report_difficulty(recipe: Recipe, folder: Path) -> str:
    """Write the page, its pictures and the table of classes into a run's folder; says in a line what is hard.

    Raises:
        ValueError: the test images have no class numbers.
    """
    sample, part = test_images(recipe, None)
    if sample.labels is None:
        raise ValueError("--difficulty: the test images have no class numbers, so no class is harder")
    sample = named(sample)
    probe = Difficulty(most=SHOWN, rows=len(sample.classes) ** 2, images=None)
    found = probe.compose(probe.observe(recipe.network, sample, sample.chunks()), sample)
    classes, confusions = found["classes"], found["confusions"]
    assert isinstance(classes, Table)
    assert isinstance(confusions, Table)
    write_atomic(folder / TABLE, csv_text([classes.head, *classes.rows]))
    for name, file in PICTURES.items():
        picture = found[name]
        assert isinstance(picture, Picture)
        write(picture.pixels, folder / file)
    write_atomic(
        folder / PAGE, _page(classes, confusions, f"{len(sample)} {part} images of {printable(folder)}")
    )
    ends = [found[f"accuracy/{end} class"] for end in ("hardest", "easiest")]
    low, high = (float(one.value) for one in ends if isinstance(one, Scalar))
    return (
        f"of {len(classes.rows)} classes the hardest is {classes.rows[0][0]} (accuracy {low:.3f}), "
        f"the easiest {classes.rows[-1][0]} ({high:.3f}): {PAGE}, {TABLE}, {' and '.join(PICTURES.values())}"
    )


def _page(classes: Table, confusions: Table, of: str) -> str:
    few = min(SHOWN, -(-len(classes.rows) // 2))
    hardest, easiest = (_listed(rows) for rows in (classes.rows[:few], classes.rows[: -few - 1 : -1]))
    mixed = "; ".join(
        f"{one} as {other} ({counted(int(there), 'image')}) and {other} as {one} ({back})"
        for one, other, there, back in confusions.rows[:SHOWN]
    )
    return f"""# What is difficult

{of}, by accuracy; intervals are Wilson's, of 95 %.

- **Hardest classes**: {hardest}.
- **Easiest classes**: {easiest}.
- **Mistaken for one another**: {mixed or "no classes"}.

![Accuracy of each class, by amount of texture, and by size of the object where it is known]({PICTURES[""]})

The amount of texture of an image is the mean absolute difference of neighbouring pixels, from 0 to 1; the
size of an object its share of the image. Each range has as many images as the others.

![Hardest images of the hardest classes, easiest of the easiest]({PICTURES["images"]})

On the right of each image, the absolute gradient of the score of the predicted class.

## Classes

{classes.markdown()}

## Pairs that are mistaken for one another

{confusions.markdown()}
"""


def _listed(rows: Sequence[Sequence[str]]) -> str:
    return ", ".join(f"{row[0]} ({row[2]})" for row in rows)
