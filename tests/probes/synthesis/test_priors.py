import pytest
import torch
from torch.testing import assert_close

from fulgurite.probes.synthesis.priors import l2, total_variation

IMAGES = torch.tensor([[[[1.0, 2], [4, 8]]], [[[0, 0], [0, 3]]]])
COLOURS = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 1)


@pytest.mark.parametrize(
    ("prior", "images", "expected"),
    [
        (l2(2.0), IMAGES, [2 * 85, 2 * 9]),
        (l2(1.0, background=[1.0]), IMAGES, [0 + 1 + 9 + 49, 1 + 1 + 1 + 4]),
        (l2(1.0, background=[0.5, 0.0]), COLOURS, [3]),
        (total_variation(1.0), IMAGES, [1 + 16 + 9 + 36, 9 + 9]),
        (total_variation(0.5), COLOURS, [0]),
        (total_variation(1.0), IMAGES[:, :, :1, :1], [0, 0]),
        (l2(1.0), IMAGES[:0], []),
        (total_variation(1.0), IMAGES[:0], []),
    ],
)
def test_a_prior_costs_what_was_worked_out_by_hand(prior, images, expected):
    assert_close(prior(images), torch.tensor(expected, dtype=torch.float32))
