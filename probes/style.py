"""Style of all pictures: two themes, and the colours of lines, magnitudes and signed values."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Colour = str | tuple[int, ...]
Stops = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Theme:
    """Colours of a picture: of paper, text, lines of a grid, curves, and values.

    Zero looks much like the paper, in `magnitudes` (from 0 up) as in `signed` (from the most negative value,
    blue, to the most positive, orange): a map of zeros looks empty. Blue and orange can be told apart with
    any colour vision, and both ends are equally far from the paper in lightness.
    """

    background: tuple[int, int, int]
    ink: tuple[int, int, int]
    faint: tuple[int, int, int]
    curves: tuple[str, ...]
    magnitudes: Stops
    signed: Stops
    error: str
    fine: str

    @property
    def separator(self) -> tuple[int, int, int]:
        """The colour of lines between tiles: between that of a grid's lines and ink."""
        red, green, blue = ((2 * faint + ink) // 3 for faint, ink in zip(self.faint, self.ink, strict=True))
        return red, green, blue


DARK = Theme(
    background=(24, 24, 28),
    ink=(225, 225, 230),
    faint=(66, 66, 72),
    curves=(
        *("#4c9be8", "#f28e2b", "#59c15a", "#e15759", "#b07aa1"),
        *("#c49a6c", "#ff9da7", "#a0a6ad", "#e3d04b", "#4fd6d0"),
    ),
    # from black through violet and orange to pale yellow, lightness rising evenly
    magnitudes=(
        *((0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85)),
        *((227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)),
    ),
    signed=(
        *((138, 200, 255), (64, 140, 250), (24, 70, 150), (8, 10, 14)),
        *((116, 56, 8), (236, 120, 16), (255, 192, 116)),
    ),
    error="#ff6b6b",
    fine="#59c15a",
)

LIGHT = Theme(
    background=(255, 255, 255),
    ink=(20, 20, 24),
    faint=(216, 216, 220),
    curves=(
        *("#0072b2", "#d55e00", "#1b8a4b", "#b03060", "#7a4f9a"),
        *("#8c6d31", "#c2569a", "#6b7075", "#a89000", "#008b8b"),
    ),
    # from white through yellow and violet to black, lightness falling
    magnitudes=(
        *((255, 255, 255), (252, 236, 160), (249, 190, 70), (240, 132, 20), (216, 80, 60)),
        *((172, 46, 92), (118, 26, 108), (66, 12, 92), (10, 4, 30)),
    ),
    signed=(
        *((8, 36, 100), (36, 100, 200), (150, 196, 244), (255, 255, 255)),
        *((252, 204, 146), (212, 104, 14), (100, 42, 0)),
    ),
    error="#c1121f",
    fine="#1b8a4b",
)

ThemeName = Literal["dark", "light"]
THEMES: Mapping[str, Theme] = {"dark": DARK, "light": LIGHT}
"""By name: "dark" for boards, "light" for papers."""

LINE = 15
"""Height of a line of text, in pixels."""
TEXT, TITLE = 12, 14
"""Sizes of the font, in pixels."""
LONGEST = 120
"""Of a name in a legend, in pixels."""

_CHOSEN = ContextVar[Theme]("theme", default=DARK)


def theme_of(name: str) -> Theme:
    """The theme of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in THEMES:
        raise ValueError(f"theme={name!r}; wanted one of {', '.join(THEMES)}")
    return THEMES[name]


def theme() -> Theme:
    """The theme that pictures are drawn in here."""
    return _CHOSEN.get()


def theme_name() -> ThemeName:
    """The name of the theme that pictures are drawn in here."""
    return "light" if theme() is LIGHT else "dark"


@contextmanager
def drawn_in(name: str | None) -> Iterator[None]:
    """Within the block, pictures are drawn in this theme, "dark" or "light"; None changes nothing.

    Raises:
        ValueError: there is no such theme.
    """
    if name is None:
        yield
        return
    before = _CHOSEN.set(theme_of(name))
    try:
        yield
    finally:
        _CHOSEN.reset(before)


def colour(number: int) -> str:
    """The colour of a class or line; they repeat after ten, a little darker."""
    curves = theme().curves
    base = curves[number % len(curves)]
    fade = 0.75 ** (number // len(curves) % 3)
    return "#" + "".join(f"{int(int(base[i : i + 2], 16) * fade):02x}" for i in (1, 3, 5))


def rgb(colour: Colour) -> tuple[int, int, int]:
    """A colour as three numbers from 0 to 255."""
    if isinstance(colour, str):
        return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
    red, green, blue = colour
    return red, green, blue
