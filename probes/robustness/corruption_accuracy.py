"""Accuracy under common corruptions, by kind and strength, and the mean corruption error."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts, check_images, check_logits, class_numbers
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.intervals import wilson
from fulgurite.probes.predict import predict
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.record import nearest
from fulgurite.probes.robustness.corruptions.corrupt import CORRUPTIONS, STRENGTHS, corrupt
from fulgurite.probes.robustness.evaluate import at_once
from fulgurite.probes.robustness.report import aligned


@dataclass(frozen=True, eq=False)
class CorruptionAccuracy:
    """Which images a network classifies correctly, clean and corrupted.

    Args:
        kinds: of corruptions, by name.
        strengths: from 1 to 5.
        clean: of the images as they are.
        right: of each kind and strength.
    """

    kinds: tuple[str, ...]
    strengths: tuple[int, ...]
    clean: Bool[Tensor, "n"]
    right: Bool[Tensor, "kinds strengths n"]

    def accuracy(self) -> float:
        """The accuracy on the clean images."""
        return float(self.clean.double().mean())

    def accuracies(self) -> dict[str, list[float]]:
        """The accuracy for each kind at each strength."""
        return dict(zip(self.kinds, self.right.double().mean(2).tolist(), strict=True))

    def errors(self) -> dict[str, float]:
        """Of each kind, the share of wrong predictions over all strengths."""
        return {kind: 1 - sum(shares) / len(shares) for kind, shares in self.accuracies().items()}

    def mean_error(self) -> float:
        """The mean corruption error, not divided by another network's."""
        return sum(self.errors().values()) / len(self.kinds)

    def relative_to(self, other: "CorruptionAccuracy") -> float:
        """The mean corruption error (mCE) of the paper: each kind's error relative to another network's.

        The paper's other network is AlexNet; measure both with the same code, as published errors of AlexNet
        are of other images.
        """
        theirs = other.errors()
        return sum(error / max(theirs[kind], 1e-12) for kind, error in self.errors().items()) / len(
            self.kinds
        )

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the mean error, as if all corrupted images were independent."""
        count = self.right.numel()
        return wilson(count - int(self.right.sum()), count)

    def table(self) -> list[list[str]]:
        """A head, and a row for each kind: accuracy at each strength, and the mean error."""
        rows = [["corruption", *(str(strength) for strength in self.strengths), "mean error"]]
        errors = self.errors()
        for kind, shares in self.accuracies().items():
            rows.append([kind, *(f"{share:.4f}" for share in shares), f"{errors[kind]:.4f}"])
        return rows

    def text(self) -> str:
        """A summary in words."""
        return (
            f"accuracy {self.accuracy():.4f}; mean corruption error {self.mean_error():.4f} on "
            f"{counted(len(self.clean), 'image')}\n\n" + aligned(self.table(), right=len(self.strengths) + 1)
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return {
            "images": len(self.clean),
            "accuracy": self.accuracy(),
            "mean corruption error": self.mean_error(),
            "strengths": list(self.strengths),
            "accuracies": self.accuracies(),
            "errors": self.errors(),
        }


def corruption_accuracy(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    *,
    kinds: Sequence[str] = tuple(CORRUPTIONS),
    strengths: Sequence[int] = STRENGTHS,
    seed: int = 0,
    batch_size: int | None = None,
    progress: str | None = None,
) -> CorruptionAccuracy:
    """Which images a network classifies correctly under each corruption, at each strength, see `corrupt`.

    Args:
        network: maps images to logits.
        images: in [0, 1], any number; batches go to where the network is.
        labels: the true class of each image.
        kinds: names in `CORRUPTIONS`.
        strengths: from 1 to 5.
        seed: of what corruptions draw.
        batch_size: images at a time; without it, at most 256, fewer where they are large.
        progress: a label for a progress bar.

    Raises:
        ValueError: unknown kinds or strengths, images outside [0, 1], labels that are not classes, a network
            of one class, or one that outputs NaN.
    """
    if unknown := [kind for kind in kinds if kind not in CORRUPTIONS]:
        raise ValueError(f"no corruption {unknown[0]!r}; {nearest(unknown[0], CORRUPTIONS)}")
    if not kinds or not strengths or set(strengths) - set(STRENGTHS):
        raise ValueError(f"kinds={kinds!r}, strengths={strengths!r}; wanted some, strengths from 1 to 5")
    if batch_size is not None:
        check_counts(batch_size=batch_size)
    images = check_images(images, Linf(0.1))
    labels = class_numbers(labels, images, "labels").cpu()
    size = batch_size or at_once(network, images)
    device, found = device_of(network), list[Tensor]()
    count = -(-len(images) // size) * len(kinds) * len(strengths)
    with progress_bar(label=progress, total=count, unit="batch") as bar:
        for some, truth in zip(images.split(size), labels.split(size), strict=True):
            shown = some.to(device)
            rows = [_right(network, shown, truth)]
            for kind in kinds:
                for strength in strengths:
                    moved = corrupt(shown, kind, strength, seed=seed)
                    rows.append(_right(network, moved, truth))
                    bar.update()
            found.append(torch.stack(rows))
    right = torch.cat(found, 1)
    grid = right[1:].unflatten(0, (len(kinds), len(strengths)))
    return CorruptionAccuracy(tuple(kinds), tuple(strengths), right[0], grid)


def _right(
    network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
) -> Bool[Tensor, "n"]:
    logits = predict(network, images).cpu()
    check_logits(logits, labels)
    return logits.argmax(1) == labels
