"""Gaussian, shot and impulse noise (ImageNet-C)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attacks.per_image_rng import PerImageRandom

Images = Float[Tensor, "n c h w"]


def gaussian_noise(images: Images, draws: PerImageRandom, spread: float) -> Images:
    """Noise of a standard deviation."""
    return images + spread * draws.normal(*images.shape[1:])


def shot_noise(images: Images, draws: PerImageRandom, photons: float) -> Images:
    """Poisson noise: this many photons in white."""
    return _poisson(images * photons, draws.uniform(*images.shape[1:]), photons) / photons


def impulse_noise(images: Images, draws: PerImageRandom, share: float) -> Images:
    """Salt and pepper: a share of the values set to 0 or 1."""
    drawn = draws.uniform(*images.shape[1:])
    return images.masked_fill(drawn < share / 2, 0.0).masked_fill(drawn > 1 - share / 2, 1.0)


def _poisson(rates: Images, drawn: Images, largest: float) -> Images:
    """By the inverse of the distribution, so that a number depends only on its rate and its own draw."""
    rates, drawn = rates.double(), drawn.double()
    mass = (-rates).exp()
    below, counts = mass.clone(), torch.zeros_like(rates)
    for count in range(1, math.ceil(largest + 7 * math.sqrt(largest) + 10)):
        counts += drawn >= below
        mass = mass * rates / count
        below += mass
    return counts.to(torch.float32)
