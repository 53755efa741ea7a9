"""The bars of the transfer benchmarks, on invented numbers."""

import torch

from benchmarks import attack_transfer, transfer_layers
from fulgurite.probes.robustness.transfer_matrix import TransferMatrix
from fulgurite.recipes.transferability import Copied, Transferability


def matrix(*, across: int, own: int = 50) -> TransferMatrix:
    """Two networks right on 50 images; noise fools each on 2, its own images on `own`, others on `across`."""
    fooled = torch.zeros(3, 2, 60, dtype=torch.bool)
    for source in (0, 1):
        fooled[source, source, :own] = True
        fooled[source, 1 - source, :across] = True
    fooled[2, :, :2] = True
    right = torch.arange(60).expand(2, -1) < 50
    return TransferMatrix(("one", "other"), right, fooled)


def test_transfer_counts_where_it_is_above_noise_by_more_than_the_interval():
    own, others = attack_transfer.bars(matrix(across=20))
    assert own.endswith("100.0%; bar: 100 %: met")
    assert "+36.0 ± 13" in others
    assert others.endswith(": met")
    own, others = attack_transfer.bars(matrix(across=4, own=49))
    assert own.endswith("98.0%; bar: 100 %: missed")
    assert "+4.0 ± 5" in others
    assert others.endswith(": missed")
    head, *rows = attack_transfer.matrix_rows(matrix(across=20))
    assert head[0] == "clean accuracy"
    assert [round(share) for share in head[1:]] == [83, 83]
    assert [row[1:] for row in rows] == [[100, 40], [40, 100], [4, 4]]


def test_depth_counts_by_differences_within_seeds():
    def found(deep: list[float], tuned: list[float]) -> Transferability:
        first = [0.7, 0.5, 0.9]
        kinds = {Copied("AnB", 1): first, Copied("AnB", 2): deep, Copied("AnB+", 1): tuned}
        return Transferability(("low", "high"), tuple(first), {**kinds, Copied("AnB+", 2): first})

    falls, reaches = transfer_layers.bars(found([0.6, 0.41, 0.79], [0.7, 0.5, 0.9]))
    assert "-10.0 ± 2" in falls
    assert falls.endswith(": met")
    assert reaches.endswith(": met")
    falls, reaches = transfer_layers.bars(found([0.6, 0.6, 0.8], [0.65, 0.44, 0.85]))
    assert falls.endswith(": missed")
    assert reaches.endswith(": missed")
