"""Faithfulness of attribution methods at each epoch: pointing game, or deletion and insertion."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fulgurite.callbacks.attribution_methods import AttributionMethods, Methods
from fulgurite.callbacks.framework.artifacts import Artifact, Scalar
from fulgurite.callbacks.framework.film import AllEpochs
from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.faithfulness_measures import check_measures, means, measure
from fulgurite.probes.attribution.localisation import check_masks
from fulgurite.probes.attribution.perturbations import Fill
from fulgurite.probes.plots import line_plot
from fulgurite.probes.predict import predict
from fulgurite.probes.render import grid

USUAL = ("input_x_gradient", "guided_backprop", "grad_cam")
MASKED, UNMASKED = ("pointing", "inside"), ("deletion", "insertion")
TITLES = {
    "pointing": "pointing game: share of the images",
    "inside": "share of the attribution on the object",
    "deletion": "deletion area of the probability",
    "insertion": "insertion area of the probability",
    "infidelity": "infidelity, 0 to 1",
}


class Faithfulness(ProbeCallback):
    """Whether the maps of attribution methods are faithful: scalars of each, and their curves over epochs.

    Where the data set gives masks of the objects (by a method `masks(indices)`, or as a tensor of that name),
    `pointing/METHOD` is how often the largest value lies on the object, and `inside/METHOD` the share of the
    attribution on it, next to the object's share of the image, which is that of a uniform map. Elsewhere
    `deletion/METHOD` and `insertion/METHOD` are the areas under the class's probability, see `curves`. Maps
    explain the true class; the predicted one, where there are no labels.

    Args:
        methods: their names, or a dict from names to keyword arguments, as for `Attribution`.
        measures: names in `MEASURES`; by default as above.
        layer: the layer whose maps the CAM methods weight; the last one by default.
        score_layer: where the scores are read; before the last ReLU, if the logits pass through one.
        steps: points of deletion and insertion curves, less one.
        fill: what replaces hidden pixels: "grey", the image's "mean" colour, its "blur", or a level.
        images: how many validation images.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(
        self,
        methods: Methods | None = None,
        *,
        measures: Sequence[str] | None = None,
        layer: str | None = None,
        score_layer: str = "",
        steps: int = 10,
        fill: Fill = "mean",
        images: int | None = 32,
        **schedule,
    ):
        super().__init__(images=images, **schedule)
        if steps < 1:
            raise ValueError(f"steps={steps}; wanted at least 1")
        if measures is not None:
            check_measures(measures, masks=True)
        self.methods = AttributionMethods(methods, USUAL, layer=layer, score_layer=score_layer)
        self.measures, self.steps = measures, steps
        self.fill: Fill = fill
        self.film.side = 600

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The methods can be used, and masks have the size of the images."""
        self.methods.check(network, sample, self.name)
        masks = sample[:1].masks
        if self.measures is not None:
            check_measures(self.measures, masks=masks is not None)
        if masks is not None:
            check_masks(masks, sample[:1].images)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        return sample.each()

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """The measures of each image, by method."""
        mine = sample.take(subjects)
        images, masks = mine.images, mine.masks
        classes = predict(network, images).argmax(1)
        if mine.labels is not None:
            classes = mine.labels.to(classes.device)
        maps = {name: self.methods.map(name, network, mine, classes) for name in self.methods}
        measures = self.measures or (UNMASKED if masks is None else MASKED)
        values, _ = measure(
            network,
            images,
            classes,
            maps,
            measures,
            masks=masks,
            score_layer=self.methods.score_layer,
            steps=self.steps,
            fill=self.fill,
        )
        found = {
            name: {what: own.tolist() for what, own in measured.items()} for name, measured in values.items()
        }
        shares = None if masks is None else masks.flatten(1).float().mean(1).tolist()
        return {
            subject: {
                name: {what: own[place] for what, own in measured.items()} for name, measured in found.items()
            }
            | ({} if shares is None else {"": {"inside": shares[place]}})
            for place, subject in enumerate(subjects)
        }

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """Means over the images, and their curves over the epochs so far."""
        values: dict[str, dict[str, list[float]]] = {}
        for own in observations.values():
            for name, measured in own.items():
                for what, value in measured.items():
                    values.setdefault(name, {}).setdefault(what, []).append(value)
        now = means(
            {name: {what: torch.tensor(own) for what, own in each.items()} for name, each in values.items()}
        )
        share = now.pop("", {}).get("inside")
        looks = [*self.memory.last.get(LOOKS, []), (float(self.look.epoch), now, share)]
        self.memory.keep(LOOKS, looks)
        measured = next(iter(now.values()))
        plots = [_plot(what, looks) for what in measured]
        scalars = {
            f"{what}/{name}": Scalar(value)
            for what in measured
            for name, value in ((name, own[what]) for name, own in now.items())
            if value == value  # no image had one
        }
        known = {} if share is None or "inside" not in measured else {"inside/object's share": Scalar(share)}
        return {"": AllEpochs(grid(plots, columns=len(plots), gap=8)), **scalars, **known}


def _plot(
    what: str, looks: Sequence[tuple[float, Mapping[str, Mapping[str, float]], float | None]]
) -> Tensor:
    """A line for each method over the epochs."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for epoch, now, share in looks:
        for name, own in now.items():
            if what in own and own[what] == own[what]:
                lines.setdefault(name.replace("_", " "), []).append((epoch, own[what]))
        if what == "inside" and share is not None:
            lines.setdefault("object's share", []).append((epoch, share))
    lines = lines or {"none": [(0.0, 0.0)]}
    return line_plot(lines, xlabel="epoch", ylabel=TITLES[what], ymax=1.0, size=(300, 200))
