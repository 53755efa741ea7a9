"""CKA between all layers of two networks, or of one with itself, in one pass over the images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.channels import at_least_float32
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.indexed_images import Data, first_images, numbered
from fulgurite.probes.record import hooked
from fulgurite.probes.representation.stages import stages

BATCH, LEAST = 32, 4
COLUMNS = 4096  # of features that a cache holds
SPREAD = 0.05  # variance as a share of the squared mean, above which float32 is accurate enough


@dataclass(frozen=True)
class LayerCKA:
    """CKA of each layer of one network, in rows, with each of another's, in columns.

    Args:
        rows: layers by path.
        columns: of the other network.
        matrix: 1 where one layer's features are the other's, rotated and scaled, about 0 where they are
            unrelated, and possibly a little below; NaN where a layer outputs the same for all images.
        count: how many images were compared.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    matrix: Float[Tensor, "p q"]
    count: int

    @property
    def diagonal(self) -> Float[Tensor, "m"]:
        """Of layers of the same place in both."""
        return self.matrix.diagonal()


def layer_cka(
    network: nn.Module,
    other: nn.Module | None,
    data: Data,
    *,
    layers: Sequence[str] | None = None,
    other_layers: Sequence[str] | None = None,
    batch_size: int = BATCH,
) -> LayerCKA:
    """Linear centred kernel alignment of the outputs of all layers, all positions of all channels.

    Unbiased within each batch, and averaged over batches before the ratio is taken, so that only the products
    of one batch's images are kept: with 60 layers of two ResNet-18s it takes up to 1.5 times as long as the
    forward passes alone. Kornblith et al. 2019, arxiv.org/abs/1905.00414; Nguyen et al. 2021,
    arxiv.org/abs/2010.15327; estimator of Song et al. 2012. A layer that runs several times is read at its
    last call.

    Args:
        network: maps images to logits.
        other: another network, for the same images; None for the network itself.
        data: the images.
        layers: by path; the stages without it.
        other_layers: of the other network; the same paths without it, or its stages where there are none.
        batch_size: images that are compared with each other, at least 4.

    Raises:
        ValueError: no such layer, fewer than four images in every batch, or features that are not finite.
    """
    if batch_size < LEAST:
        raise ValueError(f"batch_size={batch_size}; wanted at least {LEAST} images to compare")
    if isinstance(layers, str) or (layers is not None and not layers):
        raise ValueError(f"layers={layers!r}; wanted a list of their paths, or None for the stages")
    alone, other = other is None, network if other is None else other
    device = device_of(network)
    example = first_images(data, device=device, size=2)
    rows = list(layers) if layers is not None else stages(network, example.to(device))
    columns = rows if alone or (layers is not None and other_layers is None) else other_layers
    columns = stages(other, example.to(device_of(other))) if columns is None else list(columns)
    networks = [(network, rows)] if alone else [(network, rows), (other, columns)]
    cross = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    own, theirs = torch.zeros(len(rows)).double(), torch.zeros(len(columns)).double()
    count = 0
    for grams in _batches(networks, data, batch_size):
        one, two = grams[0], grams[-1]
        size = one.shape[1]
        flat, flat_other = one.flatten(1), two.flatten(1)
        weight = 1 / (size - 3)  # of an estimate, 1 / (n (n - 3)), times its n images
        cross += weight * (flat @ flat_other.T).cpu()
        own += weight * flat.square().sum(1).cpu()
        theirs += weight * flat_other.square().sum(1).cpu()
        count += size
    if not count:
        raise ValueError(f"fewer than {LEAST} images to compare; wanted at least that many")
    sizes = own[:, None] * theirs
    matrix = torch.where(sizes > 0, cross / sizes.clamp(min=1e-300).sqrt(), torch.nan)
    return LayerCKA(tuple(rows), tuple(columns), matrix, count)


def _batches(
    networks: Sequence[tuple[nn.Module, Sequence[str]]], data: Data, size: int
) -> Iterator[list[Float[Tensor, "layers n n"]]]:
    """Of each batch of at least four images, the centred products of each network's layers."""
    for _, images, _ in numbered(data, device=device_of(networks[0][0]), size=size):
        if len(images) < LEAST:
            continue
        found = []
        for network, layers in networks:
            products = _Products()
            names = list(dict.fromkeys(layers))
            with (
                frozen_eval(network) as net,
                torch.no_grad(),
                hooked(net, names, (), products.store, kept=False),
            ):
                net(images.to(device_of(net)))
            if missing := [layer for layer in layers if layer not in products.found]:
                raise ValueError(f"nothing was read from layer {missing[0]!r}: the network did not run it")
            stacked = _centred(layers, products.found)
            found.append(stacked.to(found[0].device) if found else stacked)
        yield found


class _Products:
    """Products of each layer's outputs, computed at once, as later layers may overwrite the outputs.

    With each, the squared length of the mean.
    """

    def __init__(self) -> None:
        self.found = dict[str, tuple[Tensor, Tensor]]()
        self.latest: tuple[Tensor, int, tuple[Tensor, Tensor]] | None = None

    def store(self, layer: str, out: Tensor) -> None:
        # a block's output may be that of its last part: the same tensor
        if self.latest is None or self.latest[0] is not out or self.latest[1] != out._version:
            self.latest = out, out._version, _products(out)
        self.found[layer] = self.latest[2]


def _products(out: Tensor) -> tuple[Float[Tensor, "n n"], Float[Tensor, ""]]:
    values = at_least_float32(out.detach()).flatten(1)
    if values.device.type == "cpu":
        products = values @ values.T
        mean = products.mean()
        if bool(products.diagonal().mean() - mean > SPREAD * mean):
            return products, mean
    # centred first, as means much larger than the spread cost precision of the products
    products, squares = values.new_zeros(len(values), len(values)), values.new_zeros(())
    for part in values.split(COLUMNS, 1):
        mean = part.mean(0)
        centred = part - mean
        products.addmm_(centred, centred.T)
        squares += mean @ mean
    return products, squares


def _centred(
    layers: Sequence[str], found: Mapping[str, tuple[Tensor, Tensor]]
) -> Float[Tensor, "layers n n"]:
    """The products centred as the unbiased estimate has them, in float64."""
    products = torch.stack([found[layer][0] for layer in layers]).double()
    squares = torch.stack([found[layer][1] for layer in layers]).double()
    spread, count = products.diagonal(dim1=1, dim2=2).mean(1) - products.mean((1, 2)), products.shape[1]
    if wrong := [layer for layer, own in zip(layers, spread.tolist(), strict=True) if not own < torch.inf]:
        raise ValueError(f"features of {wrong[0]!r} that are not finite")
    # of a layer that outputs the same for all images, what is left is rounding
    products[spread <= 1e-12 * squares] = 0
    products.diagonal(dim1=1, dim2=2).zero_()
    sums = products.sum(2)
    shift = sums / (count - 2)
    total = sums.sum(1)[:, None, None] / ((count - 1) * (count - 2))
    products = products - shift[:, :, None] - shift[:, None] + total
    products.diagonal(dim1=1, dim2=2).zero_()
    return products
