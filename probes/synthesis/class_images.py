"""Class images: activation maximisation of class scores (Simonyan et al. 2014)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.frozen_eval import device_of, dtype_of
from fulgurite.probes.objectives import class_score, log_probability
from fulgurite.probes.score_layer import check_score_layer
from fulgurite.probes.synthesis.arguments import check_asked
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier, Pixels, resized
from fulgurite.probes.synthesis.optimizers import adam, linear_decay, unit_gradient
from fulgurite.probes.synthesis.priors import l2, smallness, total_variation
from fulgurite.probes.synthesis.transforms import affine
from fulgurite.probes.synthesis.watch import Watch


def default_steps(side: int) -> int:
    """Of the optimiser, for images of this shorter side."""
    return 64 if side <= 32 else 128 if side < 128 else 256


def _smaller(network: nn.Module, layer: str, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """The shape at 128 px, or at half its side if that is more; None where it is no smaller, or refused."""
    channels, *sides = shape
    factor = max(128 / min(sides), 0.5)
    if factor >= 1:
        return None
    height, width = (round(factor * side) for side in sides)
    blank = torch.zeros(1, channels, height, width, device=device_of(network), dtype=dtype_of(network))
    try:
        outputs(network, blank, [layer])
    except ValueError:  # a network for images of one size
        return None
    return channels, height, width


def class_images(
    network: nn.Module,
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    *,
    background: Sequence[float],
    seeds: Sequence[int] | None = None,
    layer: str = "",
    steps: int | None = None,
    lr: float | None = None,
    start: Float[Tensor, "n c h w"] | None = None,
    colours: Float[Tensor, "c c"] | None = None,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Images that maximise their class's score and log-probability, on a Fourier canvas.

    At each step the images are shifted, rotated and scaled at random, so that what they show is recognised
    wherever and however large it is, by another network too. Up to 32 px that is little, and they are only
    enlarged: networks are trained on objects that are centred, upright and of one size there, and shrinking
    would let a digit grow beyond its image. It is more from 128 px on, where networks are trained on objects
    at any place and of any size. Above 32 px, gradients pass ReLUs where they output 0, by up to 0.1: what
    the image lacks so far is found sooner, and other networks recognise more of the images. All strengths are
    relative: steps to the size of the canvas, shifts to the side, and the penalties (total variation and
    distance from the background) to the gradient. So they serve digits of 8 px and photographs of 512, and
    any network: an untrained one gives noise, not an empty background. Fine structures are slow on the
    canvas: where an image is black, its sigmoid is flat, and a penalty on pixels hardly removes the dots that
    remain. Images above 128 px are made at 128 px, or at half their side, for three quarters of the steps,
    and then enlarged and made sharp at a third of the rate: their shapes are larger so, and other networks
    recognise more of them. A network that refuses smaller images makes them at their size alone. Below 64 px,
    part of the total variation has `beta` = 1, whose gradient does not vanish as dots fade.

    Args:
        network: maps images in [0, 1] to logits.
        classes: the class of each image.
        shape: channels, height and width.
        background: per channel, what an empty image is like: black for digits, mid-grey for photographs.
        seeds: of each image's start; the class's number without them.
        layer: where the scores are read, one for each class; before the last ReLU, if the logits pass
            through one.
        steps: of the optimiser; without it, 64 up to 32 px, 128 below 128 px and 256 above.
        lr: its learning rate; without it, 0.2 up to 32 px, growing to 0.8 at 128 px and 128 steps, and 0.6
            at 256 steps.
        start: images to start from instead, such as those of an earlier epoch.
        colours: those of your data, by `colour_matrix`; without them, as for `Fourier`.
        precise: compute in float64, see `ascend`.
        watch: what to show and to keep on the way, of each size; see `ascend`.

    Raises:
        ValueError: the layer has not one output for each class, the network lacks a class, or what the images
            are made from does not fit together: a background or a start outside [0, 1], not a seed for each
            image.
    """
    check_asked(classes, shape, background, seeds, start)
    check_score_layer(network, layer, shape)
    side = min(shape[1:])
    wide = min(1.0, max(0.0, math.log2(side / 32) / 2))
    small = smallness(side)
    steps = default_steps(side) if steps is None else steps
    # three quarters of the rate for twice the steps above 128: contrast would grow with them
    rate = (0.2 + 0.6 * wide) * min(1.0, 0.75 ** math.log2(max(1, steps) / 128))
    rate, seeds = rate if lr is None else lr, classes.tolist() if seeds is None else seeds
    smaller = None if start is not None or steps < 4 else _smaller(network, layer, shape)
    if smaller is not None:
        first = 3 * steps // 4
        knobs = {"background": background, "seeds": seeds, "layer": layer, "colours": colours}
        made = class_images(
            network, classes, smaller, steps=first, lr=lr, precise=precise, watch=watch, **knobs
        )
        start = resized(made, shape[1:]).clamp(0, 1)
        if watch is not None and watch.interrupted:
            return start
        steps, rate = steps - first, rate / 3
    canvas = Fourier(shape, seeds, mean=background, decay=1.5, colours=colours)
    if start is not None:
        canvas.set_images(start)
    return ascend(
        network,
        class_score(classes, layer=layer) + log_probability(classes, layer=layer),
        canvas,
        steps=steps,
        by=adam(rate, schedule=linear_decay, normalise=unit_gradient),
        priors=[
            total_variation(0.64 - 0.34 * small - 0.24 * wide, linear=0.1 * small),
            l2(0.2 * 0.275**wide, background=background),
        ],
        transform=affine(
            shift=0.06 + 0.14 * wide, degrees=30 * wide, zoom=(1 / (1 + 0.5 * wide), 1.2 + 1.4 * wide)
        ),
        relu_leak=0.1 * wide,
        watch=watch,
        precise=precise,
    )


def simonyan(
    network: nn.Module,
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    *,
    background: Sequence[float],
    seeds: Sequence[int] | None = None,
    layer: str = "",
    steps: int = 64,
    lr: float = 0.02,
    start: Float[Tensor, "n c h w"] | None = None,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Images that maximise their class's score less their squared distance from the background.

    Every image starts at the background, whatever its seed, unless it has a `start`. Simonyan et al. 2014,
    arxiv.org/abs/1312.6034; the weight of the penalty, 0.64 on a unit gradient, is ours: the paper gives
    none. Arguments as for `class_images`.
    """
    check_asked(classes, shape, background, seeds, start)
    check_score_layer(network, layer, shape)
    if start is None:
        start = torch.tensor(list(background))[None, :, None, None].expand(len(classes), *shape)
    return ascend(
        network,
        class_score(classes, layer=layer),
        Pixels(start),
        steps=steps,
        by=adam(lr, normalise=unit_gradient),
        priors=[l2(0.64, background=background)],
        watch=watch,
        precise=precise,
    )
