"""Robust CIFAR-10 from end to end: the recipe's training, then AutoAttack, next to RobustBench's figures.

python -m benchmarks.robust_cifar10 FOLDER [--only fast madry] [--quick] [--images N]

FOLDER holds CIFAR-10 as files, `train/CLASS/*.jpg` and `test/CLASS/*.jpg`. The recipe robust_cifar10 (PreAct
ResNet-18, Linf 8/255) trains by Fast for 15 epochs, and by Madry with PGD of 10 steps, 110 epochs at most,
ending 30 epochs after the best robust validation accuracy; what is measured is that best checkpoint, on test
images, by FGSM, PGD-20 and AutoAttack's standard ensemble. Meant for a GPU. --quick trains a small CNN for
one epoch on the available device, as a smoke test; its numbers mean nothing.

The published figures are for the original CIFAR-10. The same images as JPEG of quality 75 cost some points:
published ResNets lose about ten on them, and one trained on them sees less detail.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from benchmarks.timing import show
from fulgurite.models.weights import read
from fulgurite.probes.attacks.ensembles import standard
from fulgurite.probes.attacks.gradient_pass import FAST
from fulgurite.probes.robustness.evaluate import evaluate
from fulgurite.recipes import robust_cifar10
from fulgurite.recipes.quick_fit import quiet
from fulgurite.recipes.recipe import classifier_of
from fulgurite.recipes.robustness_report import test_images

WAYS: dict[str, dict[str, Any]] = {
    "fast": {"method": "fast", "epochs": 15, "lr": 0.2},
    "madry": {"method": "madry", "epochs": 110, "patience": 30},
}
SMALL: dict[str, Any] = {"network": "small_cnn", "epochs": 1, "steps": 2, "robust_images": 20, "lr": 0.02}
PUBLISHED = [
    ["RobustBench, Wong et al. 2020", "fast, PreAct ResNet-18", 83.34, 43.21],
    ["RobustBench, Andriushchenko & Flammarion 2020", "GradAlign, PreAct ResNet-18", 79.84, 43.93],
    ["RobustBench, best without extra data", "PreAct ResNet-18", "-", 52.48],
]


def trained(folder: Path, place: Path, knobs: Mapping[str, Any]) -> list:
    """Accuracy and robust accuracy of the best weights, in percent; the number of images; minutes."""
    images, knobs = knobs["images"], {name: value for name, value in knobs.items() if name != "images"}
    gpu = torch.cuda.is_available()
    made = robust_cifar10.recipe(files=str(folder), every=0, workers=0, bf16=gpu, **knobs)
    best = ModelCheckpoint(place, monitor=made.monitor, mode="max", save_weights_only=True)
    stop = [EarlyStopping(str(made.monitor), mode="max", patience=made.patience)] if made.patience else []
    trainer = pl.Trainer(
        max_epochs=made.epochs,
        devices=1,
        precision="bf16-mixed" if gpu else "32-true",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*made.callbacks, best, *stop],
    )
    started = perf_counter()
    with quiet():
        trainer.fit(made.model, made.data)
    minutes = (perf_counter() - started) / 60
    made.load(read(Path(best.best_model_path)), source="best")
    network = made.network.eval().to("cuda" if gpu else "cpu")
    (sample, _), threat = test_images(made, images), classifier_of(made).threat
    assert sample.labels is not None
    assert threat is not None
    attacks = standard(threat, classifier_of(made).classes, gradient_pass=FAST)
    report = evaluate(network, sample.images, sample.labels.to(sample.images.device), threat, attacks)
    return [100 * report.accuracy("clean"), 100 * report.accuracy(), len(sample), minutes]


def rows_of(folder: Path, ways: Mapping[str, dict[str, Any]], *, images: int | None) -> list[list]:
    """A row for each way of training, and the published ones."""
    rows = []
    for name, knobs in ways.items():
        with tempfile.TemporaryDirectory() as place:
            clean, robust, count, minutes = trained(folder, Path(place), {**knobs, "images": images})
        rows.append([f"ours, JPEG, n={count}", name, clean, robust, minutes])
        print(*rows[-1], flush=True)
    return [*rows, *([*row, "-"] for row in PUBLISHED)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="these ways of training")
    parser.add_argument("--quick", action="store_true", help="a small network, an epoch, 20 images")
    parser.add_argument("--images", type=int, help="test images to attack; all without it")
    args = parser.parse_args()
    small, images = (SMALL, args.images or 20) if args.quick else ({}, args.images)
    ways = {name: {**WAYS[name], **small} for name in args.only}
    show(
        "Robust accuracy on CIFAR-10 within 8/255 in Linf; JPEG costs some points against the published set",
        ["by", "training", "accuracy %", "AutoAttack %", "minutes"],
        rows_of(args.folder, ways, images=images),
    )


if __name__ == "__main__":
    main()
