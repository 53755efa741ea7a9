"""Class images by other methods: Mahendran & Vedaldi, Yosinski et al., MACO, and for robust networks."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.threat import L2
from fulgurite.probes.objectives import class_score, log_probability
from fulgurite.probes.score_layer import check_score_layer
from fulgurite.probes.synthesis.after_step import (
    After,
    blur,
    clip_small_contributions,
    clip_small_norms,
    decay,
    within,
)
from fulgurite.probes.synthesis.arguments import check_asked
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import PhaseOnly, Pixels, magnitude_spectrum, resized
from fulgurite.probes.synthesis.class_images import class_images, simonyan
from fulgurite.probes.synthesis.optimizers import adam, linear_decay, sgd, unit_gradient, unit_length
from fulgurite.probes.synthesis.priors import bounded_range, total_variation
from fulgurite.probes.synthesis.transforms import chain, jitter, noise, random_crops
from fulgurite.probes.synthesis.watch import Watch


def mahendran(
    network: nn.Module,
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    *,
    background: Sequence[float],
    seeds: Sequence[int] | None = None,
    layer: str = "",
    steps: int = 200,
    lr: float = 0.02,
    start: Float[Tensor, "n c h w"] | None = None,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Images that maximise their class's score under total variation, a bounded range and jitter.

    Mahendran & Vedaldi 2016, arxiv.org/abs/1512.02017: `beta` 2, `alpha` 6, and a jitter of a 28th of the
    side (8 px at 224). The weights, on a unit gradient, and Adam for momentum on an Adagrad-normalised
    gradient are ours. Arguments as for `class_images`.
    """
    check_asked(classes, shape, background, seeds, start)
    check_score_layer(network, layer, shape)
    return ascend(
        network,
        class_score(classes, layer=layer),
        Pixels(_noisy_background(classes, shape, background, seeds) if start is None else start),
        steps=steps,
        by=adam(lr, schedule=linear_decay, normalise=unit_gradient),
        priors=[total_variation(2.0), bounded_range(0.03, background=background)],
        transform=jitter(max(1, round(min(shape[1:]) / 28))),
        watch=watch,
        precise=precise,
    )


class Regularisers(NamedTuple):
    """How `yosinski` regularises: L2 decay, Gaussian blur, and shares of the pixels that are clipped.

    `lr` is of the unit gradient, in the range of [0, 1].
    """

    lr: float = 0.05
    decay: float = 0.0
    sigma: float = 0.0
    every: int = 4
    small_norms: float = 0.0
    small_contributions: float = 0.0


YOSINSKI = {
    "small norms": Regularisers(sigma=0.5, small_norms=0.5),
    "decay": Regularisers(lr=0.3, decay=0.3, small_norms=0.2),
    "blur": Regularisers(decay=1e-4, sigma=1.0),
    "small contributions": Regularisers(sigma=0.5, small_contributions=0.9),
}
"""The four combinations of the deep visualization toolbox; most of its published figures are by "blur"."""


def yosinski(
    network: nn.Module,
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    *,
    background: Sequence[float],
    seeds: Sequence[int] | None = None,
    layer: str = "",
    preset: str = "blur",
    steps: int = 200,
    lr: float | None = None,
    start: Float[Tensor, "n c h w"] | None = None,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Images that maximise their class's score by plain gradient steps, regularised after each step.

    Yosinski et al. 2015, arxiv.org/abs/1506.06579. Steps are along the unit gradient, so that one `lr` serves
    any network; the paper's were along the raw gradient, with 500 to 1000 steps. Arguments as for
    `class_images`, and:

    Args:
        preset: a name in `YOSINSKI`.
        lr: the preset's without it.

    Raises:
        ValueError: an unknown preset.
    """
    if preset not in YOSINSKI:
        raise ValueError(f"preset={preset!r}; wanted one of {', '.join(map(repr, YOSINSKI))}")
    check_asked(classes, shape, background, seeds, start)
    check_score_layer(network, layer, shape)
    chosen, after = YOSINSKI[preset], list[After]()
    if chosen.decay:
        after.append(decay(chosen.decay, background=background))
    if chosen.sigma:
        after.append(blur(chosen.sigma, every=chosen.every))
    if chosen.small_norms:
        after.append(clip_small_norms(chosen.small_norms, background=background))
    if chosen.small_contributions:
        after.append(clip_small_contributions(chosen.small_contributions, background=background))
    return ascend(
        network,
        class_score(classes, layer=layer),
        Pixels(_noisy_background(classes, shape, background, seeds) if start is None else start),
        steps=steps,
        by=sgd(chosen.lr if lr is None else lr, normalise=unit_gradient),
        after=after,
        watch=watch,
        precise=precise,
    )


def maco(
    network: nn.Module,
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    *,
    background: Sequence[float],
    images: Float[Tensor, "m c h2 w2"],
    seeds: Sequence[int] | None = None,
    layer: str = "",
    steps: int = 256,
    lr: float = 0.2,
    start: Float[Tensor, "n c h w"] | None = None,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Images that maximise their class's score with the spectrum of natural images: only phases change.

    Random crops of 40 to 100 % of the side, with noise, are shown to the network: on canvases of some hundred
    pixels, the paper's crops down to 5 % are too small to recognise anything. Fel et al. 2023 (MACO),
    arxiv.org/abs/2306.06805. Arguments as for `class_images`, and:

    Args:
        images: natural ones, of any size, whose mean magnitude spectrum is kept.
    """
    check_asked(classes, shape, background, seeds, start)
    check_score_layer(network, layer, shape)
    canvas = PhaseOnly(
        shape,
        classes.tolist() if seeds is None else seeds,
        magnitude_spectrum(resized(images.cpu(), shape[1:]).clamp(0, 1), mean=background),
        mean=background,
    )
    if start is not None:
        canvas.set_images(start)
    return ascend(
        network,
        class_score(classes, layer=layer),
        canvas,
        steps=steps,
        by=adam(lr, schedule=linear_decay, normalise=unit_gradient),
        transform=chain(random_crops(0.4, 1.0), noise(0.05)),
        watch=watch,
        precise=precise,
    )


def robust(
    network: nn.Module,
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    *,
    background: Sequence[float] | None = None,
    images: Float[Tensor, "m c h2 w2"],
    labels: Int[Tensor, "m"],
    seeds: Sequence[int] | None = None,
    layer: str = "",
    radius: float = 0.25,
    steps: int = 60,
    lr: float | None = None,
    start: Float[Tensor, "n c h w"] | None = None,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Images by targeted projected gradient ascent from a draw of their class's Gaussian.

    For robust networks; the images of others show little. The Gaussian has the mean and the covariance of the
    class's images at an eighth of the side. Santurkar et al. 2019, arxiv.org/abs/1906.09453. Arguments as for
    `class_images`, and:

    Args:
        background: is not used.
        images: of all classes that are asked for, of any size.
        labels: their classes.
        radius: of the L2 ball, as a root mean square over pixels and channels: 0.25 is 8 on digits of 32 px,
            14 on CIFAR-10. Santurkar et al. take 30 there and 40 on ImageNet (0.1).
        start: as for `class_images`; the ball stays around the draw.
        lr: the L2 length of a step; without it, 2.5 times the ball's radius divided by `steps`.

    Raises:
        ValueError: a class has no image.
    """
    check_asked(classes, shape, background, seeds, start)
    check_score_layer(network, layer, shape)
    centre = class_gaussian(classes, shape, images, labels, classes.tolist() if seeds is None else seeds)
    length = radius * centre[0].numel() ** 0.5
    return ascend(
        network,
        log_probability(classes, layer=layer),
        Pixels(centre if start is None else start),
        steps=steps,
        by=sgd(2.5 * length / max(1, steps) if lr is None else lr, normalise=unit_length),
        after=[within(L2(length), centre)],
        watch=watch,
        precise=precise,
    )


def class_gaussian(
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    images: Float[Tensor, "m c h2 w2"],
    labels: Int[Tensor, "m"],
    seeds: Sequence[int],
) -> Float[Tensor, "n c h w"]:
    """A draw from a Gaussian with the mean and covariance of each class's images, at an eighth of the side.

    Raises:
        ValueError: a class has no image.
    """
    small = resized(images, [max(1, side // 8) for side in shape[1:]])
    drawn = []
    for number, seed in zip(classes.tolist(), seeds, strict=True):
        own = small[labels == number]
        if not len(own):
            raise ValueError(f"no image of class {number} to start from; wanted some of each class")
        mean = own.mean(0)
        # deviations weighted at random have the covariance of the images, which is never computed
        weights = torch.randn(len(own), generator=torch.Generator().manual_seed(seed)).to(own)
        drawn.append(
            mean + (own - mean).mul(weights[:, None, None, None]).sum(0) / max(1, len(own) - 1) ** 0.5
        )
    return resized(torch.stack(drawn), shape[1:]).clamp(0, 1)


METHODS: dict[str, Callable[..., Tensor]] = {
    "fourier": class_images,
    "simonyan": simonyan,
    "mahendran": mahendran,
    "yosinski": yosinski,
    "maco": maco,
    "robust": robust,
}
"""Every method by name. `maco` and `robust` need `images`, and `robust` their `labels`."""


def _noisy_background(
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    background: Sequence[float],
    seeds: Sequence[int] | None,
) -> Float[Tensor, "n c h w"]:
    """The background with a little noise for each seed."""
    level = torch.tensor(list(background))[:, None, None]
    draws = [torch.Generator().manual_seed(seed) for seed in (classes.tolist() if seeds is None else seeds)]
    return torch.stack([level + 0.05 * torch.randn(shape, generator=draw) for draw in draws]).clamp(0, 1)
