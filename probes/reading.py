"""Outputs of layers by name, without running the layers after them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.batches import Batches, batch_size, ran_out_of_memory
from fulgurite.probes.borrow import borrowed, device_of, dtype_of
from fulgurite.probes.channels import features
from fulgurite.probes.meta import meta_copy
from fulgurite.probes.record import Seen, hooked


@contextmanager
def reading(
    network: nn.Module, layers: Iterable[str], *, counts: "Calls | None" = None
) -> Iterator[Callable[[Tensor], Seen]]:
    """Within the block, `read(images)` gives what the layers put out, and runs none after the last of them.

    What counts is a layer's last call in a pass. How many calls there are is learnt from a copy of the
    network that computes shapes alone; where that cannot be, from the first pass, which then runs in full,
    or as far as images of this size get: once each layer was read, what comes after may refuse them. A
    network whose layers are called differently from pass to pass is therefore not for this function.

    Args:
        network: maps images to logits.
        layers: by path.
        counts: what an earlier block has learnt of the same network and layers; it is added to.

    Raises:
        ValueError: as `record` does.
    """
    layers, seen, calls = sorted(layers), Seen(network), 0
    counts = Calls() if counts is None else counts
    wanted: int | None = None

    def keep(name: str, value: Tensor) -> None:
        nonlocal calls
        seen[name] = value
        calls += 1
        if calls == wanted:
            raise _EnoughError

    def read(images: Tensor) -> Seen:
        nonlocal calls, wanted
        wanted = counts.of(network, layers, images)
        calls = 0
        seen.clear()
        try:
            network(images)
            counts.every = calls
        except _EnoughError:
            pass
        except Exception as error:
            if wanted is not None or len(seen) < len(layers) or ran_out_of_memory(error):
                raise
            counts.refused[images.shape[1:]] = calls
        found = Seen(network)
        found.modules = seen.modules
        found.update(seen)
        return found

    with hooked(network, layers, (), keep) as seen.modules:
        yield read


def outputs(
    network: nn.Module, images: Float[Tensor, "n c h w"], layers: Sequence[str]
) -> dict[str, Float[Tensor, "n _ *positions"]]:
    """What layers put out for some images, not pooled, channels first, in eval mode and without a graph.

    The images go through the network as many at a time as suit its device; the outputs stay there.

    Raises:
        ValueError: as `record` does.
    """
    with borrowed(network) as net, reading(net, layers) as read, torch.no_grad():
        device = device_of(net)

        def run(rows: slice) -> list[Tensor]:
            seen = read(images[rows].to(device))
            return [features(seen, layer) for layer in layers]

        parts = [found for _, found in Batches(batch_size(images, device)).over(len(images), run)]
        return {layer: torch.cat(own) for layer, own in zip(layers, zip(*parts, strict=True), strict=True)}


class Calls:
    """How many calls of some layers there are in a pass, as far as it is known."""

    def __init__(self) -> None:
        self.every: int | None = None
        self.refused: dict[torch.Size, int] = {}  # until the network refuses images of this shape

    def of(self, network: nn.Module, layers: Sequence[str], images: Tensor) -> int | None:
        """As many as in a pass of these images; None if only a pass can tell."""
        if self.every is None and "" not in layers and images.shape[1:] not in self.refused:
            self.every = _counted(network, layers, images)
        return self.refused.get(images.shape[1:], self.every)


class _EnoughError(Exception):
    pass


def _counted(network: nn.Module, layers: Sequence[str], images: Tensor) -> int | None:
    """How many calls of these layers there are in a pass, from shapes alone; None if those cannot tell."""
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
    except Exception:  # each network fails in its own way; a pass of the images themselves will tell
        return None
    return calls.total() if all(calls[name] for name in layers) else None
