"""Certificates of a run's test images by randomised smoothing: printed, as JSON, and as a picture."""

import json
from pathlib import Path

from jsonargparse import Namespace

from fulgurite.callbacks.boards.board import log_all
from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.boards.tensorboard import tensorboard
from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.plots import line_plot
from fulgurite.probes.render import titled
from fulgurite.probes.robustness.report import aligned
from fulgurite.probes.robustness.smoothing import certify, check_sigma, largest_radius
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robustness_report import test_images

FILE = "smoothing.json"
DRAWS = 10_000
SHARES = (0, 0.2, 0.4, 0.6, 0.8)  # of the largest radius, in what is printed


def sigma_of(args: Namespace) -> float | None:
    """The noise to smooth with; None without --smooth.

    Raises:
        ValueError: no such noise, no images, too few draws, or draws without --smooth.
    """
    if args.smooth is None:
        if args.draws is not None:
            raise ValueError(
                f"--draws {args.draws} is about certificates; wanted --smooth as well, such as 0.25"
            )
        return None
    check_sigma(args.smooth)
    if args.draws is not None and (args.draws < 1 or largest_radius(args.smooth, args.draws) == 0):
        raise ValueError(f"--draws {args.draws} certify nothing; wanted at least 10, better 1000 or more")
    if args.images is not None and args.images < 1:
        raise ValueError(f"--images {args.images} leaves --smooth {args.smooth} nothing; wanted at least 1")
    return args.smooth


def report_certificates(
    recipe: Recipe, folder: Path, sigma: float, *, draws: int | None, images: int, step: int
) -> None:
    """Certify a run's test images, print the certified accuracies by radius, and save them."""
    sample, part = test_images(recipe, images)
    assert sample.labels is not None
    labels = sample.labels.to(sample.images.device)
    found = certify(
        recipe.network, sample.images, labels, sigma, draws=draws or DRAWS, progress="certificates"
    )
    largest = largest_radius(sigma, found.draws)
    radii = [share * largest for share in SHARES]
    rows = [
        [f"{radius:.4g}", f"{share:.4f}"]
        for radius, share in zip(radii, found.accuracies(radii), strict=True)
    ]
    print(
        f"certified accuracy by L2 radius, under noise of {sigma:g}, of {len(sample)} {part} images; "
        f"{found.draws} draws certify at most {largest:.4g}; no prediction for {found.abstentions():.1%}; "
        f"average radius {found.average_radius():.4g}\n\n"
        + aligned([["radius", "certified accuracy"], *rows], right=1)
    )
    words = {**found.as_dict(), "labels": found.labels.tolist(), "classes": list(sample.classes)}
    write_atomic(folder / FILE, json.dumps(words, indent=2) + "\n")
    curve = line_plot(
        {f"sigma {sigma:g}": found.points()},
        xlabel="radius (L2)",
        ylabel=f"certified accuracy on {len(sample)} {part} images",
        ymax=1.0,
        chance=sample.chance,
    )
    artifacts: dict[str, Artifact] = {
        "test/certified_curve": Picture(titled(curve, "Certified accuracy")),
        "test/abstentions": Scalar(found.abstentions()),
        "test/average_certified_radius": Scalar(found.average_radius()),
    }
    with tensorboard(folder / "test") as board:
        log_all([board, LatestPictures(folder / "pictures")], artifacts, step)
