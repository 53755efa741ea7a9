"""Axes of natural colours; luminance and chroma of images, separately."""

import torch
from jaxtyping import Float
from torch import Tensor

_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
# Lucid's matrix: the principal axes of natural colours, as columns; its largest column norm is divided out
NATURAL_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]]) / 0.462


def colour_matrix(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "c c"]:
    """The principal axes of the images' colours, for a `Fourier` canvas: independent waves get their colours.

    As columns, the strongest first, each as long as the standard deviation along it of the logits of pixels,
    over that of the strongest. Colours that hardly occur keep a hundredth of it, so that the matrix can be
    inverted. Of natural RGB images the first axis is grey, as in Lucid's matrix. Olah et al. 2017,
    distill.pub/2017/feature-visualization.

    Args:
        images: in [0, 1], of any number of channels.

    Raises:
        ValueError: there are fewer than two pixels, or all are of one colour.
    """
    pixels = images.detach().double().cpu().movedim(1, 0).flatten(1).logit(1e-3)
    spread = torch.cov(pixels).reshape(len(pixels), -1) if pixels.shape[1] > 1 else torch.zeros(0)
    if not len(spread) or not spread.isfinite().all() or spread.diagonal().max() < 1e-12:
        raise ValueError(f"colours of images {tuple(images.shape)}; wanted finite pixels of several colours")
    variances, axes = torch.linalg.eigh(spread)
    lengths = (variances.clamp(min=0).sqrt() / variances.max().sqrt()).clamp(min=0.01)
    return (axes * lengths).flip(1).float()


def luminance(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """How bright each pixel is, in [0, 1]; of images that are not RGB, the mean of their channels."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    weights = torch.tensor(_WEIGHTS, dtype=images.dtype, device=images.device)
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def with_luminance(
    images: Float[Tensor, "n c h w"], level: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, "n c h w"]:
    """The images in their colours with another luminance, which they have exactly, in [0, 1].

    Where a colour is too strong for its new luminance it is made paler, as far as it must be, and not cut
    off: that would change the luminance.
    """
    chroma = images - luminance(images)
    # the largest share of the chroma that stays in [0, 1], channel by channel
    room = torch.where(chroma > 0, 1 - level, level)
    share = (room / chroma.abs().clamp(min=1e-12)).amin(1, keepdim=True).clamp(0, 1)
    return (level + share * chroma).clamp(0, 1)


def same_mean_and_deviation(
    images: Float[Tensor, "n c h w"], reference: Float[Tensor, "m c _ _"]
) -> Float[Tensor, "n c h w"]:
    """The images with a reference's mean and standard deviation per channel, clipped to [0, 1]."""
    mean, deviation = reference.mean((0, 2, 3)), reference.std((0, 2, 3))
    own_mean, own_deviation = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
    scaled = (images - own_mean) / own_deviation.clamp(min=1e-6)
    return (scaled * deviation[:, None, None] + mean[:, None, None]).clamp(0, 1)
