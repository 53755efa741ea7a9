"""Images and labels of a data set or a loader, batch by batch: every image once and in order."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

Data = DataLoader | Dataset | tuple[Tensor, Tensor] | Iterable[Any]

_AT_ONCE = 64


def in_order(data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels, batch by batch; of a data set, or a DataLoader over one, every image once, in order.

    Raises:
        ValueError: a batch is not a pair of images and labels.
    """
    for batch in _batches(data):
        images, labels = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (None, None)
        if not (isinstance(images, Tensor) and isinstance(labels, Tensor) and images.dim() == 4):
            raise ValueError(
                f"a batch that is a {type(batch).__name__}; "
                "wanted a pair of images [n, channels, height, width] and labels [n]"
            )
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"labels {labels.dtype} {tuple(labels.shape)} for {len(images)} images; "
                "wanted the number of its class for each"
            )
        yield images, labels.long()


def _batches(data: Data) -> Iterable:
    """The batches; a data set that is read by index gets a loader that gives every item once and in order."""
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return zip(*(part.split(_AT_ONCE) for part in data), strict=True)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return DataLoader(data, _AT_ONCE, collate_fn=getattr(data, "collate", None))
    if not (isinstance(data, DataLoader) and _is_whole(data)):
        assert isinstance(data, Iterable)
        return data
    return DataLoader(
        data.dataset,
        data.batch_size,
        collate_fn=data.collate_fn,
        num_workers=data.num_workers,
        pin_memory=data.pin_memory,
        worker_init_fn=data.worker_init_fn,
        multiprocessing_context=data.multiprocessing_context,
    )


def _is_whole(loader: DataLoader) -> bool:
    """Whether it reads a data set by index, all of it except the shards of other processes."""
    sampler = loader.sampler
    usual = isinstance(sampler, SequentialSampler | DistributedSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement
    )
    sized = isinstance(loader.dataset, Sized) and not isinstance(loader.dataset, IterableDataset)
    return usual and sized and loader.batch_size is not None
