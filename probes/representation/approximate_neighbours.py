"""Approximate neighbours for millions of codes (HNSW by faiss), with a measure of what they miss."""

from importlib.util import find_spec
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.representation.neighbours import (
    Metric,
    Neighbours,
    check_search,
    nearest_neighbours,
    nearest_of,
)

LINKS, BUILD = 32, 80  # of each code in the graph; candidates while it is built
ROWS = 65_536  # codes that are added at once


class ApproximateNeighbours(NamedTuple):
    """Neighbours that are not guaranteed to be the nearest, and how many of them are.

    Args:
        found: the neighbours; their distances are exact.
        recall: the share of the true neighbours that is among them, over some queries.
        checked: how many queries these were.
    """

    found: Neighbours
    recall: float
    checked: int


def approximate_neighbours(
    queries: Float[Tensor, "q d"],
    bank: Float[Tensor, "n d"] | None = None,
    *,
    k: int = 5,
    metric: Metric = "cosine",
    candidates: int = 128,
    check: int = 100,
    seed: int = 0,
) -> ApproximateNeighbours:
    """The `k` codes of the bank that are most probably nearest to each query, by walks through a graph.

    For neighbours of each of some hundred thousand codes or more: a graph of the bank is built once (HNSW,
    Malkov & Yashunin 2016, arxiv.org/abs/1603.09320, by faiss), after which a query visits some thousand
    codes instead of all. Below that, and for few queries, `nearest_neighbours` is as fast and exact. The bank
    is held in memory, on the CPU; the graph takes 260 bytes a code besides. On several threads a graph is not
    the same each time.

    The recall is measured: some queries are also answered exactly.

    Args:
        queries: the codes whose neighbours are searched.
        bank: among which they are looked for; without it the queries, each of which is not its own neighbour.
        k: how many.
        metric: "cosine" or "l2", as for `nearest_neighbours`.
        candidates: codes that a walk keeps, at least `k` + 1: the more, the slower and the surer.
        check: for how many queries the recall is measured; NaN with 0.
        seed: of their choice.

    Raises:
        ValueError: faiss is not installed (pip install 'fulgurite[faiss]'), or as `nearest_neighbours` does.
    """
    check_faiss()
    alone = bank is None
    bank = queries if bank is None else bank
    check_search(len(bank), k, metric, alone=alone)
    if candidates <= k:
        raise ValueError(f"{candidates} candidates for {k} neighbours; wanted more")
    chosen = torch.randperm(len(queries), generator=torch.Generator().manual_seed(seed))[: max(1, check)]
    # checks the codes and k, before the graph is built
    true = _exactly(queries, bank, chosen, k, metric, alone=alone)
    places = _walked(queries, bank, k + alone, metric, candidates)
    lost = (places < 0).any(1).nonzero()[:, 0]  # walks that ended in a part of the graph too small
    if alone:
        places = _without(places, torch.arange(len(places)))
    if len(lost):
        places[lost] = _exactly(queries, bank, lost, k, metric, alone=alone)
    found = nearest_of(queries, bank, places.to(queries.device), k=k, metric=metric)
    if not check:
        return ApproximateNeighbours(found, torch.nan, 0)
    same = (true[:, :, None] == found.places[chosen.to(found.places.device)].cpu()[:, None]).any(2)
    return ApproximateNeighbours(found, float(same.double().mean()), len(chosen))


def check_faiss() -> None:
    """Check that faiss is installed.

    Raises:
        ValueError: it is not.
    """
    if find_spec("faiss") is None:
        raise ValueError(
            "approximate neighbours need the package faiss-cpu, which is not installed; pip install "
            "'fulgurite[faiss]'"
        )


def _exactly(
    queries: Float[Tensor, "q d"],
    bank: Float[Tensor, "n d"],
    rows: Int[Tensor, "m"],
    k: int,
    metric: Metric,
    *,
    alone: bool,
) -> Int[Tensor, "m k"]:
    """The places of the true neighbours of some queries."""
    asked = queries[rows.to(queries.device)]
    found = nearest_neighbours(asked, bank, k=k + alone, metric=metric).places.cpu()
    return _without(found, rows) if alone else found


def _walked(
    queries: Float[Tensor, "q d"],
    bank: Float[Tensor, "n d"],
    k: int,
    metric: Metric,
    candidates: int,
) -> Int[Tensor, "q k"]:
    import faiss  # pyright: ignore[reportMissingImports] - an extra

    graph = faiss.IndexHNSWFlat(bank.shape[1], LINKS)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = BUILD, candidates
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        for rows in bank.split(ROWS):
            graph.add(_unit(rows, metric).numpy())
        parts = [graph.search(_unit(rows, metric).numpy(), k)[1] for rows in queries.split(ROWS)]
    finally:
        faiss.omp_set_num_threads(before)
    return torch.cat([torch.from_numpy(part) for part in parts])


def _unit(rows: Float[Tensor, "m d"], metric: Metric) -> Float[Tensor, "m d"]:
    rows = rows.detach().cpu().float()
    if metric == "cosine":
        rows = torch.nn.functional.normalize(rows, eps=torch.finfo(torch.float32).tiny)
    return rows.contiguous()


def _without(places: Int[Tensor, "q k1"], itself: Int[Tensor, "q"]) -> Int[Tensor, "q k"]:
    """The neighbours without the query itself, or without the last where the search missed the query."""
    own = places == itself[:, None]
    own[~own.any(1), -1] = True
    return places[~own].view(len(places), -1)
