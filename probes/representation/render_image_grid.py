"""Pictures of maps of images: thumbnails at their places, and snapped to a grid with seams."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.render import BACKGROUND, RGB, captioned, heat
from fulgurite.probes.representation.maps import seams

SEAM = 3  # pixels


def render_scattered(tiles: Sequence[RGB], points: Float[Tensor, "n 2"], *, side: int = 800) -> RGB:
    """Thumbnails with their middles at the points, x to the right and y upwards; later ones lie on top."""
    high, wide = (max(tile.shape[axis] for tile in tiles) for axis in (1, 2))
    paper = _blank(side + high, side + wide)
    low, top = points.amin(0), points.amax(0)
    places = (points - low) / (top - low).clamp(min=1e-12) * side
    for tile, (x, y) in zip(tiles, places.round().long().tolist(), strict=True):
        above, left = side - y + (high - tile.shape[1]) // 2, x + (wide - tile.shape[2]) // 2
        paper[:, above : above + tile.shape[1], left : left + tile.shape[2]] = tile
    return paper


def render_grid(tiles: Sequence[RGB], cells: Int[Tensor, "n 2"], codes: Float[Tensor, "n d"]) -> RGB:
    """Thumbnails in their cells; the seam between two is the brighter, the farther apart their codes are.

    From black for the smallest distance on the grid to pale yellow for the largest; the caption has both.
    """
    high, wide = (max(tile.shape[axis] for tile in tiles) for axis in (1, 2))
    rows, columns = (int(own) + 1 for own in cells.amax(0))
    step_down, step_right = high + SEAM, wide + SEAM
    paper = _blank(rows * step_down, columns * step_right)
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
    return captioned(paper, f"seams: 1 - cosine of codes, {low:.2f} (black) to {top:.2f} (yellow)")


def _blank(height: int, width: int) -> RGB:
    return torch.tensor(BACKGROUND, dtype=torch.uint8)[:, None, None].expand(3, height, width).clone()
