"""Your own images in tar shards (the webdataset format), streamed: for data too large for a folder."""

from typing import Any

import lightning.pytorch as pl

from fulgurite.data.shards import Shards
from fulgurite.recipes import folder
from fulgurite.recipes.knobs import passes_on, those_of
from fulgurite.recipes.recipe import Recipe


@passes_on(folder.recipe, without=["val_share", "fitted_head", "white"])
def recipe(
    *, path: str, val: str | None = None, classes: str | None = None, shuffle: int = 1000, **knobs: Any
) -> Recipe:
    """Train on images in tar files: pairs such as `0001.jpg` and `0001.cls`, a class by number or name.

    `fulgurite fit shards --path 'data/train-{000..009}.tar' --val 'data/val-{000..001}.tar'`, with patterns
    in quotes, or `--path data` for data/train/*.tar and data/val/*.tar. It needs the package webdataset:
    pip install 'fulgurite[shards]'. A run that is resumed with the same numbers of processes and workers
    continues as if never interrupted, bit for bit.

    Args:
        path: the training shards, a pattern or a folder; without val, a folder with train and val in it.
        val: the validation shards, a pattern or a folder.
        classes: a JSON file, the list of the classes; without it, classes.json next to the shards, if it is
            there; else the classes are those of the .cls entries.
        shuffle: images of each worker that wait to be drawn from; 0 keeps the order within the shards.
        batch_size: images in a step.
        seed: of weights, order and augmentation.
    """
    pl.seed_everything(knobs["seed"], workers=True, verbose=False)
    data = Shards(path, val=val, classes=classes, shuffle=shuffle, **those_of(Shards.__init__, knobs))
    return folder.classifier(data, **those_of(folder.classifier, knobs))
