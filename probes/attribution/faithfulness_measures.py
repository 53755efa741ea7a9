"""Measures of faithfulness of several attribution methods side by side: numbers, table and plots."""

from collections.abc import Iterable, Mapping, Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attribution.faithfulness import Curves, curves, infidelity
from fulgurite.probes.attribution.localisation import energy_inside, pointing_game
from fulgurite.probes.attribution.methods import importance
from fulgurite.probes.attribution.model_randomisation import Randomisation
from fulgurite.probes.attribution.perturbations import Fill
from fulgurite.probes.objectives import class_score, probability
from fulgurite.probes.plots import category_plot, line_plot
from fulgurite.probes.render import RGB, grid

MEASURES = {
    "deletion": "area under the probability as the highest pixels are hidden first; small is faithful",
    "insertion": "area under the probability as they are shown first; large is faithful",
    "infidelity": "share of the score's change under random squares that the map does not predict",
    "pointing": "whether the largest value lies on the object",
    "inside": "share of the positive values that lies on the object",
}
"""What each measure is of a map; the last two need masks."""
OF_MASKS = ("pointing", "inside")

Values = Mapping[str, Mapping[str, Float[Tensor, "n"]]]
"""By method and measure, a number for each image."""


def measure(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    classes: Int[Tensor, "n"],
    maps: Mapping[str, Float[Tensor, "m _ u v"]],
    measures: Iterable[str],
    *,
    masks: Bool[Tensor, "l s t"] | None = None,
    score_layer: str = "",
    steps: int = 10,
    draws: int = 30,
    fill: Fill = "mean",
    tolerance: float = 0.0,
    progress: str | None = None,
) -> tuple[Values, Mapping[str, Curves]]:
    """The measures of each method's maps of the same images; and the deletion and insertion curves, if any.

    Deletion and insertion are of the class's probability, infidelity is of its score.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        classes: the class that the maps explain.
        maps: by the name of the method, as it gives them.
        measures: names in `MEASURES`.
        masks: where the object is.
        score_layer: where the score is read; before the last ReLU, if the logits pass through one.
        steps: points of the curves, less one.
        draws: perturbations for infidelity.
        fill: what replaces hidden pixels.
        tolerance: of the pointing game, in pixels.
        progress: a label for a progress bar.

    Raises:
        ValueError: no such measure, one that needs masks where there are none, or masks of another size.
    """
    wanted = [*measures]
    check_measures(wanted, masks=masks is not None)
    ranked = {name: importance(name, own) for name, own in maps.items()}
    values: dict[str, dict[str, Tensor]] = {name: {} for name in maps}
    found: Mapping[str, Curves] = {}
    if {"deletion", "insertion"} & {*wanted}:
        found = curves(
            network, images, probability(classes), ranked, steps=steps, fill=fill, progress=progress
        )
        for name, own in found.items():
            values[name] |= {"deletion": own.deletion_area, "insertion": own.insertion_area}
    if "infidelity" in wanted:
        score = class_score(classes, layer=score_layer)
        for name, own in infidelity(
            network, images, score, maps, draws=draws, fill=fill, progress=progress
        ).items():
            values[name]["infidelity"] = own
    for name, own in ranked.items():
        if masks is not None:
            hits = pointing_game(own, masks, tolerance=tolerance)
            values[name] |= {"pointing": hits, "inside": energy_inside(own, masks)}
    return {name: {what: own[what] for what in wanted} for name, own in values.items()}, found


def check_measures(measures: Sequence[str], *, masks: bool) -> None:
    """Check that these can be measured.

    Raises:
        ValueError: no such measure, or one that needs masks where there are none.
    """
    if wrong := [name for name in measures if name not in MEASURES]:
        raise ValueError(f"no measure {wrong[0]!r}; there are {', '.join(MEASURES)}")
    if not masks and (wrong := [name for name in measures if name in OF_MASKS]):
        raise ValueError(f"{wrong[0]!r} needs a mask for each image, and there are none")


def means(values: Values) -> dict[str, dict[str, float]]:
    """The mean of each measure of each method, over the images that have one."""
    return {
        name: {what: float(own.nanmean()) for what, own in measured.items()}
        for name, measured in values.items()
    }


def render_curves(found: Mapping[str, Curves]) -> RGB:
    """The mean deletion and insertion curves of all methods, side by side."""
    plots = []
    for mode, title in {
        "deletion": "highest first, hidden",
        "insertion": "highest first, alone shown",
    }.items():
        lines = {
            name: list(zip(own.shares.tolist(), getattr(own, mode).mean(0).tolist(), strict=True))
            for name, own in found.items()
        }
        plots.append(
            line_plot(
                lines,
                xlabel=f"share of the pixels, {title}",
                ylabel=f"{mode}: mean probability",
                ymax=1.0,
                size=(320, 200),
            )
        )
    return grid(plots, columns=2, gap=8)


def render_randomisation(found: Randomisation) -> RGB:
    """The mean rank correlation of each method as weights are re-initialised, from the classifier down."""
    lines = {name: own.mean(1).tolist() for name, own in found.correlations.items()}
    return category_plot(
        [layer or "logits" for layer in found.layers],
        lines,
        ylabel="rank correlation with the map before, weights random down to the layer; below 0 drawn as 0",
        ymax=1.0,
        ordered=False,
    )
