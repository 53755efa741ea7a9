"""Nearest neighbours of images in code space and in pixel space: exact, blockwise, on the codes' device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Metric = Literal["cosine", "l2"]

QUERIES, BANK = 1024, 8192  # rows of a block of distances
MORE = 5  # candidates beyond k, from which the exact k are chosen
NUMBERS, CACHED = 2**24, 2**17  # that are held at once
SIDE = 64  # longest side of images compared as pixels


class Neighbours(NamedTuple):
    """The neighbours of each query, the nearest first; of equal distances, the lowest place first.

    Args:
        places: of the neighbours, in what was searched.
        distances: 1 less the cosine, from 0 to 2; or Euclidean.
    """

    places: Int[Tensor, "q k"]
    distances: Float[Tensor, "q k"]


def nearest_neighbours(
    queries: Float[Tensor, "q d"],
    bank: Float[Tensor, "n d"] | None = None,
    *,
    k: int = 5,
    metric: Metric = "cosine",
) -> Neighbours:
    """The `k` codes of the bank that are nearest to each query, exactly.

    Blocks of the bank go to the queries' device one after the other, so that it may be larger than the
    device's memory, and mapped from a file. Candidates are found by products in float32; the neighbours are
    chosen from them by distances in float64, and where the rounding of the products could have hidden a
    neighbour, all distances of that query are computed in float64.

    Args:
        queries: of which neighbours are wanted.
        bank: among which they are looked for; without it the queries, each of which is not its own neighbour.
        k: how many.
        metric: "cosine", where a code of zeros is at distance 1 from all; or "l2".

    Raises:
        ValueError: fewer codes than neighbours, codes that are all equal, or some that are not finite.
    """
    alone = bank is None
    bank = queries if bank is None else bank
    check_search(len(bank), k, metric, alone=alone)
    places, squared = [], []
    with torch.no_grad(), _full_float32():
        for first in range(0, len(queries), QUERIES):
            rows = queries[first : first + QUERIES]
            own = torch.arange(first, first + len(rows), device=rows.device) if alone else None
            found = _of_block(rows, bank, own, k, metric)
            places.append(found[0])
            squared.append(found[1])
    if not places:
        empty = torch.zeros(0, k, device=queries.device)
        return Neighbours(empty.long(), empty.double())
    distances = torch.cat(squared)
    return Neighbours(torch.cat(places), distances / 2 if metric == "cosine" else distances.sqrt())


def check_search(codes: int, k: int, metric: str, *, alone: bool) -> None:
    """Check that neighbours can be looked for among this many codes, or each one's among the others.

    Raises:
        ValueError: there are fewer codes than neighbours, or no such metric.
    """
    if metric not in ("cosine", "l2"):
        raise ValueError(f'metric={metric!r}; wanted "cosine" or "l2"')
    if not 1 <= k <= codes - alone:
        raise ValueError(
            f"{k} neighbours among {max(0, codes - alone)} {'others' if alone else 'codes'}; "
            "wanted at least 1, and as many codes as neighbours"
        )


def nearest_of(
    queries: Float[Tensor, "q d"],
    bank: Float[Tensor, "n d"],
    candidates: Int[Tensor, "q m"],
    *,
    k: int,
    metric: Metric = "cosine",
) -> Neighbours:
    """Of candidates for each query, places in the bank, the `k` nearest, by distances in float64."""
    candidates = candidates.sort(1).values
    squared, places = _ordered(_exact(queries, bank, candidates, metric), candidates, k)
    return Neighbours(places, squared / 2 if metric == "cosine" else squared.sqrt())


def recall_at_k(
    found: Neighbours, labels: Int[Tensor, "q"], bank_labels: Int[Tensor, "n"] | None = None
) -> Float[Tensor, "k"]:
    """For each number of neighbours, the share of queries with one of their own class among them."""
    theirs = (labels if bank_labels is None else bank_labels).to(found.places.device)[found.places]
    return (theirs == labels.to(theirs.device)[:, None]).cummax(1).values.double().mean(0)


def knn_classes(
    found: Neighbours, bank_labels: Int[Tensor, "n"], classes: int | None = None
) -> Int[Tensor, "q"]:
    """The most frequent class among each query's neighbours; of equally frequent ones the lowest."""
    theirs = bank_labels.to(found.places.device)[found.places]
    return F.one_hot(theirs, int(bank_labels.max()) + 1 if classes is None else classes).sum(1).argmax(1)


def knn_accuracy(
    found: Neighbours, labels: Int[Tensor, "q"], bank_labels: Int[Tensor, "n"] | None = None
) -> float:
    """The share of queries whose neighbours are mostly of their class: see `knn_classes`."""
    answers = knn_classes(found, labels if bank_labels is None else bank_labels)
    return float((answers == labels.to(answers.device)).double().mean())


def pixel_codes(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """Images as vectors of their pixels, those of more than 64 px a side averaged down to 64 at first."""
    longest = max(images.shape[2:])
    if longest > SIDE:
        height, width = (max(1, round(side * SIDE / longest)) for side in images.shape[2:])
        images = F.adaptive_avg_pool2d(images, (height, width))
    return images.flatten(1)


def _of_block(
    rows: Float[Tensor, "q d"],
    bank: Float[Tensor, "n d"],
    own: Int[Tensor, "q"] | None,
    k: int,
    metric: Metric,
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """Places and squared distances of some queries' neighbours."""
    others = len(bank) - (own is not None)
    most = min(k + MORE, others)
    # to shift codes by one of them is exact up to the rounding of the result, and leaves 0 of equal codes
    middle = _unit(bank[:1].to(rows.device), metric)
    near = (_unit(rows, metric) - middle).float()
    sizes, reach = _sizes(near, "queries"), 0.0
    scores, places = near.new_zeros(len(rows), 0), torch.zeros(len(rows), 0, dtype=torch.long).to(near.device)
    few = max(1, min(BANK, NUMBERS // max(1, bank.shape[1])))
    for start in range(0, len(bank), few):
        block = (_unit(bank[start : start + few].to(rows.device), metric) - middle).float()
        norms = _sizes(block, "codes")
        reach = max(reach, float(norms.amax()))
        each = torch.addmm(norms.square().float(), near, block.T, alpha=-2)
        if own is not None:
            inside = ((own >= start) & (own < start + len(block))).nonzero()[:, 0]
            each[inside, own[inside] - start] = torch.inf
        low, at = each.topk(min(most, len(block)), largest=False)
        scores, places = torch.cat([scores, low], 1), torch.cat([places, at + start], 1)
        scores, at = scores.topk(min(most, scores.shape[1]), largest=False)
        places = places.gather(1, at)
    if len(bank) > 1 and reach == 0:
        raise ValueError(f"all {len(bank)} codes are equal, so that none is nearer than another")
    places = places.sort(1).values
    squared, places = _ordered(_exact(rows, bank, places, metric), places, k)
    if most < others:
        last, limit = scores.amax(1).double(), _rounding(rows.shape[1], sizes, reach, metric)
        # of numbers too large for float32, too
        sure = (squared[:, -1] - sizes.square() < last - limit) & last.isfinite()
        for row in (~sure).nonzero()[:, 0].tolist():
            itself = None if own is None else int(own[row])
            squared[row], places[row] = _all_exact(rows[row : row + 1], bank, itself, k, metric)
    return places, squared


def _rounding(dimensions: int, sizes: Float[Tensor, "q"], reach: float, metric: Metric) -> Float[Tensor, "q"]:
    """An upper bound on the error of a squared distance in float32, for any order of summation.

    The chance that it is more is below 1e-13: Higham & Mary 2019, SIAM J. Sci. Comput. 41.
    """
    unit, terms = 2.0**-23, 8 * dimensions**0.5 + 8
    if metric == "cosine":  # codes of length 1 are rounded before they are shifted
        sizes, reach = sizes + 1, reach + 1
    return 2 * unit * terms * (sizes * reach + reach**2) + 1e-36 * dimensions


def _exact(
    rows: Float[Tensor, "q d"], bank: Float[Tensor, "n d"], places: Int[Tensor, "q m"], metric: Metric
) -> Float[Tensor, "q m"]:
    """Squared distances in float64, of equal codes exactly equal ones; parts of the size of a CPU's cache."""
    few = max(
        1, (CACHED if rows.device.type == "cpu" else NUMBERS) // max(1, places.shape[1] * rows.shape[1])
    )
    parts = []
    for start in range(0, len(rows), few):
        at = places[start : start + few]
        theirs = _unit(bank[at.flatten().to(bank.device)].to(rows.device).double(), metric)
        own = _unit(rows[start : start + few].double(), metric)
        parts.append((theirs.view(*at.shape, -1) - own[:, None]).square_().sum(2))
    return torch.cat(parts)


def _all_exact(
    row: Float[Tensor, "1 d"], bank: Float[Tensor, "n d"], own: int | None, k: int, metric: Metric
) -> tuple[Float[Tensor, "k"], Int[Tensor, "k"]]:
    query, few = _unit(row.double(), metric), max(1, NUMBERS // max(1, bank.shape[1]))
    blocks = [bank[start : start + few].to(row.device).double() for start in range(0, len(bank), few)]
    squared = torch.cat([(_unit(block, metric) - query).square().sum(1) for block in blocks])
    if own is not None:
        squared[own] = torch.inf
    low, at = squared.sort(stable=True)
    return low[:k], at[:k]


def _ordered(
    squared: Float[Tensor, "q m"], places: Int[Tensor, "q m"], k: int
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The smallest; of equal ones those that come first, as places rise."""
    low, order = squared.sort(dim=1, stable=True)
    return low[:, :k].contiguous(), places.gather(1, order[:, :k])


def _unit(codes: Float[Tensor, "m d"], metric: Metric) -> Float[Tensor, "m d"]:
    # half the squared distance of codes of length 1 is 1 less their cosine
    if metric == "l2":
        return codes
    lengths = torch.linalg.vector_norm(codes, dim=1, keepdim=True, dtype=torch.float64)
    return codes / lengths.masked_fill(lengths == 0, 1).to(codes)


def _sizes(codes: Float[Tensor, "m d"], what: str) -> Float[Tensor, "m"]:
    """The lengths of the codes.

    Raises:
        ValueError: some are not finite.
    """
    sizes = torch.linalg.vector_norm(codes, dim=1)
    if len(sizes) and not 1e-15 < float(sizes.amax()) < 1e15:  # beyond float32, or not finite
        sizes = torch.linalg.vector_norm(codes, dim=1, dtype=torch.float64)
    if wrong := int((~sizes.isfinite()).sum()):
        raise ValueError(f"{wrong} of {len(codes)} {what} hold values that are not finite")
    return sizes.double()


@contextmanager
def _full_float32() -> Iterator[None]:
    """Within the block, products of float32 have full precision (no TF32)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
