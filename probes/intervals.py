"""Confidence intervals of proportions (Wilson, Clopper-Pearson)."""

import math

from scipy.stats import beta


def wilson(right: int, count: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's confidence interval for a proportion, from `right` of `count`; 95 % by default."""
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def clopper_pearson(right: int, count: int, *, alpha: float) -> float:
    """The lower end of the exact confidence interval for a proportion, one-sided, at level 1 - alpha.

    Clopper & Pearson 1934, Biometrika 26.
    """
    return float(beta.ppf(alpha, right, count - right + 1)) if right else 0.0
