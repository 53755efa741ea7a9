"""Confidence intervals of proportions (Wilson)."""

import math


def wilson(right: int, count: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's confidence interval for a proportion, from `right` of `count`; 95 % by default."""
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
