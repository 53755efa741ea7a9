"""Scores of perturbed copies of images, in batches of constant memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as V
from tqdm.auto import tqdm

from fulgurite.probes.batches import Batches, batch_size
from fulgurite.probes.borrow import borrowed
from fulgurite.probes.objectives import Asked, Objective, as_list, layers_read, squeeze_single
from fulgurite.probes.reading import reading

Fill = float | Literal["grey", "mean", "blur"]
Score = Callable[[Float[Tensor, "m c h w"], Int[Tensor, "m"]], Float[Tensor, "k m"]]


@contextmanager
def scoring(
    network: nn.Module, asked: Asked, images: Float[Tensor, "n c h w"], *, copies: int
) -> Iterator[Score]:
    """Within the block, `score(altered, rows)` answers each objective for altered copies of `images[rows]`.

    The network is borrowed, and runs only as deep as the objectives read; for many copies, channels last.
    Copies that memory does not hold together are looked at a few at a time, unless slopes are wanted.
    """
    objectives, size = as_list(asked), batch_size(images)
    many, batches = copies * len(images) > 2 * size, Batches(size)
    with borrowed(network, channels_last=many) as net, reading(net, layers_read(asked)) as read:

        def together(altered: Tensor, rows: Tensor) -> Tensor:
            seen = read(altered)
            values = [_value(objective, seen, rows, len(images)) for objective in objectives]
            return torch.stack(values).to(altered.dtype)

        def score(altered: Tensor, rows: Tensor) -> Tensor:
            if torch.is_grad_enabled() or not len(altered):
                return together(altered, rows)
            found = batches.over(len(altered), lambda part: together(altered[part], rows[part]))
            return torch.cat([values for _, values in found], 1)

        yield score


def _value(objective: Objective, seen: Mapping[str, Tensor], rows: Tensor, count: int) -> Tensor:
    values = objective.of(rows, count).value(seen)
    if values.shape != rows.shape:
        raise ValueError(
            f"wanted a number for each of {len(rows)} images from the objective, got {tuple(values.shape)}"
        )
    return values


def parts(
    images: Float[Tensor, "n c h w"], copies: int, *, progress: str | None = None
) -> Iterator[tuple[Int[Tensor, "m"], Int[Tensor, "m"]]]:
    """Which images, and which of their copies, to look at together: rows and places, a part at a time."""
    size, count = batch_size(images), len(images)
    places = torch.arange(count * copies, device=images.device)
    for part in tqdm(places.split(size), progress, disable=progress is None, delay=3, leave=False):
        yield part // copies, part % copies


def scores(network: nn.Module, images: Float[Tensor, "n c h w"], objective: Asked) -> Float[Tensor, "*k n"]:
    """The objective's value for each image."""
    with scoring(network, objective, images, copies=1) as score, torch.no_grad():
        return squeeze_single(unaltered(score, images), objective)


def unaltered(score: Score, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "k n"]:
    """What `score` gives for the images as they are."""
    return torch.cat([score(images[rows], rows) for rows, _ in parts(images, 1)], 1)


def filling(images: Float[Tensor, "n c h w"], fill: Fill) -> Float[Tensor, "n c h w"]:
    """What is put where something is hidden: a level (`"grey"` is 0.5), the mean colour, or a blurred image.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(fill, int | float):
        return torch.full_like(images, fill)
    if fill == "grey":
        return torch.full_like(images, 0.5)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if fill == "blur":
        sigma = max(images.shape[2:]) / 16
        widths = [min(2 * int(3 * sigma) + 1, (side - 1) // 2 * 2 + 1) for side in images.shape[:1:-1]]
        return V.gaussian_blur(images, widths, [sigma, sigma])
    raise ValueError(f'fill={fill!r}; wanted "grey", "mean", "blur" or a level such as 0.5')


def drawn(seed: int, place: int) -> torch.Generator:
    """What draws for one copy: on the CPU and of its own, whatever else is drawn, in whatever order."""
    return torch.Generator().manual_seed(seed * 1_000_003 + place)
