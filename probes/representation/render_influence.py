"""Training images that raised and lowered a prediction most, as tiles with their shares of the influence."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.render import RGB, captioned, picture
from fulgurite.probes.representation.training_influence import shares, strongest


def influence_tiles(
    influence: Float[Tensor, "n"],
    training: Callable[[Sequence[int]], Float[Tensor, "k c h w"]],
    labels: Sequence[str],
    *,
    k: int,
    side: int = 64,
) -> list[RGB]:
    """The `k` training images that raised a margin most, then the `k` that lowered it most.

    Below each are the name of its class, and its share of the influence of all training images compared.

    Args:
        influence: of each training image on one margin, see `training_influence`.
        training: gives training images in [0, 1] by their places.
        labels: the names of their classes.
        k: how many of either kind.
        side: of a tile, in pixels.
    """
    ((most, least),) = strongest(influence[None], k)
    chosen, parts = [*most.tolist(), *least.tolist()], shares(influence)
    return [
        captioned(sized(picture(image.cpu()), side), labels[int(number)], f"{float(parts[number]):+.1%}")
        for number, image in zip(chosen, training(chosen), strict=True)
    ]


def influence_columns(k: int) -> list[str]:
    """The heads of the columns of these tiles."""
    blank = [""] * (k - 1)
    return ["raised it", *blank, "lowered it", *blank]
