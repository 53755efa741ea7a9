"""Batch size by caches on a CPU and by free memory on a GPU, halved when memory runs out."""

import gc
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

T = TypeVar("T")

PIXELS = 6 * 224 * 224  # of a batch that keeps two cores busy and fits into their caches
MOST = 32
BYTES = 4096  # a pixel takes in a forward and a backward pass, in most networks
ENOUGH = 1_800_000_000  # bytes for a batch of copies on a GPU: 2 GB with everything else


def batch_size(
    images: Float[Tensor, "n c h w"],
    device: torch.device | str | None = None,
    *,
    max_images: int | None = None,
) -> int:
    """The batch size for such images, at least 1.

    On a CPU, what fits into the caches of its cores: 32 of up to 96 pixels square, 6 of 224. On a GPU, what
    half of its free memory holds, at 4 KiB a pixel; where a network takes more, `Batches` halves it.

    Args:
        images: of the size to be looked at; there may be none.
        device: where the network is; where the images are, without it.
        max_images: at most; on a CPU 32 without it.
    """
    area = max(1, images.shape[-2] * images.shape[-1])
    device = images.device if device is None else torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        fit = free // 2 // (BYTES * area)
    else:
        fit, max_images = PIXELS // area, MOST if max_images is None else max_images
    return max(1, fit if max_images is None else min(max_images, fit))


def saved_bytes(network: nn.Module, run: Callable[[], object]) -> int:
    """The memory that autograd keeps of a pass, without weights and buffers; the same on every device.

    Args:
        network: its weights and buffers are not counted.
        run: the pass; what it returns holds on to its graph.
    """
    # not by address: reading the address of a storage marks it as written to
    own = {tensor.untyped_storage()._cdata for tensor in chain(network.parameters(), network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # alive, so that no other gets its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = run()
    found = sum(storage.nbytes() for storage in kept.values())
    del graph
    return found


def fitting(device: torch.device, each: int, *, max_images: int) -> int:
    """How many images fit on a GPU where each takes this many bytes: in half of what is free, and in 2 GB.

    More than that would hardly be faster, and would take memory from others on the same GPU.
    """
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(max_images, min(free // 2, ENOUGH) // max(1, each)))


class Batches:
    """Runs work on this many images at a time, and on half as many from when memory runs out.

    `size` is how many at present. When memory runs out, it warns once. With `fixed`, it runs out with an
    error instead: for objectives that couple the images of a batch.
    """

    def __init__(self, size: int, *, fixed: bool = False):
        if size < 1:
            raise ValueError(f"batches of {size} images; wanted at least 1")
        self.size = self._initial_size = size
        self.fixed = fixed

    def over(self, count: int, run: Callable[[slice], T]) -> Iterator[tuple[slice, T]]:
        """The results of `run` for each part of `count` images, and which images these are, in order.

        Raises:
            torch.OutOfMemoryError: there is no memory for a single image, or for a batch of a fixed size.
        """
        start = 0
        while start < count:
            rows = slice(start, min(start + self.size, count))
            try:
                found = run(rows)
            except RuntimeError as error:
                if not ran_out_of_memory(error) or self.fixed or rows.stop - start == 1:
                    raise
            else:
                yield rows, found
                start = rows.stop
                continue
            # not among the above: the error holds on to what the failed run has made
            self._halve(rows.stop - start)

    def _halve(self, tried: int) -> None:
        if self.size == self._initial_size:
            message = f"out of memory with {tried} images at once; going on with fewer"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
        self.size = max(1, tried // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, of a GPU or of the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
