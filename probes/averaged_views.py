"""Test-time augmentation: class probabilities averaged over mirrored and cropped views of an image."""

from collections.abc import Iterator

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.predict import predict

SHARE = 0.875
"""The side of a crop, as a share of the image's side."""
_CORNERS = ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.5, 0.5))


def most_views(*, mirror: bool) -> int:
    """How many views there are: the image and five crops, and with `mirror` these mirrored."""
    return (1 + len(_CORNERS)) * (1 + mirror)


def views(
    images: Float[Tensor, "n c h w"], count: int, *, mirror: bool = True
) -> Iterator[Float[Tensor, "n c h w"]]:
    """The images, then their mirror images, then crops of the corners and the middle, enlarged, and mirrored.

    Args:
        images: in [0, 1].
        count: how many views, the first ones.
        mirror: also mirrored left to right; not for images that mean something else then, such as digits.

    Raises:
        ValueError: no views, or more than there are.
    """
    most = most_views(mirror=mirror)
    if not 1 <= count <= most:
        raise ValueError(f"{count} views; wanted 1 to {most}" + ("" if mirror else ", without mirrored ones"))
    left = count
    for crop in (None, *_CORNERS):
        shown = images if crop is None else _cropped(images, *crop)
        for view in (shown, shown.flip(-1))[: min(1 + mirror, left)]:
            yield view
            left -= 1
        if not left:
            return


def averaged_probabilities(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    *,
    count: int,
    mirror: bool = True,
    temperature: float = 1.0,
) -> Float[Tensor, "n k"]:
    """The mean of the probabilities of this many `views` of each image.

    Krizhevsky et al. 2012, whose ten views are five crops and their mirror images.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        count: how many views, the first ones.
        mirror: also mirrored ones, see `views`.
        temperature: the logits of each view are divided by it.
    """
    shares = [
        (predict(network, view) / temperature).softmax(1) for view in views(images, count, mirror=mirror)
    ]
    return sum(shares[1:], shares[0]) / count


def _cropped(images: Tensor, down: float, across: float) -> Tensor:
    height, width = images.shape[2:]
    tall, wide = max(1, round(SHARE * height)), max(1, round(SHARE * width))
    top, left = round(down * (height - tall)), round(across * (width - wide))
    part = images[:, :, top : top + tall, left : left + wide]
    return F.interpolate(part, size=(height, width), mode="bilinear", align_corners=False).clamp(0, 1)
