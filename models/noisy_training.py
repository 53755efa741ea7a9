"""Training under Gaussian noise, for randomised smoothing (Cohen et al. 2019)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.robustness.smoothing import check_sigma


@dataclass(frozen=True)
class Noisy:
    """Cross-entropy of images with Gaussian noise, which may leave [0, 1].

    `certify` needs a network that predicts well under noise of the same size. Cohen et al. 2019,
    arxiv.org/abs/1902.02918.

    Args:
        sigma: the noise's standard deviation, in pixels.
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        check_sigma(self.sigma)

    def __call__(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """The mean cross-entropy."""
        return F.cross_entropy(network(images + self.sigma * torch.randn_like(images)), labels)
