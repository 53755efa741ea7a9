"""How often two networks are right and wrong on the same images: error consistency (Geirhos et al. 2020)."""

import math
from dataclasses import dataclass

from jaxtyping import Bool
from scipy.stats import binomtest
from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """On how many images both, one or none of two networks is right.

    Args:
        both: both are right.
        one: only the first is.
        other: only the second is.
        none: neither is.
    """

    both: int
    one: int
    other: int
    none: int

    @property
    def count(self) -> int:
        """How many images."""
        return self.both + self.one + self.other + self.none

    @property
    def consistency(self) -> float:
        """Cohen's kappa of being right: 1 on the same images, 0 as by chance; NaN if one is always right.

        Geirhos et al. 2020, arxiv.org/abs/2006.16736.
        """
        first, second = (self.both + self.one) / self.count, (self.both + self.other) / self.count
        seen = (self.both + self.none) / self.count
        chance = first * second + (1 - first) * (1 - second)
        return (seen - chance) / (1 - chance) if chance < 1 else math.nan

    @property
    def p(self) -> float:
        """The probability of a difference in accuracy as large by chance: McNemar's exact test, two-sided."""
        apart = self.one + self.other
        return float(binomtest(self.one, apart).pvalue) if apart else 1.0


def agreement(one: Bool[Tensor, "n"], other: Bool[Tensor, "n"]) -> Agreement:
    """On how many images both, one or none of two networks is right, and how consistent their errors are.

    Raises:
        ValueError: no images.
    """
    if not len(one):
        raise ValueError("no images to agree on; wanted at least one")
    pairs = ((one & other), (one & ~other), (~one & other), (~one & ~other))
    return Agreement(*(int(pair.sum()) for pair in pairs))
