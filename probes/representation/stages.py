"""Pooled features of every stage of a network, in one pass."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.batches import batch_size
from fulgurite.probes.channels import channels_first
from fulgurite.probes.feature_extractor import feature_extractor, takes
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.objectives import pooled
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.record import layer_of
from fulgurite.probes.representation.cache import Pass, drop_cached, gathered, load_cached, write_cached
from fulgurite.probes.representation.fingerprint import (
    DataFingerprint,
    fingerprint,
    fingerprint_data,
    unchanged,
)
from fulgurite.probes.representation.image_batches import Data, in_order
from fulgurite.probes.stages import stages as read_off
from fulgurite.probes.trace import trace

IN_MEMORY = 2**29  # bytes of features; more are mapped from a temporary file


@dataclass(frozen=True)
class Features:
    """Features of the images of a data set, by layer, and the images' labels.

    `features[rows]` are those of some of the images.
    """

    of: Mapping[str, Float[Tensor, "n _"]]
    labels: Int[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Int[Tensor, "m"] | Bool[Tensor, "n"] | slice) -> "Features":
        return Features({layer: values[rows] for layer, values in self.of.items()}, self.labels[rows])


def features(
    network: nn.Module,
    data: Data,
    layers: Sequence[str] | None = None,
    *,
    grid: int = 1,
    dtype: torch.dtype = torch.float32,
    cache: Path | None = None,
    progress: str | None = None,
) -> Features:
    """Pooled features of the layers for every image, from one forward pass for all of them, in eval mode.

    Above half a gigabyte they are written to a temporary file as they come and mapped into memory.

    Args:
        network: maps images to logits.
        data: a DataLoader, a pair of images and labels, or an iterable of such pairs. A DataLoader's data set
            is read in order and to its end, even if the loader shuffles.
        layers: by path; the network's `stages` without it.
        grid: maps are averaged over the cells of a grid of this many rows and columns.
        dtype: what the features are kept in.
        cache: a folder to keep them in. The same images, labels, network and options find them there, mapped
            into memory. To recognise them, every image is decoded, and some go through the network: see
            `fingerprint`. If the cache is out of date, it is rebuilt, with a warning. The folder can be
            deleted at any time.
        progress: a label for a progress bar; none without it.

    Raises:
        ValueError: no images, data without labels, or with a cache, data that give another image each time.
    """
    if layers is not None and (isinstance(layers, str) or not layers):
        raise ValueError(f"layers={layers!r}; wanted a list of their paths, or None for the stages")
    if grid < 1:
        raise ValueError(f"grid={grid}; wanted rows and columns, at least 1")
    if dtype not in (torch.float16, torch.float32, torch.float64):
        raise ValueError(f"dtype={dtype}; wanted torch.float16, float32 or float64")
    for layer in layers or ():
        layer_of(network, layer)
    if cache is None:
        with _passes(network, in_order(data), layers, grid, dtype, progress) as passes:
            return Features(*gathered(passes, most=IN_MEMORY))
    data_fingerprint = fingerprint_data(data, progress=progress and f"{progress}: images")
    layers = layers or stages(network, data_fingerprint.examples.to(device_of(network)))
    key = fingerprint(network, data_fingerprint, layers, grid=grid, dtype=dtype)
    cached = load_cached(cache, key)
    if cached is not None and (odd := _changed(network, data_fingerprint, cached, grid, dtype)):
        warnings.warn(
            f"{odd[0]} outputs other features now than are in {cache}, for images that the fingerprint does "
            "not look at; they are rebuilt",
            stacklevel=2,
        )
        drop_cached(cache, key)
        cached = None
    if cached is None:
        with _passes(network, unchanged(data, data_fingerprint), layers, grid, dtype, progress) as passes:
            cached = write_cached(cache, key, passes)
    return Features(*cached)


def image_features(
    network: nn.Module, images: Float[Tensor, "n c h w"], layers: Sequence[str], *, grid: int = 1
) -> dict[str, Float[Tensor, "n _"]]:
    """Pooled features of the layers for these images, on the CPU, in batches that fit the device."""
    labels = torch.zeros(len(images), dtype=torch.long)
    return dict(features(network, (images, labels), layers, grid=grid).of)


def gridded(out: Tensor, grid: int) -> Float[Tensor, "n _"]:
    """A layer's output, channels first; maps averaged over the cells of a grid, tokens over all."""
    if grid == 1 or out.dim() != 4:
        return pooled(out)
    return F.adaptive_avg_pool2d(out, grid).flatten(1)


def stages(network: nn.Module, images: Float[Tensor, "n c h w"], *, max_stages: int = 8) -> list[str]:
    """The layers where a stage ends, from the stem to the last one before the classifier, as they run.

    Args:
        network: maps images to logits.
        images: of the size to be looked at; the first one is.
        max_stages: how many, at most.

    Raises:
        ValueError: the network has no linear layer and no convolution, or none but the classifier; or it
            cannot take images of this size.
    """
    with takes(network, images):
        return read_off(trace(network, images[:1]), max_stages=max_stages)


@contextmanager
def _passes(
    network: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    layers: Sequence[str] | None,
    grid: int,
    dtype: torch.dtype,
    progress: str | None,
) -> Iterator[Iterator[Pass]]:
    """Within the block, the network is in `frozen_eval` and the batches go through it."""
    with frozen_eval(network) as net, torch.no_grad(), ExitStack() as stack:
        torch.manual_seed(0)
        device = device_of(net)

        def maps(name: str, out: Tensor) -> Tensor:
            return channels_first(out, layer_of(net, name)).float()

        def passes() -> Iterator[Pass]:
            extract, chosen_layers = None, layers
            for images, labels in progress_bar(batches, progress, unit="batch"):
                chosen_layers = chosen_layers or stages(net, images.to(device))
                extract = extract or stack.enter_context(feature_extractor(net, chosen_layers))
                size = batch_size(images, device)
                for part, part_labels in zip(images.split(size), labels.split(size), strict=True):
                    outputs = extract(part.to(device))
                    yield (
                        {
                            name: gridded(maps(name, outputs[name]), grid).to("cpu", dtype)
                            for name in chosen_layers
                        },
                        part_labels,
                    )

        yield passes()


def _changed(
    network: nn.Module, data_fingerprint: DataFingerprint, cached: Pass, grid: int, dtype: torch.dtype
) -> list[str]:
    """The layers whose features of the drawn images differ from the cached ones by more than rounding."""
    images, rows = data_fingerprint.drawn, torch.tensor(data_fingerprint.places)
    labels = torch.zeros(len(images), dtype=torch.long)
    with _passes(network, iter([(images, labels)]), [*cached[0]], grid, dtype, None) as passes:
        now, _ = gathered(passes, most=IN_MEMORY)
    changed = []
    for layer, values in now.items():
        kept = cached[0][layer][rows]
        size = float(kept.float().abs().nan_to_num(0, 0, 0).max())
        if not torch.allclose(values.float(), kept.float(), rtol=1e-2, atol=1e-3 * size, equal_nan=True):
            changed.append(layer)
    return changed
