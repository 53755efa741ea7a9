"""Inversions as pictures: every reconstruction, and curves of relative error and PSNR over the layers."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import RGB, blank, captioned, grid, picture, stacked
from fulgurite.probes.synthesis.inversion import Inversion


def strips(
    labels: Sequence[str],
    images: Float[Tensor, "n c h w"],
    inversions: Mapping[str, Inversion],
    *,
    side: int,
    seed: int = 0,
) -> dict[str, list[RGB]]:
    """Rows of tiles by their names: an image, and its reconstruction from each layer, with error and PSNR.

    Each repeat has a row, called by its seed, from `seed` on; the image is in the first.
    """
    rows = {}
    repeats = max((len(found.images) for found in inversions.values()), default=1)
    for place, (label, image) in enumerate(zip(labels, images, strict=True)):
        first = sized(picture(image), side)
        for repeat in range(repeats):
            tiles = [first if repeat == 0 else blank(*first.shape[1:])]
            for found in inversions.values():
                error, decibels = (float(one[repeat, place]) for one in (found.relative_error, found.psnr))
                tile = sized(picture(found.images[repeat, place]), side)
                tiles.append(captioned(tile, f"{error:.1%}, {decibels:.1f} dB"))
            rows[label if repeats == 1 else f"{label}, seed {seed + repeat}"] = tiles
    return rows


def curves(inversions: Mapping[str, Inversion], *, below: RGB | None = None) -> RGB:
    """Relative error and PSNR of each layer, side by side; under another picture, if one is given."""
    layers = [layer or "logits" for layer in inversions]
    means = [found.means() for found in inversions.values()]
    errors = category_plot(
        layers, {"mean": [100 * mean["relative_error"] for mean in means]}, ylabel="relative error, %"
    )
    decibels = category_plot(layers, {"mean": [mean["psnr"] for mean in means]}, ylabel="PSNR, dB")
    plots = grid([errors, decibels], columns=2, gap=8)
    return plots if below is None else stacked([below, plots])
