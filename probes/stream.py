"""Features, or values of objectives, of every image of a data set, batch by batch; nothing is kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.batches import Batches
from fulgurite.probes.channels import features
from fulgurite.probes.feature_extractor import Calls, feature_extractor
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.indexed_images import Data, Examples, indexed, numbered
from fulgurite.probes.objectives import Objective, Objectives, layers_read, pooled
from fulgurite.probes.progress import progress_bar
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
    outputs: Sequence[str] | Objective | Sequence[Objective],
    *,
    reduce: Callable[[Tensor], Tensor] | None = pooled,
    ids: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: str | None = None,
) -> Iterator[Batch]:
    """Outputs of layers, or values of objectives, for every image, batch by batch, in eval mode.

    The network is in `frozen_eval` for each batch, and restored before it is yielded; it runs no deeper than
    needed. When memory runs out, batches are made smaller.

    Args:
        network: maps images in [0, 1] to logits.
        data: a data set, a DataLoader, images, images and labels, or an iterable of batches: see
            `numbered`.
        outputs: layers by path, or one objective, or several.
        reduce: applied to a layer's output, channels first, batch by batch; by default the average over
            positions, None for no reduction. Not used for objectives.
        ids: which images of a data set, or the ids of the images in batches: see `numbered`. Processes that
            share a data set each give their share, `range(rank, len(data), ranks)`.
        batch_size: how many images at a time; as many as suit the device without it.
        progress: a label for a progress bar; none without it.

    Yields:
        ids [m] and values: tensors [m, ...] by layer; for an objective, a tensor [m]; for several, or one
        that is vector-valued, [k, m]. At
        least in float32, without a graph.

    Raises:
        ValueError: no such layer, no outputs, an objective that differs by image where the number of images
            is unknown, or as `numbered` says.
    """
    layers, requested = _split(network, outputs)
    objectives = (
        [] if requested is None else [requested] if isinstance(requested, Objective) else [*requested]
    )
    if coupled := [one.name for one in objectives if one.couples]:
        raise ValueError(f"{coupled[0]} couples the images of a batch; wanted objectives that do not")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; wanted at least 1")
    dataset, _ = indexed(data)
    total = len(dataset) if isinstance(dataset, Sized) else None
    if total is None and any(objective.each is not None for objective in objectives):
        raise ValueError("an objective that differs by image needs a data set, not an iterable of batches")

    def values(outputs_by_layer: Mapping[str, Tensor], ids: Tensor) -> list[Tensor]:
        if objectives:
            return [
                torch.cat([_value(one.of(ids, total or 0), outputs_by_layer, ids) for one in objectives], 1)
            ]
        return [
            features(outputs_by_layer, layer) if reduce is None else reduce(features(outputs_by_layer, layer))
            for layer in layers
        ]

    device = device_of(bare(network))
    examples = numbered(data, ids, device=device, size=batch_size)
    return _streamed(network, examples, layers, values, requested, progress)


def _streamed(
    network: nn.Module,
    examples: Iterable[Examples],
    layers: Sequence[str],
    values: Callable[[Mapping[str, Tensor], Tensor], list[Tensor]],
    requested: Objectives | None,
    progress: str | None,
) -> Iterator[Batch]:
    calls, batches = Calls(), None
    for ids, images, labels in progress_bar(examples, progress, unit="batch"):
        batches = batches or Batches(len(images))
        # for each batch: the caller may use the network in between, and need not ask for the next
        with (
            frozen_eval(network) as net,
            feature_extractor(net, layers, counts=calls) as extract,
            torch.no_grad(),
        ):
            device = device_of(net)
            ids = ids.to(device)
            run = lambda rows: values(extract(images[rows].to(device)), ids[rows])  # noqa: E731, B023
            parts = [part for _, part in batches.over(len(images), run)]
            joined = [torch.cat(own) for own in zip(*parts, strict=True)]
        labels = None if labels is None else labels.to(device)
        if requested is None:
            yield Batch(ids, dict(zip(layers, joined, strict=True)), labels)
        else:
            one = isinstance(requested, Objective) and not requested.vector
            yield Batch(ids, joined[0][:, 0] if one else joined[0].T, labels)


def _split(
    network: nn.Module, outputs: Sequence[str] | Objective | Sequence[Objective]
) -> tuple[list[str], Objectives | None]:
    """The layers to read, and the objectives, if `outputs` are objectives."""
    if isinstance(outputs, Objective):
        return layers_read(outputs), outputs
    layers = [one for one in outputs if isinstance(one, str)]
    objectives = [one for one in outputs if isinstance(one, Objective)]
    if (
        isinstance(outputs, str)
        or bool(layers) == bool(objectives)
        or len(layers + objectives) != len(outputs)
    ):
        raise ValueError(f"outputs={outputs!r}; wanted layers by path, such as ['layer3'], or objectives")
    for layer in layers:
        layer_of(network, layer)
    return (layers_read(objectives), objectives) if objectives else ([*dict.fromkeys(layers)], None)


def _value(objective: Objective, outputs_by_layer: Mapping[str, Tensor], ids: Tensor) -> Float[Tensor, "m k"]:
    value = objective.value(outputs_by_layer)
    if value.shape[:1] != ids.shape or value.dim() != 1 + objective.vector:
        raise ValueError(
            f"wanted a number for each of {len(ids)} images, the objective gave {tuple(value.shape)}"
        )
    return value if objective.vector else value[:, None]
