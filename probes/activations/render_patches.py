"""Strongest patches as pictures: receptive fields and activation values in white on the images."""

from collections.abc import Mapping, Sequence

import torch
from PIL import ImageDraw

from fulgurite.probes.activations.patches import Patch, Patches, class_purity, labels_of
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.render import (
    RGB,
    captioned,
    font,
    from_pil,
    grid,
    sheet,
    short_number,
    to_pil,
)

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def render_patches(found: Patches, *, side: int = 96) -> RGB:
    """The patches of a layer: a row for each unit, strongest first; channels left, random directions right.

    Each tile shows the receptive field in a white box, with some of the image around it, and the response in
    white. Below are the class purity of both kinds of units, the layer, and its receptive field.

    Args:
        found: the patches.
        side: of a tile, in pixels.
    """
    channels = dict(zip(map(str, found.channels), found.of_channels, strict=True))
    directions = {f"direction {place}": patches for place, patches in enumerate(found.of_directions)}
    blocks = [
        _block(title, rows, side)
        for title, rows in (("channels", channels), ("random directions", directions))
        if rows
    ]
    field = "the whole image" if found.field is None else _field(found.field.size, found.field.stride)
    note = f"{found.layer or 'logits'}; white box: receptive field, {field}; value: response"
    return captioned(grid(blocks, columns=len(blocks), gap=8), note)


def render_patch(patch: Patch, *, side: int = 96) -> RGB:
    """A patch with what is around it, the receptive field in a white box, the response in white."""
    tile = sized(patch.pixels, side)
    top, left, bottom, right = patch.window
    down, across = tile.shape[1] / (bottom - top), tile.shape[2] / (right - left)
    upper, lower = (round((edge - top) * down) for edge in (patch.box[0], patch.box[2]))
    near, far = (round((edge - left) * across) for edge in (patch.box[1], patch.box[3]))
    # one pixel at least, on the tile, also where a unit sees padding alone
    upper, near = min(upper, tile.shape[1] - 3), min(near, tile.shape[2] - 3)
    corner = max(far - 1, near + 2), max(lower - 1, upper + 2)
    image = to_pil(tile)
    pen = ImageDraw.Draw(image)
    pen.rectangle((near, upper, *corner), outline=WHITE)
    pen.rectangle((near + 1, upper + 1, corner[0] - 1, corner[1] - 1), outline=BLACK)
    text = short_number(patch.value)
    start = max(0, min(near + 4, tile.shape[2] - 2 - int(font().getlength(text))))
    pen.text(
        (start, min(upper + 2, tile.shape[1] - 16)),
        text,
        WHITE,
        font=font(),
        stroke_width=1,
        stroke_fill=BLACK,
    )
    return from_pil(image)


def _block(title: str, rows: Mapping[str, Sequence[Patch]], side: int) -> RGB:
    tiles = {
        name if patches[0].value != 0 else f"{name}: silent": [
            render_patch(patch, side=side) for patch in patches
        ]
        for name, patches in rows.items()
    }
    columns = [str(place + 1) for place in range(max(map(len, rows.values())))]
    labels = labels_of(list(rows.values()))
    values = torch.tensor([[patch.value for patch in patches] for patches in rows.values()])
    note = "" if labels is None else f"; class purity of these {class_purity(labels, values):.2f}"
    return captioned(sheet(tiles, columns=columns), f"{title}{note}")


def _field(size: tuple[int, int], stride: tuple[int, int]) -> str:
    across = " x ".join(str(one) for one in dict.fromkeys(size))
    return f"{across} pixels at stride {' x '.join(str(one) for one in dict.fromkeys(stride))}"
