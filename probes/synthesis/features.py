"""Feature visualization: activation maximisation of units, channels and directions of any layer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.batches import Batches, batch_size
from fulgurite.probes.feature_extractor import feature_extractor, outputs
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.objectives import Objective, pooled
from fulgurite.probes.synthesis.arguments import check_background, check_shape, check_start
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier
from fulgurite.probes.synthesis.optimizers import adam, linear_decay, unit_gradient
from fulgurite.probes.synthesis.priors import l2, smallness, total_variation
from fulgurite.probes.synthesis.transforms import Transform, affine
from fulgurite.probes.synthesis.watch import Watch

MOVED = affine(shift=0.05, degrees=5, zoom=1.1)


def feature_images(
    network: nn.Module,
    objective: Objective,
    shape: tuple[int, int, int],
    *,
    seeds: Sequence[int],
    background: Sequence[float] | None = None,
    steps: int = 128,
    lr: float = 0.1,
    transform: Transform = MOVED,
    start: Float[Tensor, "n c h w"] | None = None,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Images that maximise a channel, a unit, a direction or any other objective, on a Fourier canvas.

    `channel("layer3", torch.tensor([1, 5]))` asks for two channels in one batch, an image for each seed;
    `unit`, `direction` and sums of them likewise. The network runs no deeper than the objective reads. In the
    first 16 steps ReLUs are redirected, so that what is dead at the start has a gradient; a layer before its
    ReLU needs none. Olah et al. 2017, distill.pub/2017/feature-visualization; strengths as for
    `class_images`, shifts and zooms less: features have a size. Below 64 px, fine structures are slow on the
    canvas, and part of the total variation has `beta` = 1: else dark places are full of dots.

    Args:
        network: maps images in [0, 1] to logits.
        objective: a number per image.
        shape: channels, height and width.
        seeds: of the starts, one for each image.
        background: per channel, what an empty image is like; mid-grey without it.
        steps: of the optimiser.
        lr: its learning rate.
        transform: what is done to the images before each step.
        start: images to start from instead, such as those of an earlier epoch.
        precise: compute in float64, see `ascend`.
        watch: what to show and to keep on the way.

    Raises:
        ValueError: the objective does not fit the network or the number of images, or a background or a start
            is not in [0, 1].
    """
    check_shape(shape)
    check_background(background, shape[0])
    check_start(start, (len(seeds), *shape))
    ground = [0.5] * shape[0] if background is None else list(background)
    small = smallness(min(shape[1:]))
    canvas = Fourier(shape, seeds, mean=ground, decay=1 + 0.5 * small)
    if start is not None:
        canvas.set_images(start)
    return ascend(
        network,
        objective,
        canvas,
        steps=steps,
        by=adam(lr, schedule=linear_decay, normalise=unit_gradient),
        priors=[total_variation(0.02, linear=0.05 * small), l2(0.05, background=ground)],
        transform=transform,
        redirected=16,
        watch=watch,
        precise=precise,
    )


def strongest(
    network: nn.Module, images: Float[Tensor, "n c h w"], layer: str, most: int = 8
) -> Int[Tensor, "k"]:
    """The channels of a layer that are most active on images: by mean activation, the strongest first.

    Raises:
        ValueError: no such layer.
    """
    means = pooled(outputs(network, images, [layer])[layer]).mean(0)
    return means.topk(min(most, len(means))).indices


@torch.no_grad()
def values_of(
    network: nn.Module,
    objective: Objective,
    images: Float[Tensor, "n c h w"],
    *,
    reference: Float[Tensor, "n c h w"] | None = None,
) -> Float[Tensor, "n"]:
    """An objective's value at images; with a `reference` for each where it compares with one.

    Raises:
        ValueError: the objective does not fit the network, or the number of images.
    """
    with frozen_eval(network) as net, feature_extractor(net, objective.layers) as read:
        device, count = device_of(net), len(images)
        places = torch.arange(count, device=device)

        def run(rows: slice) -> Tensor:
            seen = read(images[rows].to(device))
            seen.reference = None if reference is None else read(reference[rows].to(device))
            return objective.of(places[rows], count).value(seen).detach()

        size = max(1, count) if objective.couples else batch_size(images, device)
        parts = [found for _, found in Batches(size, fixed=objective.couples).over(count, run)]
        return torch.cat(parts)
