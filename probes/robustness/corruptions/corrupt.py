"""Common corruptions: 15 kinds by 5 strengths of noise, blur, weather and compression (ImageNet-C)."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.record import nearest
from fulgurite.probes.robustness.corruptions import blurs, digital, noises, weather
from fulgurite.probes.robustness.corruptions.strengths import levels

CORRUPTIONS: Mapping[str, Callable[..., Tensor]] = {
    **{one.__name__: one for one in (noises.gaussian_noise, noises.shot_noise, noises.impulse_noise)},
    **{one.__name__: one for one in (blurs.defocus_blur, blurs.glass_blur)},
    **{one.__name__: one for one in (blurs.motion_blur, blurs.zoom_blur)},
    **{one.__name__: one for one in (weather.snow, weather.frost, weather.fog, weather.brightness)},
    **{one.__name__: one for one in (digital.contrast, digital.elastic_transform)},
    **{one.__name__: one for one in (digital.pixelate, digital.jpeg_compression)},
}
"""The kinds by name, in the order of the paper."""
STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(
    images: Float[Tensor, "n c h w"], kind: str, strength: int, *, seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """The images, corrupted: in [0, 1], rounded to 256 values.

    After Hendrycks & Dietterich 2019, arxiv.org/abs/1903.12261: strengths are those of ImageNet-C at 224
    pixels and of CIFAR-10-C at 32, see `levels`. All is computed here, on the images' device, so that results
    are close to published ones but not equal: frost is drawn, not pasted from photographs; glass takes each
    pixel from a neighbour instead of swapping them in turn, and JPEG has no entropy coder. What is drawn for
    an image depends on its pixels and `seed` alone.

    Args:
        images: in [0, 1], of any size and number of channels.
        kind: a name in `CORRUPTIONS`.
        strength: 1 to 5.
        seed: of the random draws.

    Raises:
        ValueError: an unknown kind or strength, or images outside [0, 1].
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"no corruption {kind!r}; {nearest(kind, CORRUPTIONS)}")
    if strength not in STRENGTHS:
        raise ValueError(f"strength={strength!r}; wanted a whole number from 1 to 5")
    images = checked(images).float()
    if not len(images):
        raise ValueError("no images; the batch is empty")
    if float(images.min()) < 0 or float(images.max()) > 1:
        raise ValueError(f"images from {images.min():.3g} to {images.max():.3g}; wanted [0, 1]")
    side = min(images.shape[-2:])
    with torch.no_grad():
        draws = PerImageRandom(images, salt=seed)
        found = CORRUPTIONS[kind](images.float(), draws, *levels(kind, side)[strength - 1])
        return ((found.clamp(0, 1) * 255).round() / 255).to(images)
