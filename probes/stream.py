"""Features, or values of objectives, of every image of a data set, batch by batch; nothing is kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from fulgurite.probes.batches import Batches
from fulgurite.probes.borrow import borrowed, device_of
from fulgurite.probes.channels import features
from fulgurite.probes.indexed_images import Data, Examples, indexed, numbered
from fulgurite.probes.objectives import Asked, Objective, layers_read, pooled
from fulgurite.probes.reading import Calls, reading
from fulgurite.probes.record import bare, layer_of

Values = Mapping[str, Tensor] | Float[Tensor, "m"] | Float[Tensor, "k m"]


@dataclass(frozen=True)
class Batch:
    """Some images' ids and values, on the network's device; `for ids, values in stream(...)` unpacks them.

    `labels` are the numbers of their classes, where the data have any.
    """

    ids: Int[Tensor, "m"]
    values: Values
    labels: Int[Tensor, "m"] | None

    def __iter__(self) -> Iterator:
        return iter((self.ids, self.values))


def stream(
    network: nn.Module,
    data: Data,
    asked: Sequence[str] | Objective | Sequence[Objective],
    *,
    reduce: Callable[[Tensor], Tensor] | None = pooled,
    ids: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: str | None = None,
) -> Iterator[Batch]:
    """What layers put out for every image, or what objectives say of it, batch by batch, in eval mode.

    The network is borrowed for each batch, and is as it was whenever one is handed over; it runs no deeper
    than it must. Images that it cannot take together for lack of memory, it takes a few at a time.

    Args:
        network: maps images in [0, 1] to logits.
        data: a data set, a DataLoader, images, images and labels, or whatever yields batches: see `numbered`.
        asked: layers, by path, or one objective, or several.
        reduce: what is made of a layer's output, channels first, batch by batch; averaged over positions
            unless told, and left as it is by None. Objectives are numbers already.
        ids: which images of a data set, or what the images of batches are called: see `numbered`. Processes
            that share a data set each give their share, `range(rank, len(data), ranks)`.
        batch_size: how many images at a time; as many as suit the device without it.
        progress: a label for a progress bar; none without it.

    Yields:
        ids [m] and values: tensors [m, ...] by layer; for an objective, a tensor [m]; for several, or one
        that is vector-valued, [k, m]. At
        least in float32, without a graph.

    Raises:
        ValueError: no such layer, nothing is asked, an objective of each image's own where the number of
            images is unknown, or as `numbered` says.
    """
    layers, question = _split(network, asked)
    objectives = [] if question is None else [question] if isinstance(question, Objective) else [*question]
    if coupled := [one.name for one in objectives if one.couples]:
        raise ValueError(f"{coupled[0]} couples the images of a batch; wanted objectives that do not")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; wanted at least 1")
    dataset, _ = indexed(data)
    total = len(dataset) if isinstance(dataset, Sized) else None
    if total is None and any(objective.each is not None for objective in objectives):
        raise ValueError("an objective of each image's own asks for a data set; what came yields batches")

    def values(seen: Mapping[str, Tensor], ids: Tensor) -> list[Tensor]:
        if objectives:
            return [torch.cat([_value(one.of(ids, total or 0), seen, ids) for one in objectives], 1)]
        return [
            features(seen, layer) if reduce is None else reduce(features(seen, layer)) for layer in layers
        ]

    device = device_of(bare(network))
    examples = numbered(data, ids, device=device, size=batch_size)
    return _streamed(network, examples, layers, values, question, progress)


def _streamed(
    network: nn.Module,
    examples: Iterable[Examples],
    layers: Sequence[str],
    values: Callable[[Mapping[str, Tensor], Tensor], list[Tensor]],
    asked: Asked | None,
    progress: str | None,
) -> Iterator[Batch]:
    calls, batches = Calls(), None
    for ids, images, labels in tqdm(examples, progress, disable=progress is None, delay=3, leave=False):
        batches = batches or Batches(len(images))
        # for each batch: whoever gets one may do what they like, and need not ask for the next
        with borrowed(network) as net, reading(net, layers, counts=calls) as read, torch.no_grad():
            device = device_of(net)
            ids = ids.to(device)
            run = lambda rows: values(read(images[rows].to(device)), ids[rows])  # noqa: E731, B023
            parts = [part for _, part in batches.over(len(images), run)]
            joined = [torch.cat(own) for own in zip(*parts, strict=True)]
        labels = None if labels is None else labels.to(device)
        if asked is None:
            yield Batch(ids, dict(zip(layers, joined, strict=True)), labels)
        else:
            one = isinstance(asked, Objective) and not asked.vector
            yield Batch(ids, joined[0][:, 0] if one else joined[0].T, labels)


def _split(
    network: nn.Module, asked: Sequence[str] | Objective | Sequence[Objective]
) -> tuple[list[str], Asked | None]:
    """The layers to read, and the objectives, if it is objectives that were asked for."""
    if isinstance(asked, Objective):
        return layers_read(asked), asked
    layers = [one for one in asked if isinstance(one, str)]
    objectives = [one for one in asked if isinstance(one, Objective)]
    if isinstance(asked, str) or bool(layers) == bool(objectives) or len(layers + objectives) != len(asked):
        raise ValueError(f"{asked!r} asked for; wanted layers by path, such as ['layer3'], or objectives")
    for layer in layers:
        layer_of(network, layer)
    return (layers_read(objectives), objectives) if objectives else ([*dict.fromkeys(layers)], None)


def _value(objective: Objective, seen: Mapping[str, Tensor], ids: Tensor) -> Float[Tensor, "m k"]:
    value = objective.value(seen)
    if value.shape[:1] != ids.shape or value.dim() != 1 + objective.vector:
        raise ValueError(
            f"wanted a number for each of {len(ids)} images, the objective gave {tuple(value.shape)}"
        )
    return value if objective.vector else value[:, None]
