"""Animations of films: a frame for each look, with its epoch and its place in the run, as GIF."""

import io
import math
from collections.abc import Mapping, Sequence

import torch
from PIL import Image

from fulgurite.probes.drawing import Drawing, length
from fulgurite.probes.render import RGB, captioned, enlarged, grid, noted, shrunk, stacked, to_pil
from fulgurite.probes.style import LINE, TITLE, theme

SIDE, LEAST = 900, 240
"""The longer side of a frame, about, at most and at least, in pixels."""
MOST = 4 * 2**20
"""Bytes of a file, at most."""
SHOWN, HELD = 700, 2500
"""Milliseconds for which a frame is shown, and for which the last one is."""
PALETTE = 256


def animated(
    looks: Sequence[tuple[str, Mapping[str, RGB]]], *notes: str, title: str = "", feet: Sequence[RGB] = ()
) -> bytes:
    """A GIF of the looks, one after another for ever, of at most `MOST` bytes.

    Pictures of a name have the same place in every frame, empty where a look has none. All frames share their
    colours, so that what does not change does not flicker.

    Args:
        looks: the label of each, and its pictures by name.
        notes: below the pictures.
        title: above them.
        feet: of each look, below the pictures, such as their scale.
    """
    frames, side = _frames(looks, notes, title, SIDE, feet), SIDE
    while len(file := _encoded(frames)) > MOST and side > LEAST:
        side = side * 3 // 4
        frames = _frames(looks, notes, title, side, feet)
    return file


def _frames(
    looks: Sequence[tuple[str, Mapping[str, RGB]]],
    notes: Sequence[str],
    title: str,
    side: int,
    feet: Sequence[RGB],
) -> list[RGB]:
    names = list(dict.fromkeys(name for _, pictures in looks for name in pictures))
    sizes = [own.shape[1:] for _, pictures in looks for own in pictures.values()]
    high, wide = (max(size[axis] for size in sizes) for axis in (0, 1))
    across = min(range(1, len(names) + 1), key=lambda columns: _apart(columns, len(names), high, wide))
    down = -(-len(names) // across)
    room = min(side / (across * wide), side / (down * high))
    longest = max(1, int(min(1.0, room) * max(high, wide)))
    small = [{name: shrunk(own, side=longest) for name, own in pictures.items()} for _, pictures in looks]
    sizes = [own.shape[1:] for pictures in small for own in pictures.values()]
    high, wide = (max(size[axis] for size in sizes) for axis in (0, 1))
    times = max(1, min(int(room), LEAST // max(high * down, wide * across)))
    fields = []
    for place, pictures in enumerate(small):
        tiles = []
        for name in names:
            paper = Drawing(wide * times, high * times)
            if (own := pictures.get(name)) is not None:
                paper.put((0, 0), enlarged(own, side=times * min(own.shape[1:])))
            tiles.append(captioned(paper.pixels(), *([name] if len(names) > 1 else [])))
        field = grid(tiles, columns=across, gap=4)
        fields.append(noted(stacked([field, feet[place]]) if feet else field, *notes))
    return [_framed(field, place, looks, title) for place, field in enumerate(fields)]


def _apart(columns: int, count: int, high: int, wide: int) -> float:
    """How far a field of this many columns is from the shape of a screen."""
    return abs(math.log(columns * wide / (-(-count // columns) * (high + LINE)) / 1.3))


def _framed(field: RGB, place: int, looks: Sequence[tuple[str, Mapping[str, RGB]]], title: str) -> RGB:
    """Title, epoch, and a line with a dot for the progress of the run."""
    words, top = called(looks[place][0]), LINE + 22
    line = f"{title}, {words}" if title else words
    width = max(
        field.shape[2], 8 + max(int(length(f"{title}, {called(label)}", TITLE)) for label, _ in looks)
    )
    paper = Drawing(width, top + field.shape[1])
    paper.text((4, 2), line, size=TITLE)
    at = [6 + (width - 12) * number / (len(looks) - 1) for number in range(len(looks))]
    paper.line([(at[0], LINE + 11), (at[-1], LINE + 11)], theme().faint)
    for x in at:
        paper.dot((x, LINE + 11), 2, theme().faint)
    paper.dot((at[place], LINE + 11), 4, theme().ink)
    paper.put((0, top), field)
    return paper.pixels()


def called(label: str) -> str:
    """The label of a look: "start" is the network before training, a number is an epoch."""
    if label == "start":
        return "before training"
    return f"epoch {label}" if label.isdecimal() else label


def _encoded(frames: Sequence[RGB]) -> bytes:
    images = [to_pil(frame) for frame in frames]
    # colours of all frames, from every few pixels of each
    some = torch.cat([frame[:, ::2, ::2].flatten(1) for frame in frames], 1)
    wide = max(1, round(some.shape[1] ** 0.5))
    sample = to_pil(some[:, : some.shape[1] // wide * wide].reshape(3, -1, wide))
    palette = sample.quantize(PALETTE, Image.Quantize.MAXCOVERAGE)
    few = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    file = io.BytesIO()
    shown = [SHOWN] * (len(few) - 1) + [HELD]
    few[0].save(file, "GIF", save_all=True, append_images=few[1:], duration=shown, loop=0)
    return file.getvalue()
