"""Logits of a network from given outputs of one layer on, for stitching and for maps of features."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.channels import channels_last, features
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.record import layer_of, one_tensor, record

Rest = Callable[[Float[Tensor, "n c *positions"]], Float[Tensor, "n k"]]


@contextmanager
def run_from(network: nn.Module, layer: str, images: Float[Tensor, "n c h w"]) -> Iterator[Rest]:
    """Within the block, `rest(values)` gives the logits that follow from these outputs of the layer.

    The layers before it run on a blank image, so that only the values carry information about images. To be
    used in `frozen_eval`; gradients flow to the values.

    Args:
        network: maps images to logits.
        layer: by path; the values have its channels first, as `features` gives them, or with more dimensions
            of size 1.
        images: a few, with which it is tested that the layer's own outputs give the network's own logits.

    Raises:
        ValueError: no such layer, it runs more than once in a pass, or the logits depend on more than its
            output, as within a block with a skip connection.
    """
    rest = _Rest(layer_of(network, layer), layer, network)
    images = images.to(device_of(network))
    with torch.no_grad(), record(network, [layer]) as recorded:
        logits = network(images)
        out, own = recorded[layer], features(recorded, layer)
    rest.last = out.dim() == 3 or (out.dim() == 4 and bool(channels_last(out, rest.module)))
    rest.shape = own.shape[1:]
    rest.blank = torch.zeros_like(images[:1])
    handle = rest.module.register_forward_hook(rest.replace)
    try:
        for rest.each in (False, True):
            if _same(rest, own, logits):
                break
        else:
            raise ValueError(
                f"the logits do not follow from the output of {layer!r} alone; name a layer "
                "through which everything passes, such as a whole stage"
            )
        yield rest
    finally:
        handle.remove()


class _Rest:
    """Runs the network on a blank image, with the layer's output replaced."""

    def __init__(self, module: nn.Module, layer: str, network: nn.Module):
        self.module, self.layer, self.network = module, layer, network
        self.last, self.each = False, False
        self.blank: Tensor = torch.empty(0)
        self.values: Tensor | None = None
        self.running, self.shape = False, torch.Size()

    def __call__(self, values: Tensor) -> Tensor:
        # most networks take one blank image for all; some keep the number of images
        blank = self.blank.expand(len(values), -1, -1, -1) if self.each else self.blank
        self.values, self.running = values, True
        try:
            return self.network(blank)
        finally:
            self.values, self.running = None, False

    def replace(self, module: nn.Module, _: object, out: object) -> Tensor | None:
        if not self.running:
            return None  # a pass of the network's own
        dtype, values = one_tensor(out, self.layer, module, "outputs").dtype, self.values
        if values is None:
            raise ValueError(
                f"layer {self.layer!r} runs more than once in a pass; name one around or inside it"
            )
        self.values = None
        values = values.reshape(len(values), *self.shape)
        # a copy: what follows may write into it
        return (values.movedim(1, -1) if self.last else values).to(dtype, copy=True)


@torch.no_grad()
def _same(rest: _Rest, own: Tensor, logits: Tensor) -> bool:
    """Whether the layer's own outputs give the network's own logits, but for rounding."""
    try:
        found = rest(own)
    except ValueError:
        raise
    except Exception:  # networks fail in many ways on one image for several
        if rest.each:
            raise
        return False
    spread = float(logits.float().std()) if logits.numel() > 1 else 0.0
    return found.shape == logits.shape and torch.allclose(found, logits, rtol=1e-3, atol=1e-3 * spread + 1e-6)
