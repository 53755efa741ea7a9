"""The type checker of the tests: values that do not fit their annotations are reported everywhere."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
import typecheck
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.tokens import TokenGrid

check = typecheck.jaxtyped(typechecker=typecheck.checked)
ROW, WIDE = torch.ones(2, 3), torch.ones(3, 4)


@check
def product(one: Float[Tensor, "a b"], other: Float[Tensor, "b c"], power: int = 1) -> Float[Tensor, "a c"]:
    return one @ other if power == 1 else one


def rest(shorter: bool) -> Callable:
    @check
    def values(row: Float[Tensor, "a"], *more: int, **names: str) -> Float[Tensor, "a"]:
        return row[1:] if shorter else row

    return values


@check
@dataclass
class Pair:
    count: int
    values: Float[Tensor, "n"]

    @check
    def grown(self, factor: float) -> int:
        return factor

    @property
    @check
    def name(self) -> str:
        return self.count

    @classmethod
    @check
    def of(cls, count: int) -> "Pair":
        return cls(count, torch.ones(count))

    @staticmethod
    @check
    def each(count: int) -> Iterator[int]:
        yield from range(count)


def test_what_fits_passes():
    assert product(ROW, WIDE).shape == (2, 4)
    assert product(WIDE, torch.ones(4, 1), power=1).shape == (3, 1)  # other sizes in another call
    assert rest(False)(torch.ones(3), 1, 2, name="x").shape == (3,)
    pair = Pair.of(2)
    assert pair.grown(3) == 3  # an int is welcome as a float
    assert list(Pair.each(2)) == [0, 1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: product(ROW, torch.ones(4, 4)),
        lambda: product(ROW, torch.ones(3)),
        lambda: product(ROW, WIDE.int()),
        lambda: product(ROW, WIDE, power="x"),
        lambda: product(ROW, WIDE, 2),
        lambda: rest(False)(torch.ones(3, 1)),
        lambda: rest(False)(torch.ones(3), "x"),
        lambda: rest(False)(torch.ones(3), name=1),
        lambda: rest(True)(torch.ones(3)),
        lambda: Pair("x", torch.ones(1)),
        lambda: Pair(1, torch.ones(1, 1)),
        lambda: Pair.of(1).grown("x"),
        lambda: Pair.of(1).grown(2.5),
        lambda: Pair.of(1).name,
        lambda: Pair.of("x"),
        lambda: Pair.each("x"),
        lambda: TokenGrid(1, (2, 2)).maps(torch.ones(3)),
        lambda: Linf({}),
    ],
)
def test_what_does_not_is_reported(call: Callable):
    for _ in range(2):
        with pytest.raises(TypeCheckError):
            call()
