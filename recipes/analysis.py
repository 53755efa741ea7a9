"""A recipe that analyses a network instead of training it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from fulgurite.callbacks.boards.board import log_all
from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.boards.tensorboard import tensorboard
from fulgurite.callbacks.framework.artifacts import Artifact
from fulgurite.probes.atomic import write_atomic
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.run import Run


@dataclass(frozen=True)
class Findings:
    """The results: as text, as JSON, as pictures and numbers for the board, and as weights."""

    words: str
    result: Mapping[str, Any]
    artifacts: Mapping[str, Artifact]
    weights: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Analysis:
    """The result of a recipe that trains no network.

    Args:
        name: of the files that it writes.
        find: computes the results, and writes nothing.
        images: the images that its networks take and their classes, see `Recipe.takes`.
    """

    name: str
    find: Callable[[], Findings]
    images: Mapping[str, Any] = field(default_factory=dict)

    def run(self, folder: Path, run: Run, *, resumed: bool = False) -> None:
        """Compute the results, print them, and save them in the folder.

        Raises:
            ValueError: the folder holds results; or it was to be resumed, or given options of a Trainer.
        """
        if resumed:
            raise ValueError(
                f"{folder} is done: {run.recipe!r} trains nothing that could be resumed; leave out --resume"
            )
        if run.trainer:
            raise ValueError(
                f"{run.recipe!r} trains nothing with Lightning; leave out --trainer.{next(iter(run.trainer))}"
            )
        if (folder / f"{self.name}.json").exists():
            raise ValueError(f"{folder} holds results already; choose another --folder")
        folder.mkdir(parents=True, exist_ok=True)  # now: a failure at the end would lose them
        found = self.find()
        replace(run, images=self.images).write(folder)
        write_atomic(folder / f"{self.name}.json", json.dumps(found.result, indent=2) + "\n")
        if found.weights:
            write_atomic(folder / f"{self.name}.safetensors", safetensors.torch.save(dict(found.weights)))
        with tensorboard(folder) as board:
            log_all([board, LatestPictures(folder / "pictures")], found.artifacts, 0)
        print(f"{found.words}\n\nthe run is in {folder}")


def trained(recipe: Recipe | Analysis) -> Recipe:
    """The recipe of a training.

    Raises:
        ValueError: it is none.
    """
    if isinstance(recipe, Analysis):
        raise ValueError(
            f"a run of {recipe.name!r} holds no network of its own; see its {recipe.name}.json, and classify "
            "images with what it has found by predict RUN PATH, without --checkpoint"
        )
    return recipe
