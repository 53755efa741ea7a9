"""Feature accentuation: photographs changed to excite a feature more (Hamblin et al. 2024)."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.feature_objectives import likeness
from fulgurite.probes.objectives import Objective
from fulgurite.probes.per_image import PerImage
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier
from fulgurite.probes.synthesis.features import MOVED, values_of
from fulgurite.probes.synthesis.optimizers import adam, linear_decay
from fulgurite.probes.synthesis.transforms import Transform
from fulgurite.probes.synthesis.watch import Watch


def accentuate(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective,
    *,
    near: str,
    strength: float = 20.0,
    steps: int = 128,
    lr: float = 0.05,
    transform: Transform = MOVED,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Photographs changed so that an objective rises, while the features of an early layer stay similar.

    The images start as they are, on a Fourier canvas. What is maximised is the objective, in units of its
    value at the photograph (in its own where that is 0), less `strength` times the squared relative distance
    at the layer `near`, both images transformed alike at each step. Hamblin et al. 2024,
    arxiv.org/abs/2402.10039.

    Args:
        network: maps images in [0, 1] to logits.
        images: photographs.
        objective: a class score, a channel, a unit, a direction ...
        near: the layer at which images stay like the photographs; a later one allows more.
        strength: of the penalty; larger values allow less change.
        steps: of the optimiser.
        lr: its learning rate.
        transform: what is done to both images before each step.
        precise: compute in float64, see `ascend`.
        watch: what to show and to keep on the way.

    Raises:
        ValueError: the objective or the layer does not fit the network, or a negative strength.
    """
    if strength < 0:
        raise ValueError(f"strength={strength:g}; wanted at least 0")
    values = values_of(network, objective, images).abs()
    size = values.where(values > 1e-6, 1)
    canvas = Fourier((images.shape[1], images.shape[2], images.shape[3]), [0] * len(images))
    canvas.set_images(images)
    return ascend(
        network,
        divided(objective, PerImage(size, many=True)) + strength * likeness(near),
        canvas,
        steps=steps,
        by=adam(lr, schedule=linear_decay),
        transform=transform,
        reference=images,
        watch=watch,
        precise=precise,
    )


def divided(objective: Objective, sizes: PerImage) -> Objective:
    """An objective, each image's number divided by its own size."""

    def each(rows: Tensor, count: int) -> Objective:
        return divided(objective.of(rows, count), sizes.some(rows, count))

    def value(seen: dict[str, Tensor]) -> Tensor:
        values = objective.value(seen)
        return values / sizes.on(values.device)

    return replace(objective, value=value, each=each)
