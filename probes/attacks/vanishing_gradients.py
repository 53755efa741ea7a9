"""Input gradients that are zero or not finite, which no attack can follow: gradient masking."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.objectives import log_probability

MOST = 32  # images that `masked` looks at


def without_gradient(
    network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
) -> Bool[Tensor, "n"]:
    """For each image, whether the gradient of its cross-entropy is zero or not finite; on the CPU.

    Raises:
        ValueError: the network's prediction does not depend on the images.
    """
    images, labels = (part.to(device_of(network)) for part in (images, labels))
    grads = gradient(network, images, -log_probability(labels)).flatten(1)
    return ((grads == 0).all(1) | ~grads.isfinite().all(1)).cpu()


def masked(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    chosen: Bool[Tensor, "n"],
    *,
    batch_size: int,
) -> tuple[int, int]:
    """The number of chosen images without a gradient, and the number of images checked: at most 32."""
    rows = chosen.nonzero()[:, 0]
    count = min(MOST, len(rows))
    if not count:
        return 0, 0
    rows = rows[torch.arange(count, device=rows.device) * len(rows) // count]
    try:
        found = [without_gradient(network, images[part], labels[part]) for part in rows.split(batch_size)]
    except ValueError:  # the answer does not depend on the images
        return count, count
    return int(torch.cat(found).sum()), count
