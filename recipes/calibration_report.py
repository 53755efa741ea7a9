"""Calibration of a run on its test images, before and after temperature scaling on validation images."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.callbacks.framework.sample import Sample, fetch
from fulgurite.models.classifier import Classifier
from fulgurite.probes.atomic import check_no_folder, write_atomic
from fulgurite.probes.predict import predict
from fulgurite.probes.render import titled, write
from fulgurite.probes.representation.calibration import (
    Calibration,
    calibration,
    fitted_temperature,
    scaled_by_halves,
)
from fulgurite.probes.representation.render_calibration import reliability_diagram
from fulgurite.probes.tasks import two_sided
from fulgurite.recipes import run as runs
from fulgurite.recipes.recipe import Recipe

FILE, PAGE = "calibration.json", "calibration.png"
MOST = 5000  # images of either part, spread evenly
BEFORE, AFTER = "as trained", "after temperature scaling"


class CalibrationReport(NamedTuple):
    """The measured calibration.

    Args:
        measured: bins of the test images, by `BEFORE` and `AFTER`.
        temperature: that was fitted; None where none is the best.
        fitted_on: validation images.
        why: why there is no temperature, or a remark on it.
    """

    measured: Mapping[str, Calibration]
    temperature: float | None
    fitted_on: int
    why: str = ""

    def as_dict(self, *, bins: bool = True) -> dict[str, Any]:
        """The report with all bins, for JSON; values of bins without images are null."""
        return {
            "temperature": self.temperature,
            "validation images": self.fitted_on,
            **({"note": self.why} if self.why else {}),
            **{
                name: {"expected calibration error": own.error, **(_bins(own) if bins else {})}
                for name, own in self.measured.items()
            },
        }

    def line(self) -> str:
        """The errors in a sentence."""
        words = f"expected calibration error {self.measured[BEFORE].error:.4f}"
        if AFTER in self.measured and self.temperature is not None:
            words += (
                f", {self.measured[AFTER].error:.4f} after temperature scaling by {self.temperature:.3g} "
                f"(fitted on {self.fitted_on} validation images)"
            )
            if self.measured[AFTER].error > self.measured[BEFORE].error:
                words += ", which is worse, so predictions do not use it"
        return words + f"; {self.why}" * bool(self.why)

    def write(self, folder: Path) -> None:
        """The figures and the reliability diagram into a run's folder."""
        write_atomic(folder / FILE, json.dumps(self.as_dict(), indent=2) + "\n")
        write(titled(reliability_diagram(self.measured), "Calibration"), folder / PAGE)


def check_places(folder: Path) -> None:
    """Check that no folder lies where the files are to be.

    Raises:
        OSError: one does.
    """
    check_no_folder(folder, (FILE, PAGE))


def report_calibration(recipe: Recipe, *, device: torch.device) -> CalibrationReport | None:
    """Measure on up to 5000 test images; the temperature is fitted to as many validation images.

    Where there are no test images, temperatures are fitted to one half of the validation images and measured
    on the other. None where the model is no `Classifier` of
    classes, or gives numbers that are not finite.
    """
    if not isinstance(recipe.model, Classifier) or recipe.model.task not in ("multiclass", "binary"):
        return None
    recipe.data.setup("test")
    part = getattr(recipe.data, "tested_on", "test")
    network, before = recipe.network, next(iter(recipe.network.parameters())).device
    network.to(device)
    try:
        test = _logits(recipe, recipe.data.test_dataloader(), device)
        if part == "validation":
            val = test
        else:
            recipe.data.setup("validate")
            val = _logits(recipe, recipe.data.val_dataloader(), device)
    finally:
        network.to(before)
    if test is None or val is None:
        return None
    logits, labels = test
    measured = {BEFORE: calibration(logits.softmax(1), labels)}
    try:
        temperature = fitted_temperature(*val)
        scaled = scaled_by_halves(*val) if part == "validation" else logits / temperature
    except ValueError as error:
        why = f"no temperature was fitted to the validation images: {error}"
        return CalibrationReport(measured, None, len(val[1]), why)
    measured[AFTER] = calibration(scaled.softmax(1), labels)
    why = "each half of the images by the temperature of the other" if part == "validation" else ""
    return CalibrationReport(measured, temperature, len(val[1]), why)


def temperature_of_run(folder: Path, checkpoint: Path) -> float | None:
    """The temperature that the test at the end of a run fitted to these weights; None without one.

    Raises:
        ValueError: the file of the test is damaged.
    """
    found = runs.tested(folder, checkpoint).get("calibration")
    try:
        return noted_temperature(found)
    except ValueError as error:
        raise ValueError(f"{folder / runs.TESTED} is damaged: {error}") from None


def noted_temperature(calibration: Any) -> float | None:
    """The temperature in what `as_dict` gave; None without one, or where it made the error larger.

    Raises:
        ValueError: it is not a number above 0.
    """
    found = calibration.get("temperature") if isinstance(calibration, Mapping) else None
    if found is not None and not (type(found) in (int, float) and 0 < found < math.inf):
        raise ValueError(f"its temperature is {found!r}; wanted a finite number above 0")
    errors = [_error(calibration, name) for name in (BEFORE, AFTER)] if found is not None else []
    return None if errors and errors[1] > errors[0] else found


def _error(calibration: Mapping[str, Any], name: str) -> float:
    part = calibration.get(name)
    error = part.get("expected calibration error") if isinstance(part, Mapping) else None
    return float(error) if isinstance(error, int | float) else math.nan


def _logits(
    recipe: Recipe, loader: Iterable, device: torch.device
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n"]] | None:
    sample = fetch(loader, MOST, classes=getattr(recipe.data, "classes", None) or (), device=device)
    if sample.labels is None:
        return None
    found = [_of(recipe, sample.chunk(name)) for name in sample.chunks()]
    logits, labels = torch.cat(found), sample.labels.cpu()
    if logits.shape[1] == 1:
        logits = two_sided(logits)
    return (logits, labels) if bool(logits.isfinite().all()) else None


def _of(recipe: Recipe, sample: Sample) -> Float[Tensor, "n k"]:
    return predict(recipe.network, sample.images).double().cpu()


def _bins(found: Calibration) -> dict[str, Any]:
    known = (found.counts > 0).tolist()
    values = {
        name: [value if there else None for value, there in zip(own.tolist(), known, strict=True)]
        for name, own in {"confidence": found.confidence, "accuracy": found.accuracy}.items()
    }
    return {"counts": found.counts.tolist(), **values}
