"""Inversions as pictures: every reconstruction, and curves of relative error and PSNR over the layers."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import RGB, blank, captioned, grid, picture, stacked
from fulgurite.probes.synthesis.inversion import NUMBERS, Inversion, absent


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
    """Errors, PSNR and spread of each layer, two plots side by side; under another picture, if one is given.

    As in `table`, there is no curve of what one image or one repeat does not have: the error over the mean
    distance of two images, and the spread.
    """
    layers = [layer or "logits" for layer in inversions]
    means = [found.means() for found in inversions.values()]
    lines = {
        "relative error, %": [100 * mean["relative_error"] for mean in means],
        "error over the mean distance of two images, %": [100 * mean["normalized_error"] for mean in means],
        "PSNR, dB": [mean["psnr"] for mean in means],
        "spread of pixels over repeats": [mean["spread"] for mean in means],
    }
    lacking = absent(inversions)
    plots = [
        category_plot(layers, {"mean": values}, ylabel=label)
        for (label, values), name in zip(lines.items(), NUMBERS, strict=True)
        if name not in lacking
    ]
    paper = grid(plots, columns=2, gap=8)
    return paper if below is None else stacked([below, paper])
