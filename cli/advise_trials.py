"""Trainings of `advise`, saved as they end, so that the same command continues after an interruption."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fulgurite.probes.atomic import write_atomic
from fulgurite.recipes.plain_values import read_json
from fulgurite.recipes.quick_fit import QuickFit

FILE = "trainings.json"


class Trials:
    """Finished trainings by strategy and fold, in a file of the folder.

    Args:
        folder: of the advice.
        asked: the options that all of the trainings depend on.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]):
        self.file, self.found = folder / FILE, {"asked": dict(asked), "images": {}, "epochs": 0, "trials": {}}
        if self.file.exists():
            before = read_json(self.file)
            if before.get("asked") != self.found["asked"]:
                raise ValueError(f"{folder} holds trainings with other options; choose another --folder")
            self.found = before

    def epochs(self, images: Mapping[str, int], chosen: Callable[[], int]) -> int:
        """Of each training: as before, or as chosen where there was none of the same images."""
        if self.found["images"] != dict(images):
            self.found |= {"images": dict(images), "epochs": chosen(), "trials": {}}
        return self.found["epochs"]

    def fit(self, strategy: str, fold: int, trained: Callable[[], QuickFit]) -> QuickFit:
        """The result of a training, from the file or trained now and saved."""
        trials, key = self.found["trials"], f"{strategy} {fold}"
        if key not in trials:
            result = trained()
            trials[key] = {"right": result.right.int().tolist(), "seconds": result.seconds}
            write_atomic(self.file, json.dumps(self.found) + "\n")
        return QuickFit(torch.tensor(trials[key]["right"]).bool(), trials[key]["seconds"])


def interrupted(root: Path, asked: Mapping[str, Any], finished: str) -> Path | None:
    """The newest folder with trainings by these options, and without the file of a finished advice."""
    files = sorted(root.glob(f"*/{FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
    open_ones = [file for file in files if not (file.parent / finished).exists()]
    return next((file.parent for file in open_ones if read_json(file).get("asked") == dict(asked)), None)
