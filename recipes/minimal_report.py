"""Minimal distances of a run's test images: printed, as JSON, and as pictures."""

import json
from pathlib import Path

from jsonargparse import Namespace

from fulgurite.callbacks.boards.board import log_all
from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.boards.tensorboard import tensorboard
from fulgurite.callbacks.framework.artifacts import Artifact, Histogram, Picture, Scalar
from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.attacks.minimal import NORMS
from fulgurite.probes.attacks.nearest_adversarial import norm_of
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.plots import line_plot
from fulgurite.probes.robustness.minimal_distances import minimal_distances
from fulgurite.probes.robustness.report import aligned
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robustness_report import test_images

FILE = "minimal.json"


def norm_of_run(recipe: Recipe, args: Namespace) -> Threat | None:
    """The norm to measure in: that of --threat, of the run's own threat, or L2; None without --minimal.

    Raises:
        ValueError: no images, or a norm that the attack does not support.
    """
    if not args.minimal:
        return None
    if args.images is not None and args.images < 1:
        raise ValueError(f"--images {args.images} leaves --minimal {args.minimal} nothing; wanted at least 1")
    known = NORMS[args.minimal]
    own = type(recipe.threat).__name__.lower()
    return norm_of(args.threat or (own if own in known else "l2"), known)


def report_distances(
    recipe: Recipe, folder: Path, attack: str, norm: Threat, *, images: int, step: int
) -> None:
    """Look for the nearest adversarial images of a run's test images, print the distances, and save them."""
    sample, part = test_images(recipe, images)
    assert sample.labels is not None
    found = minimal_distances(
        recipe.network, sample.images, sample.labels.to(sample.images.device), norm, attack, progress=attack
    )
    name = type(norm).__name__
    classes = [[sample.name(label), f"{value:.4g}"] for label, value in found.per_class().items()]
    missing = int(found.values.isinf().sum())
    print(
        f"median distance in {name} to the nearest adversarial image, by {attack}, of {len(sample)} {part} "
        f"images: {found.median():.4g}; none found for {missing}\n\n"
        + aligned([["class", "median"], *classes], right=1)
    )
    words = {"attack": attack, **found.as_dict(), "classes": list(sample.classes)}
    write_atomic(folder / FILE, json.dumps(words, indent=2) + "\n")
    curve = line_plot(
        {attack: found.points()},
        xlabel=f"radius ({name})",
        ylabel=f"accuracy on {len(sample)} {part} images",
        ymax=1.0,
        chance=sample.chance,
    )
    artifacts: dict[str, Artifact] = {
        "test/minimal_curve": Picture(curve),
        "test/minimal_distances": Histogram(found.values),
    }
    if found.median() < float("inf"):
        artifacts["test/minimal_median"] = Scalar(found.median())
    with tensorboard(folder / "test") as board:
        log_all([board, LatestPictures(folder / "pictures")], artifacts, step)
