"""The network of a run with its weights, and its images, for commands on one run or several."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from fulgurite.callbacks.framework.sample import Sample, fetch
from fulgurite.cli.known_recipes import recipe_of
from fulgurite.data.image_files import printable
from fulgurite.models.weights import read as read_weights
from fulgurite.recipes import plain_values
from fulgurite.recipes import run as runs
from fulgurite.recipes.analysis import trained
from fulgurite.recipes.recipe import Recipe, weights_follow
from fulgurite.recipes.robustness_report import test_images

WORD = "the folder of a run, its last checkpoint; RUN@best for another one, or RUN@FILE"
PLAIN = {"augment": False, "shift": 0.0, "noise": 0.0}
"""Knobs of recipes that turn off augmentation."""


@dataclass(frozen=True)
class LoadedRun:
    """A run's recipe, with the weights of a checkpoint, and a `title`."""

    title: str
    folder: Path
    checkpoint: Path
    recipe: Recipe

    @property
    def network(self) -> nn.Module:
        """What maps images to logits."""
        return self.recipe.network

    def training_images(self, count: int) -> Sample:
        """This many of the training images, spread evenly, as training sees them."""
        self.recipe.data.setup("fit")
        classes = getattr(self.recipe.data, "classes", None) or ()
        device = next(self.network.parameters()).device
        found = fetch(self.recipe.data.train_dataloader(), count, classes=classes, device=device)
        return replace(found, part="training")

    def test_images(self, count: int | None) -> Sample:
        """This many of the test images, spread evenly; the validation images where there are no others."""
        return test_images(self.recipe, count)[0]


def load_run(word: str, device: str) -> LoadedRun:
    """The run that a word names, see `WORD`; it is not changed.

    Raises:
        ValueError: it is not a run's folder, has no such checkpoint, trained no network, or its weights do
            not fit.
    """
    path, at, which = word.partition("@")
    if at and not Path(path).is_dir():  # a folder with such a name
        path, which = word, ""
    folder = Path(path)
    checkpoint, recipe = recipe_of_run(folder, which or "last")
    try:
        torch.ones(1, device=device).item()
        recipe.network.eval().to(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from None
    recipe.data.prepare_data()
    return LoadedRun(printable(Path(path)) + (f"@{which}" if which else ""), folder, checkpoint, recipe)


def recipe_of_run(
    folder: Path, which: str, *, probes: bool = False, augmented: bool = True
) -> tuple[Path, Recipe]:
    """A checkpoint of a run, and the run's recipe with its weights.

    Args:
        folder: the run's.
        which: "last", "best" or a file.
        probes: give the recipe its probes even if the run was trained without.
        augmented: whether training images are augmented, as in training, or cropped as others are.

    Raises:
        ValueError: as `load_run` does.
    """
    run = runs.read(folder)
    plain_values.check_inside(folder)
    checkpoint = runs.checkpoint(folder, which)
    build = recipe_of(run.recipe)
    knobs = runs.knobs(build, run)
    if probes and knobs.get("every") == 0:
        knobs["every"] = 1
    if not augmented:
        knobs |= {name: value for name, value in PLAIN.items() if name in knobs}
    state = read_weights(checkpoint)
    with weights_follow("normalise.mean" in state, download=False):
        recipe = trained(build(**knobs))
    recipe.load(state, source=str(checkpoint))
    return checkpoint, recipe


def check_same_images(one: LoadedRun, other: LoadedRun) -> None:
    """Check that both take the same images.

    Raises:
        ValueError: they do not.
    """
    first, second = one.recipe.takes(), other.recipe.takes()
    for name in ("channels", "size"):
        if first.get(name) != second.get(name) and None not in (first.get(name), second.get(name)):
            raise ValueError(
                f"{one.title} takes images of {name} {first[name]}, {other.title} of {second[name]}; wanted "
                "networks for the same images"
            )
