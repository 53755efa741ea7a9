"""Pooling to a grid of cells, and its deterministic backward pass."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.models.small_networks import GridPool


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (6, 10), (3, 5), (1, 1), (9, 4)], ids=str)
def test_it_is_adaptive_average_pooling_and_so_is_its_way_back(size, monkeypatch):
    maps = torch.rand(2, 3, *size, dtype=torch.float64)
    way = torch.rand(2, 3, 4, 4, dtype=torch.float64)

    def both(pool: nn.Module) -> tuple:
        leaf = maps.clone().requires_grad_()
        out = pool(leaf)
        return out, torch.autograd.grad(out, leaf, way)[0]

    expected = both(nn.AdaptiveAvgPool2d(4))
    assert_close(both(GridPool(4)), expected)
    by_products = GridPool(4)
    down, across = (by_products._parts(side, maps) for side in size)
    assert_close(down @ maps @ across.T, expected[0])


def test_where_cells_do_not_overlap_its_float32_is_the_same_to_the_last_bit():
    maps = torch.rand(2, 3, 8, 8)
    assert torch.equal(GridPool(4)(maps), nn.AdaptiveAvgPool2d(4)(maps))
