"""Accumulators: statistics of a stream of images that merge over batches and processes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

TAIL = 8  # a process's last images: where samplers pad, they pad at the end


class Accumulator(ABC):
    """Statistics that are updated batch by batch, merge across processes, and are saved as tensors."""

    @abstractmethod
    def merge(self, other: "Accumulator") -> None:
        """Add the statistics of other images, from an accumulator with the same arguments."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """All that it holds."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the `state_dict` of an accumulator with the same arguments."""


class Sums(Accumulator):
    """Sums of per-image values, each image counted once, by its id; ids start at 0.

    The sums do not depend, up to rounding in float64, on how images are split into batches and processes. An
    id that is repeated adds nothing. One that two processes have counted is subtracted when they merge, if it
    is among the last eight images of either: samplers put their padding there.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.seen = torch.zeros(0, dtype=torch.bool)  # by id
        self.tail: dict[str, Tensor] = {}

    @abstractmethod
    def _sums_of(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What these images add."""

    def _add(self, ids: Int[Tensor, "n"], rows: Mapping[str, Tensor]) -> None:
        self.seen = self.seen.to(ids.device)
        if len(ids) and int(ids.max()) >= len(self.seen):
            self.seen = _longer(self.seen, max(int(ids.max()) + 1, 2 * len(self.seen)))
        new = ~self.seen[ids] & _first(ids)
        rows = {"ids": ids, **rows}
        if not bool(new.all()):
            rows = {name: values[new] for name, values in rows.items()}
        if not len(rows["ids"]):
            return
        self.seen[rows["ids"]] = True
        self._plus(self._sums_of(rows))
        self.tail = {
            name: torch.cat([*([self.tail[name]] if self.tail else []), values[-TAIL:]])[-TAIL:].clone()
            for name, values in rows.items()
        }

    def _plus(self, sums: Mapping[str, Tensor], sign: int = 1) -> None:
        if self.sums and self.sums.keys() != sums.keys():
            raise ValueError(f"sums of {', '.join(sums)}; wanted those of {', '.join(self.sums)}, as before")
        self.sums = {
            name: value
            if name not in self.sums
            else self.sums[name] + sign * value.to(self.sums[name].device)
            for name, value in sums.items()
        }

    def merge(self, other: "Accumulator") -> None:
        """Add the sums of other images; images counted in both are subtracted once.

        Raises:
            ValueError: the other has different arguments, or images were counted in both that are not among
                the last of either.
        """
        if not isinstance(other, type(self)):
            raise ValueError(
                f"a {type(other).__name__} to merge with a {type(self).__name__}; wanted another one"
            )
        if not other.sums:
            return
        length = max(len(self.seen), len(other.seen))
        mine, theirs = _longer(self.seen, length), _longer(other.seen.to(self.seen.device), length)
        twice = (mine & theirs).nonzero()[:, 0]
        tails = [tail for tail in (other.tail, self.tail) if tail]
        rows = {name: torch.cat([tail[name].to(mine.device) for tail in tails]) for name in other.tail}
        padding = torch.isin(rows["ids"], twice) & _first(rows["ids"])
        if int(padding.sum()) < len(twice):
            missing = sorted({*twice.tolist()} - {*rows["ids"].tolist()})
            raise ValueError(
                f"{len(missing)} images were counted in both, such as {missing[0]}; wanted each in one, "
                "as of ids=range(rank, count, ranks)"
            )
        self.seen = mine | theirs
        self._plus(other.sums)
        if len(twice):
            self._plus(self._sums_of({name: values[padding] for name, values in rows.items()}), -1)
        kept = _first(rows["ids"])
        self.tail = {name: values[kept] for name, values in rows.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The sums, the ids that they include, and the last images."""
        named = {"sums": self.sums, "tail": self.tail}
        parts = {f"{kind}/{name}": value for kind, own in named.items() for name, value in own.items()}
        return {"seen": self.seen, **parts}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the `state_dict` of an accumulator with the same arguments."""
        self.seen = state["seen"].clone()
        self.sums, self.tail = (
            {
                key.removeprefix(f"{kind}/"): value.clone()
                for key, value in state.items()
                if key.startswith(f"{kind}/")
            }
            for kind in ("sums", "tail")
        )


class Counts(Sums):
    """How many images fall into each cell of a table: a confusion matrix, a histogram, dead units."""

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape

    def update(self, ids: Int[Tensor, "n"], *cells: Int[Tensor, "n ..."]) -> None:
        """Count one cell for each image, or several: a tensor of indices for each dimension of the table.

        Raises:
            ValueError: not as many tensors as the table has dimensions, or an index outside it.
        """
        if len(cells) != len(self.shape):
            raise ValueError(f"{len(cells)} indices for a table of {' x '.join(map(str, self.shape))}")
        for cell, size in zip(cells, self.shape, strict=True):
            if cell.numel() and not (int(cell.min()) >= 0 and int(cell.max()) < size):
                raise ValueError(
                    f"indices from {int(cell.min())} to {int(cell.max())}; wanted 0 to {size - 1}"
                )
        place = torch.zeros_like(cells[0], dtype=torch.long)
        for cell, size in zip(cells, self.shape, strict=True):
            place = place * size + cell
        self._add(ids, {"place": place})

    def _sums_of(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"counts": torch.bincount(rows["place"].flatten(), minlength=math.prod(self.shape))}

    @property
    def counts(self) -> Int[Tensor, "..."]:
        """The table."""
        empty = torch.zeros(math.prod(self.shape), dtype=torch.long)
        return self.sums.get("counts", empty).reshape(self.shape)


def _first(ids: Int[Tensor, "n"]) -> Tensor:
    """Which of the ids are new."""
    order = ids.argsort(stable=True)
    again = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    again[order[1:]] = ids[order[1:]] == ids[order[:-1]]
    return ~again


def _longer(seen: Tensor, length: int) -> Tensor:
    return torch.cat([seen, seen.new_zeros(max(0, length - len(seen)))])
