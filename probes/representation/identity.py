"""What features were made from, to the last bit: a network, its weights, and data as they come out."""

import hashlib
import inspect
import io
import json
import os
import pickle
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from fulgurite.probes.borrow import same_randomness
from fulgurite.probes.record import bare, layers_of

Data = DataLoader | Dataset | tuple[Tensor, Tensor] | Iterable[Any]

_FORM = 1  # of what is kept under a key; another form is another key
_AT_ONCE = 64
_ITEMS = 16
_PASSING = {"training", "_is_torch_compile", "_is_full_backward_hook"}  # changes no answer in eval mode


def key_of(network: nn.Module, data: Data, wishes: Mapping[str, object]) -> str:
    """One word for a network with its weights and code, data with all that is done to them, and wishes.

    A data set is known by what its pickle would hold (tensors, transforms, names of files and their sizes and
    times) and by sixteen of its items; where that may not be all, each of its images is read.

    Raises:
        ValueError: the data give another image each time they are asked, or can be read only once.
    """
    made_from = {
        "form": _FORM,
        "torch": torch.__version__,
        "network": _network(network),
        "data": _data(data),
        **wishes,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]


def in_order(data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels, batch by batch; of a data set, or a DataLoader over one, every image once, in order.

    Raises:
        ValueError: a batch is no pair of images and labels.
    """
    pair = _as_pair(data)
    batches = _loader(data) if pair is None else zip(*(part.split(_AT_ONCE) for part in pair), strict=True)
    for batch in batches:
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


def _network(network: nn.Module) -> str:
    digest = hashlib.sha256(_without_places(bare(network)))
    codes = dict[type, str]()
    for name, module in layers_of(network).items():
        own = {key: value for key, value in vars(module).items() if key not in _PASSING and _is_plain(value)}
        hooked = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        hooks = [getattr(hook, "__qualname__", type(hook)) for hook in hooked]
        if type(module) not in codes:
            codes[type(module)] = _code_of(type(module))
        digest.update(_without_places((name, own, hooks, codes[type(module)])))
    digest.update(weights_hash(network).encode())
    return digest.hexdigest()


def weights_hash(network: nn.Module) -> str:
    """A hash of all parameters and buffers, each by its name."""
    digest = hashlib.sha256()
    for name, tensor in [*bare(network).named_parameters(), *bare(network).named_buffers()]:
        digest.update(f"{name.replace('_orig_mod.', '')} {_tensor(tensor)}".encode())
    return digest.hexdigest()


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str | torch.dtype | None)


def _without_places(thing: object) -> bytes:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing)).encode()


def _code_of(kind: type) -> str:
    """What the functions of a class do, and of those it is made from: they may be edited."""
    digest = hashlib.sha256()
    for base in kind.__mro__:
        functions = {name: part for name, part in vars(base).items() if inspect.isfunction(part)}
        for name, function in functions.items() if base not in nn.Module.__mro__ else ():
            digest.update(f"{base.__qualname__}.{name}".encode())
            digest.update(_words(inspect.unwrap(function).__code__))
    return digest.hexdigest()


def _words(code: CodeType) -> bytes:
    """What a function does, without where it stands in its file."""
    told = [code.co_code, repr(code.co_names).encode()]
    for value in code.co_consts:
        if isinstance(value, CodeType):
            told.append(_words(value))
        else:
            told.append(_without_places(sorted(map(repr, value)) if isinstance(value, frozenset) else value))
    return b" ".join(told)


def _data(data: Data) -> str:
    if (pair := _as_pair(data)) is not None:
        return " ".join(map(_tensor, pair))
    if isinstance(data, Iterator):
        raise ValueError(
            "data that can be read only once cannot be known again; give a DataLoader, or no cache"
        )
    with same_randomness(torch.device("cpu")):
        loader = _loader(data)
        if not (isinstance(loader, DataLoader) and _is_whole(loader)):
            return _all_of(data)
        dataset: Any = loader.dataset
        places = sorted({place * len(dataset) // _ITEMS for place in range(_ITEMS)} if len(dataset) else ())
        items = [_item(dataset, place, seed=0) for place in places]
        if [_item(dataset, place, seed=1) for place in places[:4]] != items[:4]:
            raise ValueError(
                "the data give another image each time they are asked, as augmentation does; features can be "
                "kept only of images as they are: turn it off, or give no cache"
            )
        pickled = _pickled((dataset, loader.collate_fn), len(dataset))
        return _all_of(data) if pickled is None else " ".join([pickled, *items])


def _all_of(data: Data) -> str:
    torch.manual_seed(0)
    digest = hashlib.sha256()
    for images, labels in in_order(data):
        for image, label in zip(images, labels, strict=True):
            digest.update(f"{_tensor(image)} {int(label)}".encode())
    return digest.hexdigest()


def _item(dataset: Any, place: int, *, seed: int) -> str:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what other people's augmentation draws from
    random.seed(seed)
    parts = dataset[place]
    parts = parts if isinstance(parts, tuple | list) else [parts]
    return " ".join(_tensor(part) if isinstance(part, Tensor) else repr(part) for part in parts)


def _pickled(dataset: object, count: int) -> str | None:
    """A hash of a data set's pickle; None if that has no file and no row of numbers for each image."""
    file = io.BytesIO()
    pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
    try:
        pickler.dump(dataset)
    except Exception:  # each refuses in its own way; the images themselves will do
        return None
    if len(pickler.files) < count and pickler.numbers < _ITEMS * count:
        return None
    return hashlib.sha256(file.getvalue()).hexdigest()


class _Pickler(pickle.Pickler):
    """Has hashes stand for tensors, and sizes and times beside the names of files."""

    def __init__(self, *where: Any):
        super().__init__(*where)
        self.files, self.numbers = set[str](), 0

    def persistent_id(self, obj: object) -> str | None:
        if isinstance(obj, np.ndarray) and not obj.dtype.hasobject:
            bytes_ = torch.from_numpy(np.frombuffer(bytearray(obj.tobytes()), np.uint8))
            self.numbers = max(self.numbers, obj.size if obj.ndim > 1 else 0)
            return f"{obj.dtype} {obj.shape} {_tensor(bytes_)}"
        if isinstance(obj, Tensor):
            # labels are one number for each image, and tell nothing of it
            self.numbers = max(self.numbers, obj.numel() if obj.dim() > 1 else 0)
            return _tensor(obj)
        if not isinstance(obj, str | Path) or not os.path.isfile(obj):  # noqa: PTH113 - of any string
            return None
        self.files.add(str(obj))
        stat = Path(obj).stat()
        return f"{obj} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _tensor(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(values.data).hexdigest()}"


def _as_pair(data: Data) -> tuple[Tensor, Tensor] | None:
    if isinstance(data, tuple) and len(data) == 2:
        images, labels = data
        if isinstance(images, Tensor) and isinstance(labels, Tensor):
            return images, labels
    return None


def _loader(data: Data) -> Iterable:
    """A loader over the same data set that gives every item once and in order, where there can be one."""
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
    """Whether it goes through a data set by index, and leaves out nothing but what other processes have."""
    sampler = loader.sampler
    usual = isinstance(sampler, SequentialSampler | DistributedSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement
    )
    sized = isinstance(loader.dataset, Sized) and not isinstance(loader.dataset, IterableDataset)
    return usual and sized and loader.batch_size is not None
