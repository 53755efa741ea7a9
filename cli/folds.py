"""The images of a folder, split into folds, for classifiers of features that are computed once."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader

from fulgurite.data.folder import Folder
from fulgurite.recipes.advice import Estimate, estimate


class FoldedImages:
    """All images of a folder except the test images, and those that each fold validates on."""

    def __init__(self, path: str, folds: int, *, size: int, workers: int, seed: int):
        if folds < 2:
            raise ValueError(f"folds={folds}; wanted 2 or more")
        # a replacement for a bad image could be both fitted to and scored on
        plain = {"size": size, "augment": False, "workers": workers, "seed": seed, "on_bad_image": "raise"}
        fold_data = [Folder(path, fold=(fold, folds), verify=fold == 0, **plain) for fold in range(folds)]
        first = fold_data[0]
        first.setup()
        self.classes = first.classes
        self.files = {name: first.files["train"][name] + first.files["val"][name] for name in self.classes}
        every = [file for part in ("train", "val") for files in first.files[part].values() for file in files]
        rows = {file: row for row, file in enumerate(every)}
        self.loader = DataLoader(ConcatDataset([first.train, first.val]), 32, num_workers=workers)
        self.fold_rows = [
            torch.tensor([rows[file] for files in one.files["val"].values() for file in files])
            for one in fold_data
        ]

    def __len__(self) -> int:
        return sum(map(len, self.fold_rows))

    def training(self, fold: int) -> Int[Tensor, "m"]:
        """The rows that a fold's classifiers are fitted to."""
        aside = torch.zeros(len(self), dtype=torch.bool)
        aside[self.fold_rows[fold]] = True
        return (~aside).nonzero()[:, 0]

    def estimates(self, rights: Mapping[str, Bool[Tensor, "n"]]) -> dict[str, Estimate]:
        """The accuracy of each stage over the folds."""
        return {
            stage: estimate([float(right[rows].double().mean()) for rows in self.fold_rows], images=len(self))
            for stage, right in rights.items()
        }
