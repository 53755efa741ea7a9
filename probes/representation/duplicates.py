"""Near-duplicates among images, by their codes and by their pixels."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.counted import counted
from fulgurite.probes.representation.neighbours import nearest_neighbours


class Duplicate(NamedTuple):
    """Two images that are nearly the same.

    Args:
        one: place of the first.
        other: place of the second, among the others where there are others.
        by: the measure by which they are closest.
        distance: as a share of the usual distance from an image to its nearest; 0 for copies.
    """

    one: int
    other: int
    by: str
    distance: float


def near_duplicates(
    vectors: Mapping[str, Float[Tensor, "n _"]],
    others: Mapping[str, Float[Tensor, "m _"]] | None = None,
    *,
    share: float = 0.1,
    k: int = 5,
) -> list[Duplicate]:
    """Pairs of images far closer than images usually are to their nearest, the closest first.

    Codes hardly change under transformations that the network ignores; a pair counts if it is close by any of
    the measures. Distances are 1 less the cosine. "Usual" is the median over all images, so that more than
    half of them must have no duplicate.

    Args:
        vectors: of the images, by measure, such as "codes" and "pixels" (see `pixel_codes`).
        others: among which to look, such as training images; the images themselves without it.
        share: of the usual distance, at most.
        k: duplicates of one image, at most.

    Raises:
        ValueError: fewer than three images, or a share that is not from 0 to 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share={share}; wanted from 0 to less than 1")
    found: dict[tuple[int, int], Duplicate] = {}
    for name, own in vectors.items():
        bank = None if others is None else others[name]
        count = len(own) - 1 if bank is None else len(bank)
        if len(own) < 3 or count < 1:
            raise ValueError(
                f"{counted(len(own), 'image')} among {max(count, 0)} others; wanted at least 3, and 1 other"
            )
        near = nearest_neighbours(own, bank, k=min(k, count))
        usual = float(near.distances[:, 0].median())
        limit = share * usual if usual > 0 else 1e-12
        for row, column in (near.distances <= limit).nonzero().tolist():
            one, other = row, int(near.places[row, column])
            pair = (one, other) if others is not None else (min(one, other), max(one, other))
            distance = float(near.distances[row, column]) / usual if usual > 0 else 0.0
            if pair not in found or distance < found[pair].distance:
                found[pair] = Duplicate(*pair, name, distance)
    return sorted(found.values(), key=lambda pair: (pair.distance, pair.one, pair.other))
