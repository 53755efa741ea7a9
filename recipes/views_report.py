"""Accuracy of a run on its test images with test-time augmentation, next to that of the images alone."""

import torch
from torch import Tensor

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.averaged_views import averaged_probabilities, most_views
from fulgurite.probes.predict import predict
from fulgurite.probes.representation.linear import Proportion
from fulgurite.recipes.advice import ahead
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robustness_report import test_images


def mirrors(framing: str) -> bool:
    """Whether mirrored images mean the same: photographs do, digits do not."""
    return framing != "digit"


def check_views(count: int, *, mirror: bool) -> None:
    """Check the number of views.

    Raises:
        ValueError: there are not that many.
    """
    most = most_views(mirror=mirror)
    if not 1 <= count <= most:
        why = "" if mirror else ", as mirrored digits are none"
        raise ValueError(f"--tta {count}; wanted 1 to {most} views of each image{why}")


def report_views(recipe: Recipe, count: int) -> str:
    """Accuracies with one view and with this many, and their difference with its 95 % interval, in a line.

    Raises:
        ValueError: the test images have no class numbers, or there are fewer views.
    """
    mirror = mirrors(getattr(recipe.data, "framing", "whole"))
    check_views(count, mirror=mirror)
    sample, part = test_images(recipe, None)
    if sample.labels is None:
        raise ValueError("--tta: the test images have no class numbers to measure accuracy by")
    found = [_right(recipe, sample.chunk(name), count, mirror) for name in sample.chunks()]
    one, many = (torch.cat([pair[place] for pair in found]) for place in range(2))
    share, gain = Proportion(int(many.sum()), len(many)), ahead(many, one)
    low, high = share.interval
    return (
        f"with the mean of {count} views of each of {len(one)} {part} images: accuracy "
        f"{share.accuracy:.4f} ({low:.4f} to {high:.4f}), {100 * gain.mean:+.2f} points "
        f"({100 * gain.low:+.2f} to {100 * gain.high:+.2f}) on one view"
    )


def _right(recipe: Recipe, sample: Sample, count: int, mirror: bool) -> tuple[Tensor, Tensor]:
    images, labels = sample.images, sample.labels
    assert labels is not None
    alone = predict(recipe.network, images)
    views = averaged_probabilities(recipe.network, images, count=count, mirror=mirror)
    return alone.argmax(1).cpu() == labels.cpu(), views.argmax(1).cpu() == labels.cpu()
