"""Attribution maps as pictures, and sheets that compare methods."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.render import (
    RGB,
    captioned,
    enlarged,
    heat,
    overlaid,
    picture,
    sheet,
    shrunk,
    signed,
)

OVER = "over the image: orange supports the answer, blue opposes it"
APART = "by itself: black or grey is 0; each tile has its own scale"
Look = Literal["auto", "signed", "heat", "over"]

_LOOKS: Mapping[str, Look] = {
    **dict.fromkeys(("cam", "grad_cam", "layer_cam", "score_cam", "occlusion", "rise", "lime"), "over"),
    **dict.fromkeys(("backward_rules", "guided_backprop", "deconvnet", "guided_grad_cam"), "signed"),
}


def render_maps(
    method: str, image: Float[Tensor, "c h w"], values: Float[Tensor, "d h w"], *, look: Look = "auto"
) -> RGB:
    """The map of a method: over the image, if it speaks of places; by itself, if of pixels.

    Args:
        method: its name.
        image: what the map is of, in [0, 1].
        values: the map.
        look: "over" the image, warm where positive and cool where negative; "signed", 0 being grey; "heat",
            from black up to the largest size; or what suits the method.

    Raises:
        ValueError: `look` is none of these.
    """
    look = look_of(method, look)
    if look == "over":
        return overlaid(picture(image), values.sum(0))
    if look == "heat":
        return heat(values.abs().amax(0))
    if look == "signed":
        return signed(values, top=float(values.abs().quantile(0.995)))
    raise ValueError(f'look={look!r}; wanted "auto", "signed", "heat" or "over"')


def row(
    image: Float[Tensor, "c h w"],
    maps: Mapping[str, Float[Tensor, "_ h w"]],
    caption: str,
    *,
    look: Look = "auto",
    side: int = 112,
) -> list[RGB]:
    """A row of a comparison: the image with its caption, and the map of each method.

    Each line of the caption is one. Tiles are enlarged to about `side` pixels if they are smaller, and shrunk
    to it if larger.
    """
    tiles = [captioned(sized(picture(image), side), *caption.split("\n"))]
    for name, values in maps.items():
        tile = sized(render_maps(name, image, values, look=look), side)
        tiles.append(tile if values.any() else captioned(tile, "0 everywhere"))
    return tiles


def zero_maps(maps: Mapping[str, Float[Tensor, "*k _ h w"]]) -> Counter[str]:
    """How many maps of each method are 0 everywhere."""
    return Counter({name: int((~values.flatten(-3).any(-1)).sum()) for name, values in maps.items()})


def zeros_in_words(zeros: Mapping[str, int], total: int) -> str:
    """A line about maps that are 0 everywhere; nothing where there are none.

    Args:
        zeros: how many of each method, see `zero_maps`.
        total: how many maps there are of each method.
    """
    found = [f"{name} ({count} of {total})" for name, count in zeros.items() if count]
    why = "nothing that is looked at there raises the score, or the gradient vanishes"
    return f"maps that are 0 everywhere: {', '.join(found)}; {why}" if found else ""


def sized(pixels: RGB, side: int) -> RGB:
    """The picture enlarged to about `side` pixels if it is smaller, and shrunk to it if larger."""
    return shrunk(enlarged(pixels, side=side), side=side)


def comparison(
    rows: Mapping[str, Sequence[RGB]], methods: Iterable[str], *others: str, look: Look = "auto"
) -> RGB:
    """A sheet of such rows with their names, and a legend for the kinds of maps below.

    Args:
        rows: the tiles: the image, the map of each method, whatever else there is.
        methods: their names, shown as column titles.
        others: the names of what else there is.
        look: of the maps, as they were made.
    """
    methods = list(methods)
    paper = sheet(rows, columns=["", *(name.replace("_", " ") for name in methods), *others])
    over = [look_of(name, look) == "over" for name in methods]
    return captioned(paper, *[OVER] * any(over), *[APART] * (not all(over)))


def look_of(method: str, look: Look) -> Look:
    """How the maps of a method are shown, where it is not said."""
    return _LOOKS.get(method, "heat") if look == "auto" else look
