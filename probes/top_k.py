"""The images, and the positions in them, at which each unit of a layer responds most."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.accumulators import Accumulator


class TopK(Accumulator):
    """The `k` images with the largest responses of each unit; of maps, each image's largest, and where it is.

    `values` [units, k] are sorted, largest first; `ids` are those of their images, and `positions` [units, k,
    2] the row and column in the layer's maps (0, 0 where there are no maps). Where there were fewer than `k`
    images, the values are -inf and the ids -1. Of equal values, the lower id comes first. An image that is
    repeated, in a batch, later, or in another process, counts once, so that the result does not depend on how
    images are split into batches and processes.
    """

    def __init__(self, k: int):
        if k < 1:
            raise ValueError(f"the top {k}; wanted at least 1")
        self.k = k
        self.values = torch.zeros(0, k)
        self.ids = torch.zeros(0, k, dtype=torch.long)
        self.positions = torch.zeros(0, k, 2, dtype=torch.long)

    @torch.no_grad()
    def update(
        self,
        ids: Int[Tensor, "n"],
        values: Float[Tensor, "n units"] | Float[Tensor, "n units h w"],
        positions: Int[Tensor, "n units 2"] | None = None,
    ) -> None:
        """Add the responses of some images; of maps, the largest of each, with its position.

        Raises:
            ValueError: a response is NaN.
        """
        if bool(values.isnan().any()):
            raise ValueError("responses that are NaN")
        if positions is not None:
            self._keep(values.T, ids.expand(values.shape[1], -1), positions.transpose(0, 1))
            return
        maps = values if values.dim() == 4 else values[..., None, None]
        flat = maps.flatten(2)
        place = flat.argmax(2, keepdim=True)
        positions = torch.stack([place[..., 0] // maps.shape[3], place[..., 0] % maps.shape[3]], -1)
        units = values.shape[1]
        candidates = flat.gather(2, place)[..., 0].T, ids.expand(units, -1), positions.transpose(0, 1)
        self._keep(*candidates)

    def merge(self, other: Accumulator) -> None:
        """Add the responses of another one, of the same units."""
        if not isinstance(other, TopK) or other.k != self.k:
            raise ValueError(f"wanted another top {self.k} to merge with")
        if len(other.values):
            device = self.values.device if len(self.values) else other.values.device
            self._keep(*(part.to(device) for part in (other.values, other.ids, other.positions)))

    def state_dict(self) -> dict[str, Tensor]:
        """Values, ids and positions."""
        return {"values": self.values, "ids": self.ids, "positions": self.positions}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Hold what `state_dict` gave."""
        self.values, self.ids, self.positions = (
            state[name].clone() for name in ("values", "ids", "positions")
        )

    def _keep(self, values: Tensor, ids: Tensor, positions: Tensor) -> None:
        if not len(self.values):
            self.values = values.new_full((len(values), self.k), -torch.inf)
            self.ids = ids.new_full((len(values), self.k), -1)
            self.positions = positions.new_zeros(len(values), self.k, 2)
        if len(values) != len(self.values):
            raise ValueError(f"{len(values)} units; wanted {len(self.values)}, as before")
        if not values.shape[1]:
            return
        values = values.to(self.values.dtype)
        # after some thousand images, most units' largest response of a batch is below all that they keep
        rows = (values.amax(1) >= self.values[:, -1]).nonzero()[:, 0]
        merged = _largest(
            torch.cat([self.values[rows], values[rows]], 1),
            torch.cat([self.ids[rows], ids[rows]], 1),
            torch.cat([self.positions[rows], positions[rows]], 1),
        )
        self.values, self.ids, self.positions = (
            own.index_copy(0, rows, new[:, : self.k])
            for own, new in zip((self.values, self.ids, self.positions), merged, strict=True)
        )


def _largest(values: Tensor, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest value first, of equal ones the lowest id; each id once, with its largest value."""
    # by id, of the same the largest value first; the others of the same id are left out
    values, ids, positions = _sorted(values, ids, positions, by=-values)
    values, ids, positions = _sorted(values, ids, positions, by=ids)
    again = torch.zeros_like(ids, dtype=torch.bool)
    again[:, 1:] = ids[:, 1:] == ids[:, :-1]
    values = values.masked_fill(again, -torch.inf)
    ids, positions = ids.masked_fill(again, -1), positions.masked_fill(again[..., None], 0)
    # a response of -inf comes before an empty place
    values, ids, positions = _sorted(values, ids, positions, by=(ids < 0).to(values.dtype))
    return _sorted(values, ids, positions, by=-values)


def _sorted(values: Tensor, ids: Tensor, positions: Tensor, *, by: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = by.argsort(dim=1, stable=True)
    return (
        values.gather(1, order),
        ids.gather(1, order),
        positions.gather(1, order[..., None].expand(-1, -1, 2)),
    )
