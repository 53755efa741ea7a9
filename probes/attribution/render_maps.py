"""Attribution maps as pictures, over the image or by themselves."""

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.colours import common_top, diverging, heat, overlaid, picture, signed
from fulgurite.probes.render import RGB, enlarged, shrunk

OVER = "over the image: orange raises the score, blue lowers it"
Look = Literal["auto", "signed", "colour", "heat", "over"]

_LOOKS: Mapping[str, Look] = {
    **dict.fromkeys(
        ("cam", "grad_cam", "layer_cam", "score_cam", "occlusion", "rise", "lime", "attention_rollout"),
        "over",
    ),
    "saliency": "heat",
}


def render_maps(
    method: str,
    image: Float[Tensor, "c h w"],
    values: Float[Tensor, "d h w"],
    *,
    look: Look = "auto",
    top: float | None = None,
) -> RGB:
    """The map of a method: over the image, if it is of places; by itself, if it is of pixels.

    Args:
        method: its name.
        image: what the map is of, in [0, 1].
        values: the map, of the image's size or smaller.
        look: "over" the image, orange where positive and blue where negative, the channels summed; "signed",
            on its own in the same colours; "colour", each colour channel, 0 being mid-grey; "heat", from 0 up
            to the largest size of any channel; or what suits the method.
        top: the value in full colour; the size that 99.5 % of the pixels do not exceed without it.

    Raises:
        ValueError: `look` is none of these.
    """
    look = look_of(method, look)
    drawn = drawn_values(values, look)
    return coloured(look, image, drawn, common_top([drawn]) if top is None else top)


def drawn_values(values: Float[Tensor, "d h w"], look: Look) -> Float[Tensor, "_ h w"]:
    """The values of a map that are shown: the sum of its channels, the largest size, or each channel.

    Raises:
        ValueError: there is no such `look`.
    """
    values = values.detach().float()
    if look in ("over", "signed"):
        return values.sum(0, keepdim=True)
    if look == "heat":
        return values.abs().amax(0, keepdim=True)
    if look == "colour":
        return values
    raise ValueError(f'look={look!r}; wanted "auto", "signed", "colour", "heat" or "over"')


def coloured(look: Look, image: Float[Tensor, "c h w"], values: Float[Tensor, "d u v"], top: float) -> RGB:
    """What `drawn_values` gives, in colours; full colour at `top`."""
    if look == "over":
        size = image.shape[1:]
        if values.shape[1:] != size:
            values = F.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0]
        return overlaid(picture(image), values[0], top=top)
    if look == "heat":
        return heat(values[0], top=top)
    return diverging(values[0], top=top) if look == "signed" else signed(values, top=top)


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
    why = "nothing in these images raises the score there, or the gradient vanishes"
    return f"maps that are 0 everywhere: {', '.join(found)}; {why}" if found else ""


def sized(pixels: RGB, side: int) -> RGB:
    """The picture enlarged to about `side` pixels if it is smaller, and shrunk to it if larger."""
    return shrunk(enlarged(pixels, side=side), side=side)


def look_of(method: str, look: Look = "auto") -> Look:
    """How the maps of a method are shown by default: signed, if they can be."""
    return _LOOKS.get(method, "signed") if look == "auto" else look
