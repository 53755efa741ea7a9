"""Philox against published numbers."""

import pytest
import torch
from torch.testing import assert_close

from fulgurite.probes.counter_random import normal, uniform, words

# known answers of the authors' library, Random123, for philox4x32 with 10 rounds
ANSWERS = [(0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8))]


def philox(counter: list[int], key: list[int]) -> list[int]:
    """The paper's rounds, one number at a time, in integers of any length."""
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second % 2**32,
            (first >> 32) ^ counter[3] ^ key[1],
            first % 2**32,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


@pytest.mark.parametrize(("seed", "number", "expected"), ANSWERS)
def test_words_are_the_authors_own(seed, number, expected):
    assert words(seed, torch.tensor([number]), 4).tolist() == [list(expected)]
    assert philox([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("seed", [0, 1, 2**31 + 7, 2**40 + 3])
def test_words_are_what_the_paper_computes_one_by_one(seed):
    numbers = torch.tensor([0, 1, 7, 2**33 + 5])
    found = words(seed, numbers, 10)
    for row, number in zip(found.tolist(), numbers.tolist(), strict=True):
        slow = [
            philox([block, number % 2**32, number >> 32, 0], [seed % 2**32, seed >> 32]) for block in range(3)
        ]
        assert row == torch.tensor(slow).flatten()[:10].tolist()


def test_what_a_number_gets_does_not_depend_on_the_others():
    numbers = torch.tensor([9, 2, 5])
    assert_close(normal(3, numbers, 2, 3)[1:2], normal(3, numbers[1:2], 2, 3), rtol=0, atol=0)
    assert not torch.equal(uniform(3, numbers, 4)[0], uniform(4, numbers, 4)[0])


def test_numbers_are_even_and_normal():
    drawn = uniform(0, torch.arange(200), 1000)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(float(drawn.mean()) - 0.5) < 0.003
    assert_close(torch.histc(drawn, 10, 0, 1) / drawn.numel(), torch.full((10,), 0.1), rtol=0, atol=0.003)
    bell = normal(0, torch.arange(200), 3, 333)
    assert abs(float(bell.mean())) < 0.01
    assert abs(float(bell.std()) - 1) < 0.01
    assert abs(float((bell.abs() > 1.96).float().mean()) - 0.05) < 0.003
    assert abs(float(torch.corrcoef(bell.flatten(1)[:2])[0, 1])) < 0.1
