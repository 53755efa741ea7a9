"""The sections of a report on two runs: metrics, CKA, stitching, class images, disagreements."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.cli.html_page import Section
from fulgurite.cli.loaded_run import LoadedRun
from fulgurite.cli.start_errors import progress
from fulgurite.cli.unseen_images import left_out
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.render_attack import within
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.bar_plot import bar_plot
from fulgurite.probes.predict import predict
from fulgurite.probes.render import RGB
from fulgurite.probes.representation.calibration import calibration
from fulgurite.probes.representation.error_consistency import agreement
from fulgurite.probes.representation.linear import Proportion
from fulgurite.recipes import run as runs

CHUNK = 32
CLASSES = 20  # the most classes whose accuracies are shown


@dataclass
class Comparison:
    """Two runs, test images, and the results so far, for JSON.

    Args:
        one: the first run.
        other: the second.
        test: its test images, less those that the first was trained on.
        seen: how many of these there are.
        logits: of both for the test images.
        found: all results.
    """

    one: LoadedRun
    other: LoadedRun
    test: Sample
    seen: int = 0
    logits: list[Float[Tensor, "n _"]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.test.labels is None:
            raise ValueError(f"the test images of {self.other.title} have no class numbers to compare by")
        self.logits = [self.answers(run.network, self.test) for run in self.runs]
        names = [tuple(getattr(run.recipe.data, "classes", None) or ()) for run in self.runs]
        if self.logits[0].shape != self.logits[1].shape or names[0] != names[1]:
            raise ValueError(
                f"{self.one.title} and {self.other.title} have other classes; wanted runs of the same "
                "classes (stitch compares the layers of others)"
            )
        if self.logits[1].shape[1] < 2:
            raise ValueError(f"{self.other.title} gives one number for an image; wanted one for each class")

    @property
    def runs(self) -> tuple[LoadedRun, LoadedRun]:
        """Both."""
        return self.one, self.other

    @property
    def titles(self) -> list[str]:
        """The titles of the runs."""
        return [run.title for run in self.runs]

    @property
    def labels(self) -> Int[Tensor, "n"]:
        """The class numbers of the test images."""
        assert self.test.labels is not None
        return self.test.labels.cpu()

    def answers(self, network: nn.Module, sample: Sample) -> Float[Tensor, "n k"]:
        """The logits, on the CPU."""
        parts = [sample.chunk(name, CHUNK).images for name in sample.chunks(CHUNK)]
        return torch.cat([predict(network, images).cpu() for images in parts])

    def json(self) -> str:
        """All results; values that are not finite are null."""
        return json.dumps(_finite(self.found), indent=2) + "\n"


def about(two: Comparison) -> Section:
    """What differs between the runs: recipe, checkpoint, and the options that are not the same."""
    read = [runs.read(run.folder) for run in two.runs]
    rows = [["", *two.titles], ["recipe", *(own.recipe for own in read)]]
    steps = [progress(run.checkpoint) for run in two.runs]
    rows.append(["epochs done", *("not known" if at is None else str(at[0] + 1) for at in steps)])
    rows.append(["steps done", *("not known" if at is None else str(at[1]) for at in steps)])
    sizes = [sum(own.numel() for own in run.network.parameters()) for run in two.runs]
    rows.append(["parameters", *(f"{size:,}" for size in sizes)])
    knobs = list(dict.fromkeys(name for own in read for name in own.knobs))
    for name in knobs:
        values = [str(own.knobs.get(name, "-")) for own in read]
        if values[0] != values[1]:
            rows.append([name, *values])
    two.found["runs"] = [
        {
            "title": run.title,
            "recipe": own.recipe,
            "knobs": dict(own.knobs),
            "checkpoint": str(run.checkpoint),
        }
        for run, own in zip(two.runs, read, strict=True)
    ]
    return Section("The runs", "Options are shown where they differ.", rows)


def metrics(two: Comparison, threat: Threat | None, attacked: int) -> Section:
    """Accuracy, loss and calibration of both, and on how many images only one of them is right."""
    labels, rows = two.labels, [["", *two.titles]]
    right = [logits.argmax(1) == labels for logits in two.logits]
    shares = [Proportion(int(own.sum()), len(labels)) for own in right]
    rows.append(["accuracy (95 % interval)", *map(_share, shares)])
    losses = [float(F.cross_entropy(logits, labels)) for logits in two.logits]
    rows.append(["cross-entropy", *(f"{loss:.3f}" for loss in losses)])
    errors = [calibration(logits.softmax(1), labels).error for logits in two.logits]
    rows.append(["expected calibration error", *(f"{error:.3f}" for error in errors)])
    figures = {"accuracy": [own.accuracy for own in shares], "cross-entropy": losses, "ECE": errors}
    if threat is not None:
        robust = [_robust(run.network, two.test[:attacked], threat) for run in two.runs]
        rows.append([f"accuracy under PGD-20 within {within(threat)}", *map(_share, robust)])
        rows.append(["images attacked", *(str(own.count) for own in robust)])
        figures["robust accuracy"] = [own.accuracy for own in robust]
    seen = agreement(*right)
    only = ", ".join(
        f"only {title} on {count}" for title, count in zip(two.titles, (seen.one, seen.other), strict=True)
    )
    text = (
        f"Of {seen.count} {two.test.part} images both are right on {seen.both}, {only}, neither on "
        f"{seen.none}. A difference as large comes by chance with probability {seen.p:.2g} (McNemar's test). "
        "Error consistency "
        f"{_number(seen.consistency)}: 1 if both are wrong on the same images, 0 as by chance. "
        f"{left_out(two.one, two.seen, two.test.part)}"
    )
    two.found["metrics"] = figures | {
        "images": seen.count,
        "images the first was trained on, left out": two.seen,
        "both right": seen.both,
        "only one right": [seen.one, seen.other],
        "neither right": seen.none,
        "p": seen.p,
        "error consistency": seen.consistency,
    }
    return Section("Metrics", text, rows, {"classes": _by_class(two, right)})


def _robust(network: nn.Module, sample: Sample, threat: Threat) -> Proportion:
    right = 0
    for name in sample.chunks(CHUNK):
        part = sample.chunk(name, CHUNK)
        assert part.labels is not None
        labels = part.labels.to(part.images.device)
        moved = pgd(network, part.images, labels, threat)
        right += int((predict(network, moved).argmax(1) == labels).sum())
    return Proportion(right, len(sample))


def _by_class(two: Comparison, right: Sequence[Tensor]) -> RGB:
    """The accuracy of each class, of many those where the two differ most."""
    labels = two.labels
    known = [label for label in range(two.logits[0].shape[1]) if bool((labels == label).any())]
    shares = [[float(own[labels == label].double().mean()) for label in known] for own in right]
    order = sorted(range(len(known)), key=lambda place: -abs(shares[0][place] - shares[1][place]))[:CLASSES]
    order.sort()
    names = [two.test.name(known[place]) for place in order]
    bars = {
        f"{row + 1}: {run.title}": [shares[row][place] for place in order] for row, run in enumerate(two.runs)
    }
    two.found["accuracy by class"] = {
        two.test.name(label): [own[place] for own in shares] for place, label in enumerate(known)
    }
    return bar_plot(names, bars, ylabel="accuracy of each class", ymax=1.0)


def _share(own: Proportion) -> str:
    low, high = own.interval
    return f"{own.accuracy:.1%} ({low:.1%} to {high:.1%})"


def _number(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.2f}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(own) for own in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
