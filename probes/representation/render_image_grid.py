"""Pictures of maps of images: thumbnails at their places, and snapped to a grid with seams."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.render import RGB, blank, heat, scale_bar, stacked
from fulgurite.probes.representation.map_quality import seams

SEAM = 3  # pixels


def render_scattered(tiles: Sequence[RGB], points: Float[Tensor, "n 2"], *, side: int = 800) -> RGB:
    """Thumbnails with their middles at the points, x to the right and y upwards; later ones lie on top."""
    high, wide = (max(tile.shape[axis] for tile in tiles) for axis in (1, 2))
    paper = blank(side + high, side + wide)
    low, top = points.amin(0), points.amax(0)
    places = (points - low) / (top - low).clamp(min=1e-12) * side
    for tile, (x, y) in zip(tiles, places.round().long().tolist(), strict=True):
        above, left = side - y + (high - tile.shape[1]) // 2, x + (wide - tile.shape[2]) // 2
        paper[:, above : above + tile.shape[1], left : left + tile.shape[2]] = tile
    return paper


def render_grid(tiles: Sequence[RGB], cells: Int[Tensor, "n 2"], codes: Float[Tensor, "n d"]) -> RGB:
    """Thumbnails in their cells; the seam between two is the brighter, the farther apart their codes are.

    The scale below has the smallest distance on the grid at its left end, and the largest at its right.
    """
    high, wide = (max(tile.shape[axis] for tile in tiles) for axis in (1, 2))
    rows, columns = (int(own) + 1 for own in cells.amax(0))
    step_down, step_right = high + SEAM, wide + SEAM
    paper = blank(rows * step_down, columns * step_right)
    for tile, (row, column) in zip(tiles, cells.tolist(), strict=True):
        above = row * step_down + (high - tile.shape[1]) // 2
        left = column * step_right + (wide - tile.shape[2]) // 2
        paper[:, above : above + tile.shape[1], left : left + tile.shape[2]] = tile
    right, below = seams(codes, cells)
    known = torch.cat([right[right.isfinite()], below[below.isfinite()]])
    if not len(known):
        return paper
    low, top = float(known.min()), float(known.max())
    for distances, down in ((right, False), (below, True)):
        colours = heat(distances - low, top=max(top - low, 1e-12))
        for row, column in distances.isfinite().nonzero().tolist():
            above, left = row * step_down, column * step_right
            band = (
                (slice(above + high, above + step_down), slice(left, left + wide))
                if down
                else (slice(above, above + high), slice(left + wide, left + step_right))
            )
            paper[:, band[0], band[1]] = colours[:, row, column, None, None]
    return stacked([paper, scale_bar("magnitude", top, "seams: 1 - cosine of the two codes", low=low)], gap=4)
