"""Setting a share of the images aside, the same share of every class."""

import torch
from jaxtyping import Int
from torch import Tensor


def set_aside(
    labels: Int[Tensor, "n"], *, share: float, seed: int
) -> tuple[Int[Tensor, "kept"], Int[Tensor, "aside"]]:
    """Indices to keep and indices set aside, both in order.

    Every class of two images or more has at least one on each side; a class of one keeps it.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, aside = [], []
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        members = members[torch.randperm(len(members), generator=generator)]
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        aside.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values, torch.cat(aside).sort().values
