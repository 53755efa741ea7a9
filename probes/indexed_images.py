"""Images and labels of data sets, loaders and other iterables, batch by batch, each image with its number."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from fulgurite.probes.batches import batch_size
from fulgurite.probes.frozen_eval import same_randomness

Data = DataLoader | Dataset | Tensor | tuple[Tensor, ...] | Iterable[Any]

IMAGES = ("image", "images", "pixel_values", "x", "input", "inputs", "img", "data")
LABELS = ("label", "labels", "target", "targets", "y", "class", "classes")
MOST = 1024  # images that are fetched at once for a GPU


class Examples(NamedTuple):
    """Images in [0, 1], their numbers, and the numbers of their classes, where there are any."""

    ids: Int[Tensor, "n"]
    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, "n"] | None


def numbered(
    data: Data, ids: Iterable[int] | None = None, *, device: torch.device, size: int | None = None
) -> Iterator[Examples]:
    """The images, a batch at a time, where they lie. Random states are as before between the batches.

    Args:
        data: a data set, or a DataLoader over one, is read by index, with the loader's workers and its
            `collate_fn`; so are images, or a pair of images and labels. Any other iterable of batches is read
            as it comes. A batch is images alone, a tuple or a list of images and labels, or a dict with the
            usual keys.
        ids: which images of a data set, in this order. Without it, all of them in order; for a loader whose
            sampler does more than shuffle, those of the sampler. Where batches come as they are, the images'
            numbers in that order, 0, 1, 2 ... without it.
        device: where the network is, to know how many images suit it.
        size: how many images at a time, at most; as many as suit the network without it.

    Raises:
        ValueError: an id that is not in the data set, fewer ids than images, a batch of another form, or
            images outside [0, 1].
    """
    dataset, loader = indexed(data)
    if dataset is None:
        assert isinstance(data, Iterable)
        return _arriving(data, count() if ids is None else ids, device, size)
    if not isinstance(dataset, Sized):
        raise ValueError(f"a {type(dataset).__name__} without a length; wanted a data set read by index")
    if ids is None:
        ids = range(len(dataset)) if loader is None else _sampled(loader, len(dataset))
    chosen = [int(number) for number in ids]
    if wrong := [number for number in chosen if not 0 <= number < len(dataset)]:
        raise ValueError(f"id {wrong[0]}: the data set has {len(dataset)} images, counted from 0")
    return _by_index(dataset, chosen, loader, device, size)


def first_images(data: Data, *, device: torch.device, size: int) -> Float[Tensor, "m c h w"]:
    """The first images, at most `size` of them, on the device that they are on.

    Raises:
        ValueError: there are none, or as for `numbered`.
    """
    found = next(numbered(data, device=device, size=size), None)
    if found is None or not len(found.images):
        raise ValueError("no images; wanted at least one")
    return found.images


def indexed(data: Data) -> tuple[Dataset | None, DataLoader | None]:
    """The data set that is read by index, and the loader over it, if there is one; None for what is not."""
    if isinstance(data, Tensor):
        return TensorDataset(data), None
    if isinstance(data, tuple) and all(isinstance(part, Tensor) for part in data):
        return TensorDataset(*data), None
    loader = data if isinstance(data, DataLoader) and data.batch_size is not None else None
    dataset = data if loader is None else loader.dataset
    if isinstance(dataset, Dataset) and not isinstance(dataset, IterableDataset):
        return dataset, loader
    return None, None


def _sampled(loader: DataLoader, length: int) -> Iterable[int]:
    shuffles = isinstance(loader.sampler, RandomSampler) and not loader.sampler.replacement
    if shuffles or isinstance(loader.sampler, SequentialSampler):
        return range(length)
    with _seeded(torch.device("cpu")):
        return list(loader.sampler)


def _by_index(
    dataset: Any, ids: Sequence[int], loader: DataLoader | None, device: torch.device, size: int | None
) -> Iterator[Examples]:
    if not ids:
        return
    own = getattr(dataset, "collate", None) or default_collate
    collate: Callable[[list], Any] = own if loader is None else loader.collate_fn
    with _seeded(device):
        first = _unpacked(_collated(collate, _Items(dataset).__getitems__([ids[0]]))[1])
    options: dict[str, Any] = {}
    if loader is not None and loader.num_workers:
        options = {
            "num_workers": loader.num_workers,
            "worker_init_fn": loader.worker_init_fn,
            "multiprocessing_context": loader.multiprocessing_context,
        }
    batches = DataLoader(
        _Items(dataset),
        size or _fit(first[0], device),
        sampler=ids,
        collate_fn=partial(_collated, collate),
        **options,
    )
    for numbers, batch in _seededly(batches, device):
        images, labels = _unpacked(batch)
        yield Examples(torch.tensor(numbers), images, labels)


def _arriving(
    data: Iterable[Any], ids: Iterable[int], device: torch.device, size: int | None
) -> Iterator[Examples]:
    numbers = iter(ids)
    for batch in _seededly(data, device):
        images, labels = _unpacked(batch)
        mine = torch.tensor([*islice(numbers, len(images))], dtype=torch.long)
        if len(mine) < len(images):
            raise ValueError("fewer ids than images; wanted one for each image that comes")
        parts = size or _fit(images, device)
        for start in range(0, len(images), parts):
            rows = slice(start, start + parts)
            yield Examples(mine[rows], images[rows], None if labels is None else labels[rows])


def _fit(images: Tensor, device: torch.device) -> int:
    return batch_size(images, device, max_images=MOST if device.type == "cuda" else None)


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """Random draws within the block are the same each time, and random states are restored after it."""
    with same_randomness(device):
        # not torch.manual_seed: it seeds devices that are not restored too, and takes milliseconds
        torch.default_generator.manual_seed(0)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        yield


def _seededly(data: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """The items of the data, each fetched with its own random state, independent of the caller's."""
    with _seeded(device):
        batches = iter(data)
    end = object()
    while True:
        with _seeded(device):
            batch = next(batches, end)
        if batch is end:
            return
        yield batch


class _Items(Dataset):
    """The items of a data set, each with its number."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __getitems__(self, ids: list[int]) -> "list[tuple[int, Any]] | _Made":
        get_items = getattr(self.dataset, "__getitems__", None)
        items = get_items(ids) if get_items else [self.dataset[number] for number in ids]
        return list(zip(ids, items, strict=True)) if isinstance(items, list) else _Made(ids, items)


class _Made(NamedTuple):
    """A batch that the data set has made itself, as ours do."""

    ids: list[int]
    batch: Any


def _collated(collate: Callable[[Any], Any], items: list[tuple[int, Any]] | _Made) -> tuple[list[int], Any]:
    if isinstance(items, _Made):
        return items.ids, collate(items.batch)
    try:
        return [number for number, _ in items], collate([item for _, item in items])
    except RuntimeError:
        shapes = sorted({tuple(_unpacked(collate([item]))[0].shape[1:]) for _, item in items})
        if len(shapes) < 2:
            raise
        raise ValueError(
            f"images of several sizes, such as {shapes[0]} and {shapes[-1]}; wanted one size, or one image "
            "at a time (batch_size=1)"
        ) from None


def _unpacked(batch: object) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, "n"] | None]:
    images, labels = batch, None
    if isinstance(batch, Mapping):
        images, labels = (
            next((batch[key] for key in keys if key in batch), None) for keys in (IMAGES, LABELS)
        )
    elif isinstance(batch, list | tuple) and batch:
        images, labels = batch[0], batch[1] if len(batch) > 1 else None
    if not (isinstance(images, Tensor) and images.dim() == 4 and images.is_floating_point()):
        came = (
            f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise ValueError(f"images that are {came}; wanted floating point [n, channels, height, width]")
    if not isinstance(labels, Tensor) or labels.shape != images.shape[:1] or labels.is_floating_point():
        labels = None
    low, high = (float(end) for end in images.aminmax()) if images.numel() else (0.0, 0.0)
    if not (low >= -0.01 and high <= 1.01):
        raise ValueError(
            f"images reach from {low:.3g} to {high:.3g}; wanted [0, 1]. "
            "If the data are normalised, undo it, and put normalisation into the network"
        )
    return images, None if labels is None else labels.long()
