"""Trustworthiness of 2-d maps of images, and maps snapped to a grid of cells."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from sklearn.manifold import trustworthiness
from threadpoolctl import threadpool_limits
from torch import Tensor

from fulgurite.probes.counted import counted
from fulgurite.probes.representation.neighbours import nearest_neighbours

MOST = 1600  # images on a grid: the time of the assignment grows with the cube of their number


class MapQuality(NamedTuple):
    """How well a map preserves neighbours.

    Args:
        trustworthiness: 1 if all neighbours on the map are neighbours in code space, falling with the ranks
            of those that are not; about 0.5 of a random map. Venna & Kaski 2001.
        kept: the share of the `k` neighbours in code space that are among the `k` on the map.
        k: how many neighbours.
    """

    trustworthiness: float
    kept: float
    k: int

    @property
    def known(self) -> bool:
        """Whether the measures are defined: not where all codes are equal."""
        return self.kept == self.kept

    @property
    def caption(self) -> str:
        """Both in words."""
        if not self.known:
            return "all codes are equal: places mean nothing"
        return f"trustworthiness {self.trustworthiness:.2f}, {self.kept:.0%} of {self.k} neighbours kept"


def map_quality(codes: Float[Tensor, "n d"], points: Float[Tensor, "n 2"], *, k: int = 10) -> MapQuality:
    """The trustworthiness of a map of codes, by Euclidean distances; with fewer neighbours for few images.

    NaN where all codes are equal.

    Raises:
        ValueError: fewer than four images, or codes that are not finite.
    """
    if len(codes) < 4:
        raise ValueError(f"a map of {counted(len(codes), 'image')}; wanted at least 4 to say how good it is")
    k = min(k, (len(codes) - 1) // 2)
    if bool((codes == codes[0]).all()):
        return MapQuality(torch.nan, torch.nan, k)
    near, seen = (nearest_neighbours(own, k=k, metric="l2").places for own in (codes, points.to(codes)))
    kept = (near[:, :, None] == seen[:, None]).any(2).double().mean()
    with threadpool_limits(1):
        trust = trustworthiness(codes.cpu().numpy(), points.cpu().numpy(), n_neighbors=k)
    return MapQuality(float(trust), float(kept), k)


def snapped(points: Float[Tensor, "n 2"]) -> Int[Tensor, "n 2"]:
    """The row and column of each point in a grid that is about a square, with the least sum of squared moves.

    The map is stretched to the grid, x to columns and y to rows from the bottom up; each cell holds one point
    at most. An optimal assignment (Jonker & Volgenant 1987): 900 points take 0.2 s.

    Raises:
        ValueError: no points, more than 1600, or some that are not finite.
    """
    if not 1 <= len(points) <= MOST:
        raise ValueError(f"{counted(len(points), 'image')} on a grid; wanted 1 to {MOST}")
    if not bool(points.isfinite().all()):
        raise ValueError("places on a map that are not finite")
    columns = -(-(len(points) ** 0.5) // 1)
    rows = -(-len(points) // columns)
    low, high = points.double().amin(0), points.double().amax(0)
    places = (points.double() - low) / (high - low).clamp(min=torch.finfo(torch.float64).tiny)
    place = torch.stack([(1 - places[:, 1]) * (rows - 1), places[:, 0] * (columns - 1)], 1)
    cells = torch.cartesian_prod(torch.arange(int(rows)), torch.arange(int(columns)))
    costs = torch.cdist(place, cells.double()).square()
    _, chosen = linear_sum_assignment(costs.cpu().numpy())
    return cells[torch.from_numpy(chosen)]


def seams(
    codes: Float[Tensor, "n d"], cells: Int[Tensor, "n 2"]
) -> tuple[Float[Tensor, "rows columns"], Float[Tensor, "rows columns"]]:
    """How far apart in code space each cell's image and the next one lie: to the right, and below.

    1 less the cosine; NaN where there is no image. Neighbours on a map look alike only where seams are small:
    after Karpathy's t-SNE pictures of CNN codes.
    """
    rows, columns = (int(own) + 1 for own in cells.amax(0))
    sheet = torch.full((rows + 1, columns + 1), -1, dtype=torch.long)
    sheet[cells[:, 0], cells[:, 1]] = torch.arange(len(cells))
    unit = torch.nn.functional.normalize(codes.double().cpu(), eps=1e-300)

    def between(one: Tensor, other: Tensor) -> Tensor:
        distances = 1 - (unit[one] * unit[other]).sum(-1)
        return distances.float().masked_fill((one < 0) | (other < 0), torch.nan)

    here = sheet[:-1, :-1]
    return between(here, sheet[:-1, 1:]), between(here, sheet[1:, :-1])
