"""Which training images raised a prediction: TRAK and TracIn on random projections of gradients."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fulgurite.probes.batches import Batches
from fulgurite.probes.frozen_eval import device_of, frozen_eval

Method = Literal["trak", "tracin"]
DIMENSION = 512
NUMBERS = 2**25  # of the gradients that are held at once
RIDGE = 1.0  # the best of 0.001 to 10 on digits


def training_influence(
    networks: Sequence[nn.Module],
    training: tuple[Float[Tensor, "n c h w"], Int[Tensor, "n"]],
    images: Float[Tensor, "m c h w"],
    classes: Int[Tensor, "m"],
    *,
    method: Method = "trak",
    dimension: int | None = DIMENSION,
    ridge: float = RIDGE,
    seed: int = 0,
) -> Float[Tensor, "m n"]:
    """How much each training image raised the margin of a class in each image, from a network's checkpoints.

    The margin is the logarithm of p / (1 - p) for the class's probability p. "trak" (Park et al. 2023,
    arxiv.org/abs/2303.14186) approximates the network as linear in its parameters around each checkpoint, and
    estimates the effect of training without an image: phi(z) (Phi' Phi)^-1 Phi' (1 - p), with the gradients
    of the margin Phi of the training images and phi of the image, and averages over checkpoints. "tracin"
    (Pruthi et al. 2020, arxiv.org/abs/2002.08484) sums the first-order effects of steps on a training image's
    loss on the margin: the products of their gradients. Both project gradients at random to `dimension`
    numbers by a count sketch (Charikar et al. 2002), which keeps products on average, in time that grows with
    the parameters alone.

    Positive where the image supports the class, in units that are the same for all training images of one
    image; one forward and backward pass for each image and checkpoint.

    Args:
        networks: checkpoints of one network, or networks trained from several seeds: the more, the better.
        training: training images in [0, 1], without augmentation, and their labels.
        images: the images whose predictions are explained.
        classes: the class of each; usually the predicted one.
        method: "trak" or "tracin".
        dimension: of the projection; None for all parameters, of small networks.
        ridge: what "trak" adds to the second moments of the gradients, in units of their mean eigenvalue.
        seed: of the projection.

    Raises:
        ValueError: no networks or images, labels outside the classes, an unknown method, a dimension of less
            than 1, or a ridge that is not positive.
    """
    if method not in get_args(Method):
        raise ValueError(f'method={method!r}; wanted "trak" or "tracin"')
    if not networks or not len(training[0]) or (dimension is not None and dimension < 1):
        raise ValueError(
            f"{len(networks)} networks, {len(training[0])} training images, dimension={dimension}; wanted at "
            "least 1 of each"
        )
    found = torch.zeros(len(images), len(training[0]), dtype=torch.float64)
    for place, network in enumerate(networks):
        sketch = None if dimension is None else (dimension, seed + place)
        own, residuals = margin_gradients(network, *training, sketch)
        asked, _ = margin_gradients(network, images, classes, sketch)
        found += influence_of(own, residuals, asked, method=method, ridge=ridge) / len(networks)
    return found


def influence_of(
    training: Float[Tensor, "n d"],
    residuals: Float[Tensor, "n"],
    images: Float[Tensor, "m d"],
    *,
    method: Method = "trak",
    ridge: float = RIDGE,
) -> Float[Tensor, "m n"]:
    """The influence of training images on others from what `margin_gradients` gives of both."""
    if not ridge > 0:
        raise ValueError(f"ridge={ridge}; wanted a positive number")
    if method == "trak":
        moments = training.T @ training
        moments.diagonal().add_(max(ridge * float(moments.diagonal().mean()), 1e-300))
        images = torch.linalg.solve(moments, images.T).T
    return images @ training.T * residuals


def margin_gradients(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    classes: Int[Tensor, "n"],
    sketch: tuple[int, int] | None = None,
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]:
    """The gradient of each image's margin by all parameters, and 1 - p of its class; on the CPU.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        classes: one for each.
        sketch: the dimension of a random projection, and its seed; all parameters without it.

    Raises:
        ValueError: classes that the network does not have, or gradients that are not finite.
    """
    device = device_of(network)
    with frozen_eval(network) as net:
        parameters = {name: value.detach() for name, value in net.named_parameters()}
        buffers = {name: value.detach() for name, value in net.named_buffers()}
        with torch.no_grad():
            count = net(images[:1].to(device)).shape[1]
        if len(classes) != len(images) or int(classes.min()) < 0 or int(classes.max()) >= count:
            raise ValueError(
                f"{len(classes)} classes for {len(images)} images; wanted one of 0 to {count - 1} each"
            )

        def margin(own: dict[str, Tensor], image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
            logits = functional_call(net, (own, buffers), (image[None],))[0]
            its = logits.gather(0, label[None])[0]
            others = logits.masked_fill(torch.arange(count, device=device) == label, -torch.inf)
            lead = its - others.logsumexp(0)
            return lead, torch.sigmoid(-lead)

        each = vmap(grad(margin, has_aux=True), in_dims=(None, 0, 0))
        projected = _projection(parameters, sketch)

        def run(rows: slice) -> tuple[Tensor, Tensor]:
            slopes, residuals = each(parameters, images[rows].to(device), classes[rows].to(device))
            return projected(slopes).double().cpu(), residuals.double().cpu()

        size = max(1, NUMBERS // sum(value.numel() for value in parameters.values()))
        parts = [found for _, found in Batches(min(size, 64)).over(len(images), run)]
    gradients, residuals = zip(*parts, strict=True)
    if wrong := int((~torch.cat(gradients).isfinite()).any(1).sum()):
        raise ValueError(f"gradients of {wrong} of {len(images)} images that are not finite")
    return torch.cat(gradients), torch.cat(residuals)


def _projection(parameters: dict[str, Tensor], sketch: tuple[int, int] | None):
    """A function from each image's gradients to one row: all values, or a count sketch of them."""
    if sketch is None:
        return lambda slopes: torch.cat([slopes[name].flatten(1) for name in parameters], 1)
    dimension, seed = sketch
    generator = torch.Generator().manual_seed(seed)
    places, signs = {}, {}
    for name, value in parameters.items():
        places[name] = torch.randint(dimension, (value.numel(),), generator=generator).to(value.device)
        signs[name] = (torch.randint(2, (value.numel(),), generator=generator) * 2 - 1).to(value)

    def project(slopes: dict[str, Tensor]) -> Float[Tensor, "m d"]:
        rows = next(iter(slopes.values()))
        found = rows.new_zeros(len(rows), dimension)
        for name, slope in slopes.items():
            found.index_add_(1, places[name], slope.flatten(1) * signs[name])
        return found

    return project


def strongest(
    influence: Float[Tensor, "m n"], count: int
) -> Iterator[tuple[Int[Tensor, "k"], Int[Tensor, "k"]]]:
    """Of each image, the training images that raised its margin most, and those that lowered it most."""
    for row in influence:
        order = row.argsort(descending=True)
        yield order[:count], order.flip(0)[:count]


def shares(influence: Float[Tensor, "*m n"]) -> Float[Tensor, "*m n"]:
    """The influence of each training image as a share of the sizes of all influences, from -1 to 1."""
    return influence / influence.abs().sum(-1, keepdim=True).clamp(min=1e-300)
