"""Universal perturbations: one shift that changes a network's prediction for most images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts, check_images, check_logits, check_threat
from fulgurite.probes.attacks.attacked_network import attacked
from fulgurite.probes.attacks.deepfool import deepfool
from fulgurite.probes.attacks.losses import misclassified
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.threat import L2, Threat
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.intervals import wilson
from fulgurite.probes.predict import predict

Streamed = Iterable[Float[Tensor, "n c h w"]]
"""Batches of images; read once in each pass, none is kept."""
CAP = 15.0  # of an image's loss: one that is fooled by far moves the shift no more


def universal(
    network: nn.Module,
    batches: Streamed,
    threat: Threat,
    *,
    by: str = "gradient",
    passes: int = 10,
    step_size: float | None = None,
    tile: int | None = None,
    enough: float = 1.0,
) -> Float[Tensor, "c h w"]:
    """One shift within the radius that changes the network's prediction for most images of a stream.

    No labels are needed: the predictions for the images as they are count. By "gradient", each batch moves
    the shift a step along the mean gradient of the margin between another class and the predicted one, cut
    off where it is large (Shafahi et al. 2020, arxiv.org/abs/1811.11304). By "deepfool", the nearest boundary
    is looked for from each image that is not fooled yet, and the way there is added to the shift
    (Moosavi-Dezfooli et al. 2017, arxiv.org/abs/1610.08401). After each, the shift is projected into the
    ball.

    Args:
        network: maps images to logits.
        batches: of images within the threat's bounds, all of one size; an iterable that can be read again,
            such as a list.
        threat: how long the shift may be; 10/255 in Linf in the paper.
        by: "gradient" or "deepfool", see above.
        passes: over the stream, at most.
        step_size: of a gradient's step at first, in the threat's norm; it falls linearly to 0. A fifth of the
            radius without it.
        tile: let gradients make a shift with this period, in pixels, in both directions: it has fewer
            numbers, and generalises better where the stream has few images.
        enough: the share of changed predictions in a pass at which to stop.

    Raises:
        ValueError: no images, images of several sizes or out of bounds, numbers out of range, or batches that
            can be read only once for several passes.
    """
    check_threat(threat)
    check_counts(passes=passes)
    if passes > 1 and isinstance(batches, Iterator):
        raise ValueError(
            f"batches that can be read only once (a {type(batches).__name__}), for {passes} passes; wanted a "
            "list or a DataLoader, or passes=1"
        )
    if by not in ("gradient", "deepfool"):
        raise ValueError(f'by={by!r}; wanted "gradient" or "deepfool"')
    if tile is not None:
        check_counts(tile=tile)
        if by != "gradient":
            raise ValueError(f'tile={tile} is of by="gradient", not of by={by!r}')
    if not 0 < enough <= 1:
        raise ValueError(f"enough={enough}; wanted a share of the images above 0 and at most 1")
    size = threat.epsilon / 5 if step_size is None else step_size
    shift: Tensor | None = None
    for number in range(passes):
        changed, seen = 0, 0
        for batch in batches:
            images = check_images(batch.to(device_of(network)), threat)
            shift = torch.zeros_like(images[:1]) if shift is None else shift
            if images.shape[1:] != shift.shape[1:]:
                raise ValueError(
                    f"images of {tuple(images.shape[1:])} after some of {tuple(shift.shape[1:])}; wanted one "
                    "size"
                )
            if by == "gradient":
                shift, fooled = _stepped(network, images, shift, threat, size * (1 - number / passes), tile)
            else:
                shift, fooled = _extended(network, images, shift, threat)
            changed, seen = changed + fooled, seen + len(images)
        if shift is None:
            raise ValueError("no images to make a universal perturbation of")
        if changed >= enough * seen:
            break
    assert shift is not None
    return shift[0]


@dataclass(frozen=True)
class Fooling:
    """How many predictions a shift changes, and how many random noise of the same size does.

    Args:
        images: how many there are.
        changed: predictions that the shift changes.
        by_noise: those that noise does, drawn for each image in the threat's ball.
    """

    images: int
    changed: int
    by_noise: int

    def rate(self) -> float:
        """The fooling rate: the share of predictions that the shift changes."""
        return self.changed / self.images

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the fooling rate."""
        return wilson(self.changed, self.images)

    def noise_rate(self) -> float:
        """The share that noise changes."""
        return self.by_noise / self.images

    def noise_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of that."""
        return wilson(self.by_noise, self.images)


def fooling_rate(
    network: nn.Module, batches: Streamed, shift: Float[Tensor, "channels height width"], threat: Threat
) -> Fooling:
    """How often the prediction for an image changes with the shift, and with random noise of the same size.

    The noise is the shift's own values at other places, for each image, so that its length is the same in
    every norm.

    Raises:
        ValueError: no images, images of another size than the shift, a network of one class, or one that
            outputs NaN.
    """
    images, changed, by_noise = 0, 0, 0
    for batch in batches:
        shown = check_images(batch.to(device_of(network)), threat)
        if shown.shape[1:] != shift.shape:
            raise ValueError(f"images of {tuple(shown.shape[1:])}, a shift of {tuple(shift.shape)}")
        order = PerImageRandom(shown).uniform(shift.numel()).argsort(1)
        noise = shift.to(shown).flatten()[order].view(shown.shape)
        images += len(shown)
        changed += int(_changed(network, shown, shift.to(shown)[None], threat).sum())
        by_noise += int(_changed(network, shown, noise, threat).sum())
    if not images:
        raise ValueError("no images to try the shift on")
    return Fooling(images, changed, by_noise)


def _changed(network: nn.Module, images: Tensor, shifts: Tensor, threat: Threat) -> Bool[Tensor, "n"]:
    logits = predict(network, images)
    before = logits.argmax(1)
    check_logits(logits, before)
    return misclassified(predict(network, threat.bounded(images + shifts)), before, None)


def _stepped(
    network: nn.Module, images: Tensor, shift: Tensor, threat: Threat, size: float, tile: int | None
) -> tuple[Tensor, int]:
    """The shift after a step along the batch's gradient, and how many images it fooled before."""
    labels = predict(network, images).argmax(1)
    rows = torch.arange(len(images), device=images.device)
    with attacked(network, images, labels, threat, loss="margin") as run:
        result = run.loss_gradient(threat.bounded(images + shift), rows)
    slopes = result.gradient * (result.values < CAP)[:, None, None, None]
    slope = slopes.mean(0, keepdim=True)
    longer = shift + size * threat.step(slope if tile is None else _repeated(slope, tile))
    fooled = int(misclassified(result.logits.float(), labels, None).sum())
    return _within(longer, threat), fooled


def _repeated(slope: Float[Tensor, "1 c h w"], tile: int) -> Float[Tensor, "1 c h w"]:
    """The gradient by one tile that is repeated over the image."""
    h, w = slope.shape[-2:]
    padded = F.pad(slope, (0, -w % tile, 0, -h % tile))
    rows, columns = padded.shape[-2] // tile, padded.shape[-1] // tile
    one = padded.unflatten(2, (rows, tile)).unflatten(4, (columns, tile)).sum((2, 4))
    return one.repeat(1, 1, rows, columns)[..., :h, :w]


def _extended(network: nn.Module, images: Tensor, shift: Tensor, threat: Threat) -> tuple[Tensor, int]:
    """The shift plus the steps of these images in turn, except for images that it fools by then."""
    free = L2(1.0, threat.bounds)
    fooled = _changed(network, images, shift, threat)
    left = images[~fooled]
    if len(left):
        starts = free.bounded(left + shift)
        labels = predict(network, left).argmax(1)
        ways = deepfool(network, starts, labels, free, steps=10) - starts
        for image, way in zip(left[:, None], ways[:, None], strict=True):
            if way.any() and not _changed(network, image, shift, free).any():
                shift = _within(shift + way, threat)
    return shift, int(fooled.sum())


def _within(shift: Tensor, threat: Threat) -> Tensor:
    return replace(threat, bounds=None).project(shift, torch.zeros_like(shift))
