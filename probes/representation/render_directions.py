"""Strongest images along units and along random directions, side by side, with their class purity."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.render import RGB, captioned, grid, picture, sheet, short_number
from fulgurite.probes.representation.directions import Directions, Purity, StrongestImages


def render_directions(
    found: Directions,
    images: Mapping[int, Float[Tensor, "c h w"]],
    units: Sequence[int],
    names: Sequence[str],
    *,
    purities: Mapping[str, Purity] | None = None,
    side: int = 64,
) -> RGB:
    """A row for each unit, and right of it one for each random direction; strongest images first.

    Args:
        found: the strongest images.
        images: by their places, as far as they are shown: see `shown_along`.
        units: the numbers of the units that are shown; as many directions are, the first ones.
        names: of all images: their classes, or their files.
        purities: see `Directions.purities`; written below.
        side: of a tile, in pixels.
    """
    blocks = []
    for key, own, rows in (
        ("units", found.units, [*units]),
        ("random directions", found.random, [*range(min(len(units), len(found.random.places)))]),
    ):
        tiles = {}
        for row in rows:
            silent = bool((own.values[row] == 0).all())
            name = f"{'unit' if key == 'units' else 'direction'} {row}{': silent' * silent}"
            tiles[name] = _tiles(own, row, images, names, side)
        paper = sheet(tiles, columns=[str(place + 1) for place in range(own.places.shape[1])])
        note = "" if purities is None else f"; class purity of all {purity_text(purities[key])}"
        blocks.append(captioned(paper, f"{key}{note}"))
    paper = grid(blocks, columns=2, gap=8)
    if purities is None:
        return paper
    return captioned(paper, f"images drawn at random: {purity_text(purities['images drawn at random'])}")


def shown_along(found: Directions, units: Sequence[int]) -> list[int]:
    """The places of all images in such a picture."""
    parts = found.units.places[list(units)], found.random.places[: len(units)]
    return sorted({place for part in parts for place in part.flatten().tolist()})


def purity_text(purity: Purity) -> str:
    """The mean with its standard error, and of how many."""
    if not purity.units:
        return "-, all are silent"
    return f"{purity.mean:.3f} ± {purity.error:.3f} ({purity.units})"


def _tiles(
    own: StrongestImages,
    row: int,
    images: Mapping[int, Float[Tensor, "c h w"]],
    names: Sequence[str],
    side: int,
) -> list[RGB]:
    return [
        captioned(sized(picture(images[place]), side), names[int(place)], short_number(value))
        for place, value in zip(own.places[row].tolist(), own.values[row].tolist(), strict=True)
    ]
