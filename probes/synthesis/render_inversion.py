"""Curves of inversions: relative error and PSNR over the layers."""

from collections.abc import Mapping

from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import RGB, grid, stacked
from fulgurite.probes.synthesis.inversion import Inversion


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
