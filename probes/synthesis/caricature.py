"""Caricatures: images with more of what a layer sees in a photograph (Mahendran & Vedaldi 2016)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.feature_objectives import exaggeration
from fulgurite.probes.synthesis.arguments import check_seeds
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier
from fulgurite.probes.synthesis.features import MOVED
from fulgurite.probes.synthesis.optimizers import adam, linear_decay, unit_gradient
from fulgurite.probes.synthesis.priors import l2, total_variation
from fulgurite.probes.synthesis.transforms import Transform
from fulgurite.probes.synthesis.watch import Watch


def caricature(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    layer: str,
    *,
    seeds: Sequence[int] | None = None,
    power: float = 0.0,
    steps: int = 128,
    lr: float = 0.1,
    transform: Transform = MOVED,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Images whose features at a layer are those of the given ones, exaggerated.

    The inner product of their outputs is maximised, both images shifted, turned and zoomed alike at each
    step. Mahendran & Vedaldi 2016, arxiv.org/abs/1512.02017, start at the image; from noise, as in Lucid, the
    result contains only what the layer sees.

    Args:
        network: maps images in [0, 1] to logits.
        images: the images to exaggerate.
        layer: by module path.
        seeds: of starts from noise, one for each image; the images themselves are the starts without them.
        power: of the cosine by which the inner product is multiplied, see `exaggeration`.
        steps: of the optimiser.
        lr: its learning rate.
        transform: what is done to both images before each step.
        precise: compute in float64, see `ascend`.
        watch: what to show and to keep on the way.

    Raises:
        ValueError: no such layer, or not one seed for each image.
    """
    shape = (images.shape[1], images.shape[2], images.shape[3])
    check_seeds(seeds, len(images))
    canvas = Fourier(shape, [0] * len(images) if seeds is None else seeds)
    if seeds is None:
        canvas.set_images(images)
    ground = images.new_full((shape[0],), 0.5).tolist()
    return ascend(
        network,
        exaggeration(layer, power=power),
        canvas,
        steps=steps,
        by=adam(lr, schedule=linear_decay, normalise=unit_gradient),
        priors=[total_variation(0.02), l2(0.05, background=ground)],
        transform=transform,
        reference=images,
        watch=watch,
        precise=precise,
    )
