"""Occlusion maps: the drop in score when a window is hidden (Zeiler & Fergus 2014)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.attribution.perturbations import Fill, filling, scoring, unaltered
from fulgurite.probes.objectives import Objectives, as_list, squeeze_single


def occlusion(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    *,
    window: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    fill: Fill = "grey",
    progress: str | None = None,
) -> Float[Tensor, "*k n 1 h w"]:
    """How much the objective falls when a pixel is hidden: the mean over the windows that contain it, signed.

    The last window of a row or column is cut off at the edge. Zeiler & Fergus 2014, arxiv.org/abs/1311.2901.
    Costs a forward pass for each window.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        objective: a number per image, or several objectives.
        window: height and width of the hidden window, in pixels; an eighth of the side without it.
        stride: from window to window; half a window without it.
        fill: what replaces hidden pixels: "grey", the image's "mean" colour, the image's own "blur", or a
            level.
        progress: a label for a progress bar.

    Raises:
        ValueError: the window does not fit into the image, or the stride leaves pixels out.
    """
    images = checked(images)
    size = images.shape[2], images.shape[3]
    (high, wide), (down, across) = windows(size, window, stride)
    tops, lefts = _starts(size[0], high, down), _starts(size[1], wide, across)
    hidden = filling(images, fill)
    corners = [(top, left) for top in tops for left in lefts]
    with scoring(network, objective, images, copies=len(corners)) as score, torch.no_grad():
        losses = images.new_zeros(len(as_list(objective)), len(images), len(tops), len(lefts))
        original_scores = unaltered(score, images)
        rows_of, columns_of = (
            _covers(starts, side, whole).to(images.device, torch.bool)
            for starts, side, whole in ((tops, high, size[0]), (lefts, wide, size[1]))
        )
        for part in score.parts(len(corners), progress=progress):
            rows, places = part.rows, part.places
            behind = rows_of[places // len(lefts)][:, :, None] & columns_of[places % len(lefts)][:, None]
            altered = torch.where(behind[:, None], hidden[rows], images[rows])
            losses.flatten(2)[:, rows, places] = original_scores[:, rows] - score(altered, rows)
        # a pixel's windows are its rows' times its columns': two products instead of a map for each window
        down, across = _covers(tops, high, size[0]).to(images), _covers(lefts, wide, size[1]).to(images)
        maps = down.T @ losses @ across / torch.outer(down.sum(0), across.sum(0))
    return squeeze_single(maps[:, :, None], objective)


def windows(
    size: tuple[int, int], window: int | tuple[int, int] | None, stride: int | tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of the window, and the steps down and across, for images of this size.

    Raises:
        ValueError: as `occlusion` does.
    """
    high, wide = _pair(window, (max(1, round(size[0] / 8)), max(1, round(size[1] / 8))))
    down, across = _pair(stride, (max(1, high // 2), max(1, wide // 2)))
    if not (1 <= high <= size[0] and 1 <= wide <= size[1] and 1 <= down <= high and 1 <= across <= wide):
        raise ValueError(
            f"windows of {high} x {wide} in steps of {down} and {across} on images of {size[0]} x {size[1]}; "
            "wanted a window no larger than the image, and steps of at least 1 and no larger than the window"
        )
    return (high, wide), (down, across)


def _pair(value: int | tuple[int, int] | None, default: tuple[int, int]) -> tuple[int, int]:
    if value is None:
        return default
    return (value, value) if isinstance(value, int) else value


def _starts(side: int, window: int, stride: int) -> list[int]:
    return list(range(0, side - window + stride, stride))


def _covers(starts: list[int], window: int, side: int) -> Float[Tensor, "p side"]:
    pixels = torch.arange(side)
    first = torch.tensor(starts)[:, None]
    return ((first <= pixels) & (pixels < first + window)).float()
