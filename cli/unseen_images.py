"""Test images of one run that another was not trained on, so that both can be compared on them."""

import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b

from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fulgurite.callbacks.framework.sample import Sample, fetch
from fulgurite.cli.loaded_run import LoadedRun
from fulgurite.probes.frozen_eval import device_of


def unseen_images(one: LoadedRun, other: LoadedRun, count: int) -> tuple[Sample, int]:
    """Test images of the second run that the first was not trained on, and the number left out.

    Where the seed splits the images, the test images of one run may be another's training images. Images are
    identified by their files, or in memory by their pixels; without either, none is left out.

    Raises:
        ValueError: the first run was trained on all of them.
    """
    other.recipe.data.setup("test")
    loader, seen = other.recipe.data.test_dataloader(), set[Hashable]()
    if one.folder.resolve() != other.folder.resolve():
        one.recipe.data.setup("fit")
        seen = {*_identities(one.recipe.data.train_dataloader())}
    names = _identities(loader) if seen else []
    kept = [place for place, name in enumerate(names) if name not in seen]
    if len(kept) == len(names) or not isinstance(loader, DataLoader):
        return other.test_images(count), 0
    part = getattr(other.recipe.data, "tested_on", "test")
    if not kept:
        raise ValueError(
            f"{one.title} was trained on all {len(names)} {part} images of {other.title}; wanted runs with "
            "the same --seed, or images of a folder with test/"
        )
    rest = DataLoader(Subset(loader.dataset, kept), loader.batch_size, collate_fn=loader.collate_fn)
    classes = getattr(other.recipe.data, "classes", None) or ()
    found = fetch(rest, count, classes=classes, device=device_of(other.network))
    return replace(found, part=part), len(names) - len(kept)


def left_out(one: LoadedRun, count: int, part: str) -> str:
    """A sentence on images that were left out; nothing where there are none."""
    return f"Left out are {count} other {part} images, on which {one.title} was trained." if count else ""


def _identities(loader: Iterable) -> Sequence[Hashable]:
    """A key that the same image has in another run, too."""
    dataset = getattr(loader, "dataset", None)
    files, images = (
        getattr(getattr(dataset, "picture", None), "files", None),
        getattr(dataset, "images", None),
    )
    if isinstance(files, Sequence):
        return [os.path.realpath(file) for file in files]
    if isinstance(images, Tensor):
        return [blake2b(image.numpy().tobytes()).digest() for image in images.cpu()]
    return []
