"""Distances of the nearest adversarial images: median, median per class, and robust accuracy by radius."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts, check_images, class_numbers
from fulgurite.probes.attacks.minimal import MINIMAL, found_distances
from fulgurite.probes.attacks.nearest_adversarial import norm_of
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.record import nearest
from fulgurite.probes.robustness.evaluate import answers_of, at_once
from fulgurite.probes.robustness.report import finite


@dataclass(frozen=True, eq=False)
class Distances:
    """The distance of the nearest adversarial image that was found, for each image.

    It is an upper bound: a better attack may find a nearer one.

    Args:
        norm: in which it is measured; its radius does not matter.
        labels: the true class of each image.
        values: 0 where an image is misclassified as it is, inf where none was found.
    """

    norm: Threat
    labels: Int[Tensor, "n"]
    values: Float[Tensor, "n"]

    def median(self) -> float:
        """The radius at which half of the images are misclassified; inf where it is not known."""
        return float(self.values.median())

    def per_class(self) -> dict[int, float]:
        """The median of each class that there is."""
        return {
            label: float(self.values[self.labels == label].median())
            for label in self.labels.unique().tolist()
        }

    def accuracies(self, radii: Sequence[float]) -> list[float]:
        """The share of images that stay correct within each radius, as far as the attack finds."""
        return [float((self.values > radius).double().mean()) for radius in radii]

    def points(self, count: int = 41) -> list[tuple[float, float]]:
        """Radii up to the largest distance found, and the accuracies within them."""
        known = self.values[self.values.isfinite()]
        top = float(known.max()) if len(known) else 0.0
        radii = [top * place / (count - 1) for place in range(count)] if top else [0.0]
        return list(zip(radii, self.accuracies(radii), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON; None where none was found."""
        return {
            "norm": type(self.norm).__name__,
            "images": len(self.values),
            "median": finite(self.median()),
            "not found": int(self.values.isinf().sum()),
            "per_class": {str(label): finite(value) for label, value in self.per_class().items()},
            "distances": [finite(value) for value in self.values.tolist()],
            "curve": self.points(),
        }


def minimal_distances(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    norm: str | Threat = "l2",
    attack: str = "ddn",
    *,
    batch_size: int | None = None,
    progress: str | None = None,
    **knobs: Any,
) -> Distances:
    """How far the nearest adversarial image of each image is, as an attack finds it.

    The network itself decides whether the returned images are misclassified, in eval mode and float32. A
    network that returns probabilities is attacked by their logarithm.

    Args:
        network: maps images to logits.
        images: within the norm's bounds, any number; batches go to where the network is.
        labels: the true class of each image.
        norm: by name, or a threat, whose radius does not matter.
        attack: a name in `MINIMAL`.
        batch_size: images to attack together; without it, at most 256, fewer where they are large.
        progress: a label for a progress bar.
        knobs: of the attack, such as `steps`.

    Raises:
        ValueError: an unknown attack, a norm that it does not support, and as `attacked`.
    """
    if attack not in MINIMAL:
        raise ValueError(f"no attack {attack!r} that looks for the nearest image; {nearest(attack, MINIMAL)}")
    threat = norm_of(norm)
    if batch_size is not None:
        check_counts(batch_size=batch_size)
    images = check_images(images, threat)
    labels = class_numbers(labels, images, "labels")
    size = at_once(network, images) if batch_size is None else batch_size
    network, _ = answers_of(network, images, labels, batch_size=size)
    device, found = device_of(network), list[Tensor]()
    with torch.inference_mode(False), torch.enable_grad():
        parts = zip(images.split(size), labels.split(size), strict=True)
        count = -(-len(images) // size)
        for part in progress_bar(parts, progress, total=count, unit="batch"):
            some, answers = (tensor.to(device, copy=True) for tensor in part)
            moved = MINIMAL[attack](network, some, answers, threat, **knobs)
            found.append(found_distances(network, some, answers, moved, threat).cpu())
    return Distances(threat, labels.cpu(), torch.cat(found))
