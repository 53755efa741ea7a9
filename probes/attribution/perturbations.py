"""Scores of perturbed copies of images, in batches of constant memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as V

from fulgurite.probes.batches import Batches, batch_size, fitting, saved_bytes
from fulgurite.probes.feature_extractor import feature_extractor
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import Objective, Objectives, as_list, layers_read, squeeze_single
from fulgurite.probes.progress import progress_bar

Fill = float | Literal["grey", "mean", "blur"]


class Part(NamedTuple):
    """Altered copies to process together: consecutive pairs of a copy and an image, image by image.

    Args:
        rows: which images.
        places: which of the copies of each.
        start: how many pairs went before.
        copies: all copies that are among `places`, each once.
    """

    rows: Int[Tensor, "m"]
    places: Int[Tensor, "m"]
    start: int
    copies: range


class Score:
    """The objectives' values for altered copies of images, and how many of them to process together."""

    def __init__(
        self,
        extract: Callable[[Tensor], Mapping[str, Tensor]],
        objectives: list[Objective],
        images: Float[Tensor, "n c h w"],
        size: int,
    ):
        self._extract, self._objectives, self._images = extract, objectives, images
        self.batches = Batches(size)

    def __call__(self, altered: Float[Tensor, "m c h w"], rows: Int[Tensor, "m"]) -> Float[Tensor, "k m"]:
        """Each objective for altered copies of `images[rows]`.

        Copies that memory does not hold together are processed a few at a time, unless gradients are needed.
        """
        if torch.is_grad_enabled() or not len(altered):
            return self._together(altered, rows)
        found = self.batches.over(len(altered), lambda part: self._together(altered[part], rows[part]))
        return torch.cat([values for _, values in found], 1)

    def parts(self, copies: int, *, progress: str | None = None) -> Iterator[Part]:
        """All pairs of a copy and an image, as many together as memory holds."""
        count, size = len(self._images), self.batches.size
        starts = range(0, count * copies, size)
        for start in progress_bar(starts, progress, unit="batch"):
            stop = min(start + size, count * copies)
            pairs = torch.arange(start, stop, device=self._images.device)
            yield Part(pairs % count, pairs // count, start, range(start // count, (stop - 1) // count + 1))

    def _together(self, altered: Tensor, rows: Tensor) -> Tensor:
        outputs = self._extract(altered)
        values = [_value(objective, outputs, rows, len(self._images)) for objective in self._objectives]
        return torch.stack(values).to(altered.dtype)


@contextmanager
def scoring(
    network: nn.Module,
    objective: Objectives,
    images: Float[Tensor, "n c h w"],
    *,
    copies: int,
    gradients: bool = False,
) -> Iterator[Score]:
    """Within the block, `score(altered, rows)` gives each objective for altered copies of `images[rows]`.

    The network is in `frozen_eval`, and runs only as deep as the objectives read; for many copies on a CPU,
    channels last. On a GPU one image goes through it first, to learn how many copies fit into memory, unless
    all of them are few.

    Args:
        network: maps images to logits.
        objective: the objectives.
        images: the images to alter.
        copies: the number of copies of each.
        gradients: whether gradients will be computed, not values alone.
    """
    objectives, size = list(as_list(objective)), batch_size(images)
    many = copies * len(images) > 2 * size
    with (
        frozen_eval(network, channels_last=many) as net,
        feature_extractor(net, layers_read(objective)) as extract,
    ):
        if images.device.type == "cuda" and copies * len(images) > 1:
            held = saved_bytes(net, lambda: list(extract(images[:1].clone().requires_grad_()).values()))
            # the backward pass needs half as much again; a pass without one keeps little (ResNet-50, H200)
            each = 3 * held // 2 if gradients else held // 5
            size = fitting(images.device, each, max_images=copies * len(images))
        yield Score(extract, objectives, images, size)


def _value(objective: Objective, outputs: Mapping[str, Tensor], rows: Tensor, count: int) -> Tensor:
    values = objective.of(rows, count).value(outputs)
    if values.shape != rows.shape:
        raise ValueError(
            f"wanted a number for each of {len(rows)} images from the objective, got {tuple(values.shape)}"
        )
    return values


def add_by_image(totals: Float[Tensor, "k n *d"], values: Float[Tensor, "k m *d"], start: int) -> None:
    """Add the values of pairs from `start` on (see `Part`) to what each image has; in a fixed order.

    `index_add_` on a GPU adds in any order, so that runs differ.
    """
    count = totals.shape[1]
    first = start % count
    head = min(values.shape[1], count - first)
    totals[:, first : first + head] += values[:, :head]
    whole = (values.shape[1] - head) // count * count
    if whole:
        totals += values[:, head : head + whole].unflatten(1, (-1, count)).sum(1, dtype=totals.dtype)
    if rest := values.shape[1] - head - whole:
        totals[:, :rest] += values[:, head + whole :]


def scores(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objectives
) -> Float[Tensor, "*k n"]:
    """The objective's value for each image."""
    with scoring(network, objective, images, copies=1) as score, torch.no_grad():
        return squeeze_single(unaltered(score, images), objective)


def unaltered(score: Score, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "k n"]:
    """What `score` returns for the unaltered images."""
    rows = torch.arange(len(images), device=images.device)
    return score(images, rows)


def filling(images: Float[Tensor, "n c h w"], fill: Fill) -> Float[Tensor, "n c h w"]:
    """What replaces hidden pixels: a level (`"grey"` is 0.5), the mean colour, or a blurred image.

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
