"""Images of a data loader by number, decoded when they are looked at; what fits into memory is kept."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from itertools import islice

import torch
from jaxtyping import Bool, Float, UInt8
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from fulgurite.callbacks.framework.label_forms import labels_of
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import same_randomness
from fulgurite.probes.indexed_images import IMAGES, LABELS
from fulgurite.probes.private_state import restored

READ = 16  # images, of which the first are read twice
ROOM = 2**30  # bytes of images that are kept

Pixels = Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]


class LoadedImages:
    """Images in [0, 1] and labels of a loader's data set, each read once as long as it fits into `room`.

    Random states are left alone, and so is what data set, sampler and loader hold themselves: generators,
    counters, lists. Where that is not possible, it is reported once. Images from 8-bit files are kept as
    bytes. An iterable without an index is read from its beginning, and all of it is kept.

    Args:
        loader: a DataLoader, or an iterable of batches: tuples, lists, dicts with the usual keys, or images
            alone.
        device: where the network is, whose random state is left alone too.
        mean: the mean per channel that images were normalised by, if they were, so that it can be undone.
        std: the standard deviation per channel, likewise.
        room: bytes of images that are kept.
        reported: what has been reported as not restorable, so that each is reported once.
    """

    def __init__(
        self,
        loader: Iterable,
        *,
        device: torch.device,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        room: int = ROOM,
        reported: set[str] | None = None,
    ):
        self.loader, self.device, self.mean, self.std, self.room = loader, device, mean, std, room
        self.labels: dict[int, Tensor | str | None] = {}
        self.shape: tuple[int, int, int] = (0, 0, 0)
        self.bytes_kept = 0
        self._kept: dict[int, Tensor] = {}
        self._checked = self._ended = False
        self._reported = set[str]() if reported is None else reported

    def at_least(self, count: int | None) -> None:
        """Read this many, unless known: the largest sample first, of which smaller ones are parts."""
        if not self.labels:
            self.evenly(count)

    def evenly(self, count: int | None) -> list[int]:
        """Numbers of this many images, spread evenly over the data set; the first, where there is no index.

        They have been read once, so that their labels are known.

        Raises:
            ValueError: no images, a batch of an unknown form, or images outside [0, 1].
        """
        if not self._indexed():
            self._read_on(count)
            return list(self.labels)[:count]
        assert isinstance(self.loader, DataLoader)
        total = len(self.loader.dataset)  # pyright: ignore[reportArgumentType]
        ids = spread(total, count or total)
        if not ids:
            raise ValueError("the data to probe with are empty; wanted at least one image")
        for _ in self._read([one for one in ids if one not in self.labels]):
            pass  # what is read is kept as far as there is room
        return ids

    def pixels(self, ids: Sequence[int]) -> Pixels:
        """These images, as bytes if all of them are; those that are not kept are read again."""
        found = {one: self._kept[one] for one in ids if one in self._kept}
        for few in self._read([one for one in dict.fromkeys(ids) if one not in found]):
            found |= few
        images = [found[one] for one in ids]
        if not images:
            return torch.zeros(0, *self.shape)
        if len({image.dtype for image in images}) > 1:
            images = [image / 255 if image.dtype == torch.uint8 else image for image in images]
        return torch.stack(images)

    def masks(self, ids: Sequence[int]) -> Bool[Tensor, "n h w"] | None:
        """The masks of these images, where the data set has any: a method `masks(indices)`, or a tensor."""
        dataset, numbers = getattr(self.loader, "dataset", None), [*ids]
        while isinstance(dataset, Subset) and not hasattr(dataset, "masks"):
            dataset, numbers = dataset.dataset, [dataset.indices[number] for number in numbers]
        known = getattr(dataset, "masks", None)
        if not self._indexed() or not (callable(known) or isinstance(known, Tensor)):
            return None
        with self._leaving_no_trace():
            found: Tensor = known[numbers] if isinstance(known, Tensor) else known(numbers)  # pyright: ignore[reportAssignmentType]
        return found.flatten(0, 1).bool() if found.dim() == 4 and found.shape[1] == 1 else found.bool()

    def _indexed(self) -> bool:
        if not isinstance(self.loader, DataLoader) or self.loader.batch_sampler is None:
            return False
        dataset = self.loader.dataset
        return isinstance(dataset, Sized) and not isinstance(dataset, IterableDataset)

    def _read(self, ids: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        """These images, a few at a time; all of them are read before the state is as it was."""
        chunks = [ids[start : start + READ] for start in range(0, len(ids), READ)]
        before: object = None
        if chunks and not self._checked:
            with self._leaving_no_trace():
                before = self._collated(chunks[0])
        if chunks:
            with self._leaving_no_trace() as lost:
                for chunk in chunks:
                    batch = self._collated(chunk)
                    lost += self._differs(before, batch)
                    yield self._keep(chunk, [batch])
            self._say(lost)

    @contextmanager
    def _leaving_no_trace(self) -> Iterator[list[str]]:
        with same_randomness(self.device), restored(self.loader, code=True) as lost:
            torch.manual_seed(0)
            yield lost

    def _collated(self, ids: Sequence[int]) -> object:
        assert isinstance(self.loader, DataLoader)
        dataset = self.loader.dataset
        get_items = getattr(dataset, "__getitems__", None)
        return self.loader.collate_fn(get_items(ids) if get_items else [dataset[index] for index in ids])

    def _read_on(self, count: int | None) -> None:
        """From the beginning, unless as many are known already."""
        if self._ended or (count is not None and len(self.labels) >= count):
            return

        def fetch(limit: int | None) -> tuple[list[object], list[str]]:
            with self._leaving_no_trace() as lost:
                loader = self.loader
                batches = iter(_in_this_process(loader) if isinstance(loader, DataLoader) else loader)
                return list(islice(_until(batches, count), limit)), lost

        # an iterator gives each batch only once
        before = [] if self._checked or isinstance(self.loader, Iterator) else fetch(1)[0]
        batches, lost = fetch(None)
        if not batches:
            raise ValueError("the data to probe with are empty; wanted at least one image")
        self._say([*lost, *self._differs(before[0] if before else None, batches[0])])
        known = sum(len(unpacked(batch)[0]) for batch in batches)
        self._ended = count is None or known < count
        self._keep(range(known), batches)

    def _differs(self, before: object, batch: object) -> list[str]:
        """Whether the first batch differs when it is read once more; checked once."""
        if self._checked:
            return []
        self._checked = True
        if before is None or _same(unpacked(before)[0], unpacked(batch)[0]):
            return []
        return ["the images differ when they are read once more from the same state"]

    def _say(self, lost: Sequence[str]) -> None:
        owner = type(getattr(self.loader, "dataset", self.loader)).__name__
        if lost and owner not in self._reported:
            self._reported.add(owner)
            rank_zero_warn(
                f"{owner} holds a state that cannot be restored after reading images to probe with, so that "
                f"a training may end differently than without probes: {lost[0]}"
            )

    def _keep(self, ids: Sequence[int], batches: Sequence[object]) -> dict[int, Tensor]:
        found, numbers = dict[int, Tensor](), iter(ids)
        for images, labels in map(unpacked, batches):
            images = self._unnormalised(images.float())
            self.shape = (images.shape[1], images.shape[2], images.shape[3])
            for place, image in enumerate(images):
                one = next(numbers)
                found[one] = _compact(image)
                self.labels[one] = labels[place] if isinstance(labels, Tensor) else labels
                size = found[one].nbytes
                if one not in self._kept and (self.bytes_kept + size <= self.room or not self._indexed()):
                    self._kept[one] = found[one]
                    self.bytes_kept += size
        return found

    def _unnormalised(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        for values, undo in ((self.std, torch.mul), (self.mean, torch.add)):
            if values is not None and len(values) != images.shape[1]:
                raise ValueError(
                    f"{counted(len(values), 'number')} of mean or std for images of "
                    f"{counted(images.shape[1], 'channel')}"
                )
            if values is not None:
                images = undo(images, torch.tensor(list(values))[:, None, None])
        return _in_range(images, self.mean)


def unpacked(batch: object) -> tuple[Tensor, Tensor | str | None]:
    """The images of a batch, and their labels: see `labels_of`."""
    if isinstance(batch, Tensor):
        return _images(batch), None
    if isinstance(batch, Mapping):
        found = [next((batch[key] for key in keys if key in batch), None) for keys in (IMAGES, LABELS)]
        if found[0] is None:
            raise ValueError(
                f"a batch with the keys {', '.join(map(str, batch))}; wanted its images under one of {IMAGES}"
            )
        return _images(found[0]), labels_of(found[1])
    if isinstance(batch, list | tuple) and batch:
        return _images(batch[0]), labels_of(batch[1] if len(batch) > 1 else None)
    raise ValueError(
        f"a batch that is a {type(batch).__name__}; wanted a tuple, a list or a dict of images and labels"
    )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _in_this_process(loader: DataLoader) -> DataLoader:
    """The same loader without worker processes, which training may be using, and which would stay alive."""
    alone = copy.copy(loader)
    options = {"num_workers": 0, "prefetch_factor": None, "persistent_workers": False, "timeout": 0}
    vars(alone).update(options, pin_memory=False, _iterator=None)
    return alone


def _until(batches: Iterator[object], count: int | None) -> Iterator[object]:
    held = 0
    while count is None or held < count:
        if (batch := next(batches, None)) is None:
            return
        held += len(unpacked(batch)[0])
        yield batch


def _images(images: object) -> Tensor:
    if not (isinstance(images, Tensor) and images.dim() == 4 and images.is_floating_point()):
        came = (
            f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        )
        remedy = "; images / 255" if isinstance(images, Tensor) and images.dtype == torch.uint8 else ""
        raise ValueError(
            f"images that are {came}; wanted floating point [n, channels, height, width]{remedy}"
        )
    return images.detach().cpu()


def _in_range(images: Float[Tensor, "n c h w"], mean: Sequence[float] | None) -> Float[Tensor, "n c h w"]:
    if wrong := int((~images.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(f"NaN or infinity in {wrong} of {counted(len(images), 'image')}")
    low, high = float(images.min()), float(images.max())
    if low < -0.01 or high > 1.01:
        remedy = "if the data are normalised, give the probe mean=, std="
        if mean:
            remedy = "are mean and std those of the data?"
        elif low >= 0 and high > 16:
            remedy = "images / 255 in the data set"
        raise ValueError(f"images reach from {low:.3g} to {high:.3g}; wanted [0, 1]; {remedy}")
    return images.clamp(0, 1)


def _compact(image: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"] | UInt8[Tensor, "c h w"]:
    """As bytes, where that is exact; a copy, which keeps no batch in memory."""
    whole = (image * 255).round()
    return whole.byte() if bool(((whole / 255) - image).abs().max() < 1e-6) else image.clone()


def spread(total: int, count: int) -> list[int]:
    """`count` places spread evenly over `total`, or all of them."""
    count = min(count, total)
    return [place * total // count for place in range(count)]
