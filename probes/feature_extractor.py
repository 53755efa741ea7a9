"""Outputs of layers by name, without running the layers after them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.batches import Batches, batch_size, ran_out_of_memory
from fulgurite.probes.channels import features
from fulgurite.probes.frozen_eval import device_of, dtype_of, frozen_eval
from fulgurite.probes.meta_copy import meta_copy
from fulgurite.probes.record import LayerOutputs, hooked


@contextmanager
def feature_extractor(
    network: nn.Module, layers: Iterable[str], *, counts: "Calls | None" = None
) -> Iterator[Callable[[Tensor], LayerOutputs]]:
    """Within the block, `extract(images)` gives the outputs of the layers, and runs no layer after the last.

    The output is that of a layer's last call in a pass. The number of calls is found on a copy of the network
    that computes shapes alone; where that fails, on the first pass, which then runs in full, or until a later
    layer refuses images of this size. A network whose number of calls changes from pass to pass is not
    supported.

    Args:
        network: maps images to logits.
        layers: by path.
        counts: the number of calls, from an earlier block with the same network and layers; it is updated.

    Raises:
        ValueError: as `record` does.
    """
    layers, latest, calls = sorted(layers), LayerOutputs(network), 0
    counts = Calls() if counts is None else counts
    expected_calls: int | None = None

    def store(name: str, value: Tensor) -> None:
        nonlocal calls
        latest[name] = value
        calls += 1
        if calls == expected_calls:
            raise _EnoughError

    def extract(images: Tensor) -> LayerOutputs:
        nonlocal calls, expected_calls
        expected_calls = counts.of(network, layers, images)
        calls = 0
        latest.clear()
        try:
            network(images)
            counts.every = calls
        except _EnoughError:
            pass
        except Exception as error:
            if expected_calls is not None or len(latest) < len(layers) or ran_out_of_memory(error):
                raise
            counts.refused[images.shape[1:]] = calls
        result = LayerOutputs(network)
        result.modules = latest.modules
        result.update(latest)
        return result

    with hooked(network, layers, (), store) as latest.modules:
        yield extract


def outputs(
    network: nn.Module, images: Float[Tensor, "n c h w"], layers: Sequence[str]
) -> dict[str, Float[Tensor, "n _ *positions"]]:
    """The outputs of layers for some images, not pooled, channels first, in eval mode and without a graph.

    The images go through the network as many at a time as suit its device; the outputs stay there.

    Raises:
        ValueError: as `record` does, there are no images, or the network cannot take images of this size.
    """
    if not len(images):
        raise ValueError("no images; the batch is empty")
    with (
        takes(network, images),
        frozen_eval(network) as net,
        feature_extractor(net, layers) as extract,
        torch.no_grad(),
    ):
        device = device_of(net)

        def run(rows: slice) -> list[Tensor]:
            extracted = extract(images[rows].to(device))
            return [features(extracted, layer) for layer in layers]

        parts = [values for _, values in Batches(batch_size(images, device)).over(len(images), run)]
        return {layer: torch.cat(own) for layer, own in zip(layers, zip(*parts, strict=True), strict=True)}


@contextmanager
def takes(network: nn.Module, images: Float[Tensor, "n c h w"]) -> Iterator[None]:
    """Within the block, a pass that fails for the size of these images raises a one-line error.

    Raises:
        ValueError: torch has raised an error in it, other than out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if ran_out_of_memory(error):
            raise
        shape, line = " x ".join(map(str, images.shape[1:])), next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"{type(network).__name__} cannot take {shape}: {line}; wanted images of a size that it takes"
        ) from error


class Calls:
    """The number of calls of some layers in a pass, as far as it is known."""

    def __init__(self) -> None:
        self.every: int | None = None
        self.refused: dict[torch.Size, int] = {}  # until the network refuses images of this shape

    def of(self, network: nn.Module, layers: Sequence[str], images: Tensor) -> int | None:
        """The number for a pass of these images; None if only a pass can show it."""
        if self.every is None and "" not in layers and images.shape[1:] not in self.refused:
            self.every = _counted(network, layers, images)
        return self.refused.get(images.shape[1:], self.every)


class _EnoughError(Exception):
    pass


def _counted(network: nn.Module, layers: Sequence[str], images: Tensor) -> int | None:
    """The number of calls of these layers in a pass, from shapes alone; None if they are not enough."""
    calls = Counter[str]()
    try:
        # hooks would see tensors without values; those that compute what the network needs make this fail
        shapes = meta_copy(network)
        for module in shapes.modules():
            module._forward_pre_hooks.clear()
            module._forward_hooks.clear()
        count = hooked(shapes, layers, (), lambda name, _: calls.update([name]))
        with count, torch.no_grad(), torch.random.fork_rng([]):
            shapes(torch.empty_like(images, device="meta", dtype=dtype_of(network)))
    except Exception:  # networks fail in many ways; a pass of the images themselves will show it
        return None
    return calls.total() if all(calls[name] for name in layers) else None
