"""Pictures of nearest neighbours: the query first, those in code space, then those in pixel space."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.render import RGB, blank, captioned, picture, sheet
from fulgurite.probes.representation.neighbours import Neighbours
from fulgurite.probes.style import Colour, rgb, theme

EDGE = 2
DISTANCES = {"cosine": "1 - cosine", "l2": "L2 distance"}  # the numbers below neighbours, by metric


def render_neighbours(
    images: Mapping[int, Float[Tensor, "c h w"]],
    queries: Sequence[int],
    found: Sequence[tuple[str, Neighbours]],
    names: Sequence[str],
    *,
    classes: Int[Tensor, "n"] | None = None,
    side: int = 64,
) -> RGB:
    """A row for each query: the image, and its neighbours by each measure, with their distances.

    Args:
        images: by their places among those that were searched, as far as they are shown: see `shown`.
        queries: places of the images whose neighbours are shown.
        found: the neighbours of the queries, by the name of the measure.
        names: of all images, as captions.
        classes: of all images; neighbours of the query's class have a green edge, others a red one.
        side: of a tile, in pixels.
    """
    rows = {}
    for row, query in enumerate(queries):
        tiles = [captioned(_framed(images[query], theme().background, side), names[query])]
        for number, (_, own) in enumerate(found):
            if number:
                tiles.append(blank(side, 8))
            for place, distance in zip(own.places[row].tolist(), own.distances[row].tolist(), strict=True):
                edge: Colour = theme().background if classes is None else theme().error
                if classes is not None and classes[place] == classes[query]:
                    edge = theme().fine
                caption = names[int(place)], f"{distance:.3g}"
                tiles.append(captioned(_framed(images[place], edge, side), *caption))
        rows[f"{row + 1}"] = tiles
    columns = ["query"]
    for number, (name, own) in enumerate(found):
        columns += [""] * bool(number) + [name] + [""] * (own.places.shape[1] - 1)
    return sheet(rows, columns=columns)


def shown(queries: Sequence[int], found: Sequence[tuple[str, Neighbours]]) -> list[int]:
    """The places of all images in such a picture."""
    return sorted({*queries}.union(*(own.places.flatten().tolist() for _, own in found)))


def _framed(image: Float[Tensor, "c h w"], edge: Colour, side: int) -> RGB:
    inside = sized(picture(image), side)
    height, width = inside.shape[1:]
    frame = torch.tensor(rgb(edge), dtype=torch.uint8)[:, None, None]
    frame = frame.expand(3, height + 2 * EDGE, width + 2 * EDGE).clone()
    frame[:, EDGE:-EDGE, EDGE:-EDGE] = inside
    return frame
