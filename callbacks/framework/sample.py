"""The fixed sample of validation images that probes look at, fetched once by index, in [0, 1]."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import islice

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int, UInt8
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from fulgurite.probes.borrow import same_randomness
from fulgurite.probes.private_state import restored

IMAGES = ("image", "images", "pixel_values", "x", "input", "inputs", "img", "data")
CHUNK = 256
READ = 16  # images, of which the first are read twice
LABELS = ("label", "labels", "target", "targets", "y", "class", "classes")


@dataclass(frozen=True)
class Sample:
    """Images with their labels, if they have any, and the names of the classes.

    Where the data give something else than a class number for each image, `unfit` says what it is, and there
    are no labels. `sample[indices]` is the sample of those images. Images that came from 8-bit files are held
    as such.
    """

    pixels: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, "n"] | None
    classes: tuple[str, ...]
    device: torch.device
    unfit: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices: Sequence[int] | slice) -> "Sample":
        return replace(
            self, pixels=self.pixels[indices], labels=None if self.labels is None else self.labels[indices]
        )

    def chunks(self, size: int = CHUNK) -> list[str]:
        """The names of its parts, of so many images that a network takes them at once."""
        return [f"{start:06d}" for start in range(0, len(self), size)]

    def chunk(self, name: str, size: int = CHUNK) -> "Sample":
        """The part of this name."""
        return self[int(name) : int(name) + size]

    @property
    def images(self) -> Float[Tensor, "n c h w"]:
        """The images in [0, 1], where the network is."""
        moved = self.pixels.to(self.device)
        return moved / 255 if moved.dtype == torch.uint8 else moved

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def name(self, label: int) -> str:
        """The name of a class; its number if it has none."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def fetch(
    loader: Iterable,
    count: int | None,
    *,
    classes: Sequence[str],
    device: torch.device,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Sample:
    """`count` images spread evenly over a loader's data set, all without it.

    Random states are left alone, and so is what data set, sampler and loader hold themselves: generators,
    counters, lists. Where that is not possible, one line says so.

    Args:
        loader: a DataLoader, or whatever yields batches: tuples, lists, dicts with the usual keys, or images
            alone.
        count: how many.
        classes: the names of the classes.
        device: where the network is.
        mean: if the images are normalised, by which mean per channel, so that it can be undone.
        std: and by which standard deviation.

    Raises:
        ValueError: no images, a batch of an unknown form, or images outside [0, 1].
    """
    first, batches, lost = _read(loader, count, device)
    if not batches:
        raise ValueError("the data to probe with are empty; wanted at least one image")
    if first is not None and not _same(first, batches[0][0]):
        lost = [*lost, "the images differ when they are read once more from the same state"]
    if lost:
        whose = type(getattr(loader, "dataset", loader)).__name__
        rank_zero_warn(
            f"{whose} holds a state that cannot be restored after reading images to probe with, so that a "
            f"training may end differently than without probes: {lost[0]}"
        )
    images = torch.cat([images for images, _ in batches])[:count].float()
    labels = [labels for _, labels in batches]
    unfit = next((labels for labels in labels if isinstance(labels, str)), "")
    known = [labels for labels in labels if isinstance(labels, Tensor)]
    numbers = torch.cat(known)[:count].long() if len(known) == len(batches) else None
    for values, undo in ((std, torch.mul), (mean, torch.add)):
        if values is not None and len(values) != images.shape[1]:
            raise ValueError(f"{len(values)} numbers of mean or std for images of {images.shape[1]} channels")
        if values is not None:
            images = undo(images, torch.tensor(list(values))[:, None, None])
    return Sample(_compact(_in_range(images, mean)), numbers, tuple(classes), device, unfit)


def loader_of(trainer: pl.Trainer) -> Iterable:
    """The loader to take the sample from: validation, else test, else training data.

    Raises:
        ValueError: the trainer has none.
    """
    sources = (trainer.val_dataloaders, trainer.test_dataloaders, trainer.train_dataloader)
    if (loader := next((first for source in sources if (first := _first(source)) is not None), None)) is None:
        raise ValueError("the Trainer has no validation, test or training data to take images from")
    return loader


def classes_of(trainer: pl.Trainer, loader: Iterable) -> tuple[str, ...]:
    """The names of the classes, from the data set, the data module or the model, whichever has them first."""
    dataset = getattr(loader, "dataset", None)
    sources = [dataset]
    while (dataset := getattr(dataset, "dataset", None)) is not None:
        sources.append(dataset)
    sources += [getattr(trainer, "datamodule", None), trainer.lightning_module]
    for source in sources:
        names = getattr(source, "classes", None)
        if isinstance(names, list | tuple) and names:
            return tuple(str(name) for name in names)
    return ()


def _first(source: object) -> Iterable | None:
    if isinstance(source, Mapping):
        source = list(source.values())
    if isinstance(source, list | tuple):
        return _first(source[0]) if source else None
    return source if isinstance(source, Iterable) else None


def _read(
    loader: Iterable, count: int | None, device: torch.device
) -> tuple[Tensor | None, list[tuple[Tensor, Tensor | str | None]], list[str]]:
    """The first batch, read alone; all batches; and what of the loader's state cannot be restored."""

    def read(most: int | None) -> tuple[list[tuple[Tensor, Tensor | str | None]], list[str]]:
        with same_randomness(device), restored(loader, code=True) as lost:
            torch.manual_seed(0)
            return [_unpacked(batch) for batch in islice(_batches(loader, count), most)], lost

    # an iterator gives each batch but once
    first = [] if isinstance(loader, Iterator) else read(1)[0]
    batches, lost = read(None)
    return first[0][0] if first else None, batches, lost


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _batches(loader: Iterable, count: int | None) -> Iterator[object]:
    """Batches with at least `count` images in all; by index, with no iterator, where the data set has one."""
    if not isinstance(loader, DataLoader):
        yield from _until(iter(loader), count)
        return
    dataset = loader.dataset
    if loader.batch_sampler is None or isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized):
        yield from _until(iter(_in_this_process(loader)), count)
        return
    total = len(dataset)
    wanted = min(total, count or total)
    indices = [place * total // wanted for place in range(wanted)]
    for start in range(0, wanted, READ):
        chosen = indices[start : start + READ]
        several = getattr(dataset, "__getitems__", None)
        yield loader.collate_fn(several(chosen) if several else [dataset[index] for index in chosen])


def _in_this_process(loader: DataLoader) -> DataLoader:
    """The same loader without worker processes, which may be at work for the training, and stay after it."""
    alone = copy.copy(loader)
    options = {"num_workers": 0, "prefetch_factor": None, "persistent_workers": False, "timeout": 0}
    vars(alone).update(options, pin_memory=False, _iterator=None)
    return alone


def _until(batches: Iterator[object], count: int | None) -> Iterator[object]:
    held = 0
    while count is None or held < count:
        if (batch := next(batches, None)) is None:
            return
        held += len(_unpacked(batch)[0])
        yield batch


def _unpacked(batch: object) -> tuple[Tensor, Tensor | str | None]:
    if isinstance(batch, Tensor):
        return _images(batch), None
    if isinstance(batch, Mapping):
        found = [next((batch[key] for key in keys if key in batch), None) for keys in (IMAGES, LABELS)]
        if found[0] is None:
            raise ValueError(
                f"a batch with the keys {', '.join(map(str, batch))}; wanted its images under one of {IMAGES}"
            )
        return _images(found[0]), _labels(found[1])
    if isinstance(batch, list | tuple) and batch:
        return _images(batch[0]), _labels(batch[1] if len(batch) > 1 else None)
    raise ValueError(
        f"a batch that is a {type(batch).__name__}; wanted a tuple, a list or a dict of images and labels"
    )


def _images(images: object) -> Tensor:
    if not (isinstance(images, Tensor) and images.dim() == 4 and images.is_floating_point()):
        came = (
            f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise ValueError(f"images that are {came}; wanted floating point [n, channels, height, width]")
    return images.detach().cpu()


def _labels(labels: object) -> Tensor | str | None:
    """A class number for each image, what came instead in words, or None where there are no numbers."""
    if not isinstance(labels, Tensor):
        return None
    if labels.dim() != 1 or labels.is_floating_point():
        return f"{str(labels.dtype).removeprefix('torch.')} [{', '.join(['n', *map(str, labels.shape[1:])])}]"
    return labels.detach().cpu()


def _in_range(images: Float[Tensor, "n c h w"], mean: Sequence[float] | None) -> Float[Tensor, "n c h w"]:
    if wrong := int((~images.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(f"{wrong} of {len(images)} images hold NaN or infinity")
    low, high = float(images.min()), float(images.max())
    if low < -0.01 or high > 1.01:
        remedy = (
            "are mean and std those of the data?"
            if mean
            else "if the data are normalised, give the probe mean=, std="
        )
        raise ValueError(f"images reach from {low:.3g} to {high:.3g}; wanted [0, 1]; {remedy}")
    return images.clamp(0, 1)


def _compact(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]:
    """As bytes, where nothing is lost by it."""
    whole = (images * 255).round()
    return whole.byte() if bool(((whole / 255) - images).abs().max() < 1e-6) else images
