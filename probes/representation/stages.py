"""The stages of a network, and what each makes of images: one pass for all of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from fulgurite.probes.attribution.copies import at_once
from fulgurite.probes.borrow import borrowed, device_of
from fulgurite.probes.objectives import pooled
from fulgurite.probes.reading import reading
from fulgurite.probes.record import layer_of, layers_of
from fulgurite.probes.representation.batches import Data, in_order
from fulgurite.probes.representation.cache import Pass, kept, written
from fulgurite.probes.representation.fingerprint import fingerprint, fingerprint_data, unchanged

# none of them ends a stage: they make nothing new
_PASSING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity, nn.Flatten)
_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class Features:
    """What layers make of the images of a data set, by layer, and the images' labels.

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
    """What the layers make of every image, from one forward pass for all of them, in eval mode.

    Args:
        network: maps images to logits.
        data: a DataLoader, a pair of images and labels, or whatever yields such pairs. A DataLoader's data
            set is read in order and to its end, however the loader shuffles.
        layers: by path; the network's `stages` without it.
        grid: maps are averaged over the cells of a grid of so many rows and columns.
        dtype: what the features are kept in.
        cache: a folder to keep them in. The same images, labels, network and wishes find them there, mapped
            into memory. To know them again, every image is decoded, and some go through the network: see
            `fingerprint`. There is no harm in deleting the folder.
        progress: what to call a bar of progress; none without it.

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
            return Features(*_joined(passes))
    known = fingerprint_data(data, progress=progress and f"{progress}: images")
    layers = layers or stages(network, known.examples.to(device_of(network)))
    key = fingerprint(network, known, layers, grid=grid, dtype=dtype)
    if (found := kept(cache, key)) is None:
        with _passes(network, unchanged(data, known), layers, grid, dtype, progress) as passes:
            found = written(cache, key, passes)
    return Features(*found)


def seen_by(
    network: nn.Module, images: Float[Tensor, "n c h w"], layers: Sequence[str], *, grid: int = 1
) -> dict[str, Float[Tensor, "n _"]]:
    """What the layers make of these images, on the CPU; the network takes so many at a time as suit it."""
    labels = torch.zeros(len(images), dtype=torch.long)
    return dict(features(network, (images, labels), layers, grid=grid).of)


def gridded(out: Tensor, grid: int) -> Float[Tensor, "n _"]:
    """What a layer puts out, maps averaged over the cells of a grid."""
    if grid == 1 or out.dim() != 4:
        return pooled(out)
    return F.adaptive_avg_pool2d(out, grid).flatten(1)


def stages(network: nn.Module, images: Float[Tensor, "n c h w"], *, most: int = 8) -> list[str]:
    """The layers where a stage ends, from the stem to the last one before the classifier, as they run.

    A stage is a part with weights, together with the normalisation and the activation that follow it; parts
    are looked into where they hold the classifier or halve the maps twice. Where there are more than `most`,
    a stage is all that runs at one size of the maps.

    Args:
        network: maps images to logits.
        images: of the size to be looked at; the first one is.
        most: how many, at most.

    Raises:
        ValueError: the network has no linear layer and no convolution, or none but the classifier.
    """
    with borrowed(network) as net:
        calls = _calls(net, images[:1])
        runs = _runs(net, calls, images.shape[2] * images.shape[3])
    if not runs:
        raise ValueError(
            f"{type(network).__name__} has no stage before its classifier: name the layers yourself"
        )
    if len(runs) > most:
        # the last of each size; layers without positions stay as they are
        ends = [run for run, after in zip(runs, [*runs[1:], None], strict=True) if _ends(run, after)]
        runs = ends if len(ends) > 2 else runs
    if len(runs) > most:
        runs = [runs[round((place + 1) * len(runs) / most) - 1] for place in range(most)]
    return [run.name for run in runs]


@dataclass
class _Run:
    """Calls from one with weights to the last that only normalises or activates: their size, and the last."""

    size: int | None
    name: str


def _calls(network: nn.Module, image: Float[Tensor, "1 c h w"]) -> list[tuple[str, torch.Size | None]]:
    """Every call in a pass, in the order in which they end: the path, and the shape of what it put out."""
    calls = list[tuple[str, torch.Size | None]]()

    def leave(name: str, _: nn.Module, __: object, out: object) -> None:
        shape = out.shape if isinstance(out, Tensor) and out.dim() > 1 and len(out) == len(image) else None
        calls.append((name, shape))

    with ExitStack() as hooks, torch.no_grad():
        for name, module in layers_of(network).items():
            hooks.callback(module.register_forward_hook(partial(leave, name)).remove)
        network(image)
    return calls


def _runs(network: nn.Module, calls: Sequence[tuple[str, torch.Size | None]], area: int) -> list[_Run]:
    parts, names = layers_of(network), [name for name, _ in calls]
    heads = [place for place, name in enumerate(names) if isinstance(parts[name], nn.Linear | nn.Conv2d)]
    if not heads:
        raise ValueError(
            f"{type(network).__name__} has no linear layer and no convolution: name the layers yourself"
        )
    head = names[heads[-1]]
    inner = {
        name
        for name, part in parts.items()
        if name not in names or (name != head and _is_row(name, part, head, calls, area))
    }
    runs = list[_Run]()
    for name, shape in calls[: heads[-1]]:
        part = parts[name]
        if shape is None or names.count(name) > 1 or isinstance(part, _PASSING + _POOLING):
            continue
        if not inner.issuperset(_holders(name)):
            continue
        size = _halvings(shape, area)
        if name not in inner and any(weight.dim() > 1 for weight in part.parameters()):
            runs.append(_Run(size, name))
        elif runs and runs[-1].size == size:
            runs[-1].name = name
    return runs


def _is_row(
    name: str, part: nn.Module, head: str, calls: Sequence[tuple[str, torch.Size | None]], area: int
) -> bool:
    """Whether a part is a row of stages, not one of them."""
    if type(part) is nn.Sequential or name == "" or head.startswith(f"{name}."):
        return True
    if dict(calls)[name] is None:
        return False  # branches, which its parts may run in any order
    convolutions = {
        f"{name}.{path}" for path, inner in layers_of(part).items() if isinstance(inner, nn.Conv2d)
    }
    maps = [shape for path, shape in calls if path in convolutions and shape and shape[2:].numel() > 1]
    return len({_halvings(shape, area) for shape in maps}) > 2


def _holders(name: str) -> Iterator[str]:
    while name:
        name = name.rpartition(".")[0]
        yield name


def _halvings(shape: torch.Size, area: int) -> int | None:
    """How often the sides of the image have been halved, about; None for what has no positions."""
    return round(math.log2(area / shape[2:].numel()) / 2) if len(shape) == 4 else None


def _ends(run: _Run, after: _Run | None) -> bool:
    return after is None or run.size is None or run.size != after.size


@contextmanager
def _passes(
    network: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    layers: Sequence[str] | None,
    grid: int,
    dtype: torch.dtype,
    progress: str | None,
) -> Iterator[Iterator[Pass]]:
    """Within the block, the network is borrowed and the batches go through it."""
    with borrowed(network) as net, torch.no_grad(), ExitStack() as stack:
        torch.manual_seed(0)
        device = device_of(net)

        def passes() -> Iterator[Pass]:
            read, wanted = None, layers
            for images, labels in tqdm(batches, progress, disable=progress is None, delay=3, leave=False):
                wanted = wanted or stages(net, images.to(device))
                read = read or stack.enter_context(reading(net, wanted))
                # a CPU is quicker with few images at once than with a whole batch
                size = at_once(images) if device.type == "cpu" else len(images)
                for part, theirs in zip(images.split(size), labels.split(size), strict=True):
                    seen = read(part.to(device))
                    yield (
                        {name: gridded(seen[name].float(), grid).to("cpu", dtype) for name in wanted},
                        theirs,
                    )

        yield passes()


def _joined(passes: Iterator[Pass]) -> tuple[dict[str, Tensor], Tensor]:
    held = list(passes)
    if not held:
        raise ValueError("no images to take features of; wanted at least one batch")
    every = {name: torch.cat([seen[name] for seen, _ in held]) for name in held[0][0]}
    return every, torch.cat([labels for _, labels in held])
