"""What makes adversarial images fool other networks too: input diversity, and ensembles of sources."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes import counter_random
from fulgurite.probes.attacks.ensembles import Attack


class Diverse(nn.Module):
    """A network that sees each batch at a random size and place, on black, which differ from pass to pass.

    The draws of a pass depend only on the number of passes before it. Xie et al. 2019,
    arxiv.org/abs/1803.06978.

    Args:
        network: maps images to logits.
        smallest: the smallest size, as a share of the image's.
        probability: of a pass that changes the images at all.
    """

    def __init__(self, network: nn.Module, *, smallest: float = 0.9, probability: float = 0.5):
        super().__init__()
        if not 0 < smallest <= 1 or not 0 <= probability <= 1:
            raise ValueError(
                f"smallest={smallest}, probability={probability}; wanted a share above 0, and a probability"
            )
        self.network, self.smallest, self.probability, self.passes = network, smallest, probability, 0

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits of the images, changed or not."""
        drawn = counter_random.uniform(0, torch.tensor([self.passes]), 4)[0].tolist()
        self.passes += 1
        if drawn[0] < self.probability:
            h, w = images.shape[-2:]
            share = self.smallest + (1 - self.smallest) * drawn[1]
            sides = max(1, round(share * h)), max(1, round(share * w))
            small = F.interpolate(images, sides, mode="bilinear", align_corners=False)
            top, left = (
                round(part * (whole - side))
                for part, whole, side in zip(drawn[2:], (h, w), sides, strict=True)
            )
            images = F.pad(small, (left, w - sides[1] - left, top, h - sides[0] - top))
        return self.network(images)


class Ensemble(nn.Module):
    """Several networks as one: the mean of their logits. Liu et al. 2017, arxiv.org/abs/1611.02770.

    Args:
        networks: each maps images to logits of the same classes.
    """

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        if not networks:
            raise ValueError("no networks; wanted at least one")
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The mean logits."""
        return torch.stack([network(images) for network in self.networks]).mean(0)


def diverse(attack: Attack, *, smallest: float = 0.9, probability: float = 0.5) -> Attack:
    """The same attack with input diversity: see `Diverse`. For an attack of one start that drops no image."""

    def moved(network: nn.Module, images: Tensor, labels: Tensor, threat, **how) -> Tensor:
        shown = Diverse(network, smallest=smallest, probability=probability)
        return attack(shown, images, labels, threat, **how)

    return moved
