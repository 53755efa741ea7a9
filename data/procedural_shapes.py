"""Procedural shapes, textures and colours as functions of the pixel position."""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)

Plane = Float[Tensor, "n h w"]


def _disc(x: Plane, y: Plane) -> Bool[Tensor, "n h w"]:
    return x**2 + y**2 <= 0.8**2


def _pointed(x: Plane, y: Plane, *, points: int, inner: float) -> Bool[Tensor, "n h w"]:
    """A star: its points lie at distance 1, the corners between them at `inner`."""
    sector = math.pi / points
    # every point of the star folded onto half of the first one
    angle = (torch.atan2(y, x) % (2 * sector) - sector).abs()
    distance = torch.hypot(x, y)
    near, side = distance * torch.cos(sector - angle), distance * torch.sin(sector - angle)
    corner = inner * math.cos(sector), inner * math.sin(sector)
    return near * corner[1] + side * (1 - corner[0]) <= corner[1]


def _ring(x: Plane, y: Plane) -> Bool[Tensor, "n h w"]:
    squared = x**2 + y**2
    return (squared <= 0.9**2) & (squared > 0.5**2)


def _bar(x: Plane, y: Plane) -> Bool[Tensor, "n h w"]:
    return (x.abs() <= 0.93) & (y.abs() <= 0.33)


def _cross(x: Plane, y: Plane) -> Bool[Tensor, "n h w"]:
    return _bar(x, y) | _bar(y, x)


def _frame(x: Plane, y: Plane) -> Bool[Tensor, "n h w"]:
    out = torch.maximum(x.abs(), y.abs())
    return (out <= 0.7) & (out > 0.38)


def _crescent(x: Plane, y: Plane) -> Bool[Tensor, "n h w"]:
    return (x**2 + y**2 <= 0.95**2) & ((x - 0.55) ** 2 + y**2 > 0.7**2)


def _dome(x: Plane, y: Plane) -> Bool[Tensor, "n h w"]:
    return (x**2 + (y + 0.4) ** 2 <= 0.9**2) & (y >= -0.4)


def _heart(x: Plane, y: Plane) -> Bool[Tensor, "n h w"]:
    # a square on its corner, and a disc on each of its upper sides
    right, up = x.abs(), y + 0.2
    lobe = (right - 0.39) ** 2 + (up - 0.39) ** 2 <= 0.39**2 * 2
    return (right + up.abs() <= 0.78) | lobe


def _arrow(x: Plane, y: Plane) -> Bool[Tensor, "n h w"]:
    head = (y >= 0) & (x.abs() <= 0.8 * (0.95 - y))
    return head | ((x.abs() <= 0.25) & (y < 0) & (y >= -0.9))


OUTLINES: dict[str, Callable[[Plane, Plane], Bool[Tensor, "n h w"]]] = {
    "disc": _disc,
    "square": partial(_pointed, points=4, inner=math.cos(math.pi / 4)),
    "triangle": partial(_pointed, points=3, inner=0.5),
    "star": partial(_pointed, points=5, inner=0.45),
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
    "crescent": _crescent,
    "bar": _bar,
    "frame": _frame,
    "dome": _dome,
    "arrow": _arrow,
}
"""Which points belong to a shape; each lies within the unit disc."""


def _plain(x: Plane, y: Plane) -> Plane:  # noqa: ARG001
    return torch.zeros_like(x)


def _shaded(x: Plane, y: Plane) -> Plane:  # noqa: ARG001
    return (x / 4 % 2 - 1).abs()


def _striped(x: Plane, y: Plane) -> Plane:  # noqa: ARG001
    return (x % 1 < 0.5).float()


def _checked(x: Plane, y: Plane) -> Plane:
    return (x.floor() + y.floor()) % 2


def _dotted(x: Plane, y: Plane) -> Plane:
    return ((x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.32**2).float()


def _rippled(x: Plane, y: Plane) -> Plane:
    return (torch.hypot(x % 4 - 2, y % 4 - 2) % 1 < 0.5).float()


def _grainy(x: Plane, y: Plane) -> Plane:
    return _hash_noise((4 * x).floor().long(), (4 * y).floor().long())


def _cloudy(x: Plane, y: Plane) -> Plane:
    left, top = x.floor(), y.floor()
    # rounded off, so that no edges of cells show
    across, down = (3 * rest**2 - 2 * rest**3 for rest in (x - left, y - top))
    left, top = left.long(), top.long()
    above = torch.lerp(_hash_noise(left, top), _hash_noise(left + 1, top), across)
    below = torch.lerp(_hash_noise(left, top + 1), _hash_noise(left + 1, top + 1), across)
    return torch.lerp(above, below, down)


def _hash_noise(column: Int[Tensor, "n h w"], row: Int[Tensor, "n h w"]) -> Plane:
    """A number in [0, 1) for each cell of the plane, always the same one."""
    mixed = (column * 374761393 + row * 668265263) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFFFF).float() / 2**24


TEXTURES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
    "grainy": _grainy,
    "shaded": _shaded,
    "rippled": _rippled,
    "cloudy": _cloudy,
    "plain": _plain,
}
"""How far each point is from the first of two colours to the second, in [0, 1]; a stripe is 1/2 wide."""


def tinted(
    lumas: Float[Tensor, "n"], tints: Float[Tensor, "n 3"], *, channels: int
) -> Float[Tensor, "n channels"]:
    """A colour for each luma, or the luma itself in one channel.

    Its hue is that of the `tint`, and so is its saturation as far as the luma allows.
    """
    if channels == 1:
        return lumas[:, None]
    away = tints - (tints @ tints.new_tensor(LUMA))[:, None]
    room = torch.where(away > 0, 1 - lumas[:, None], lumas[:, None]) / away.abs().clamp(min=1e-6)
    return lumas[:, None] + away * room.amin(1, keepdim=True).clamp(max=1)


def signals(classes: int, *, channels: int) -> Float[Tensor, "k channels"]:
    """A colour for each class: hues around the wheel, or greys from black to white."""
    places = torch.arange(classes) / classes
    if channels == 1:
        return (places * classes / (classes - 1))[:, None]
    wheel = (6 * places[:, None] + torch.tensor([0.0, 4.0, 2.0])) % 6
    return ((wheel - 3).abs() - 1).clamp(0, 1)
