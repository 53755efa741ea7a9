"""Attribution maps of validation images by several methods, at each epoch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from fulgurite.callbacks.attribution_methods import AttributionMethods, Methods
from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.render_maps import comparison, row, zero_maps, zeros_in_words
from fulgurite.probes.predict import predict
from fulgurite.probes.render import RGB
from fulgurite.probes.tasks import TASKS

USUAL = ("input_x_gradient", "integrated_gradients", "guided_backprop", "grad_cam", "layer_cam")


class Row(NamedTuple):
    """The tiles of an image, and the methods whose map is 0 everywhere."""

    tiles: Sequence[RGB]
    zeros: Counter[str]


class Attribution(ProbeCallback):
    """Attribution maps of several methods, on a sheet with class and probability, or a picture for each.

    Maps that are 0 everywhere have that below them, and the log says so once for each method.

    Of a map of logits, the class with the largest average logit is explained, by this average.

    Args:
        methods: their names, as in `probes.attribution.methods.METHODS`; or a dict from names to keyword
            arguments, such as `{"rise": {"masks": 500}}`. Without it, a usual choice, less what the network
            is not made for: guided backpropagation needs ReLUs.
        layer: the layer whose maps the CAM methods weight; the last one by default.
        targets: the class to explain: the "true" one, the "predicted" one, or "both".
        sheet: compare all methods on one sheet; otherwise a picture for each method.
        score_layer: where the scores are read; before the last ReLU, if the logits pass through one.
        **schedule: as for `ProbeCallback`.
    """

    tasks = (*TASKS, "segmentation")

    can_look_at_fewer = True

    def __init__(
        self,
        methods: Methods | None = None,
        *,
        layer: str | None = None,
        targets: Literal["true", "predicted", "both"] = "predicted",
        sheet: bool = True,
        score_layer: str = "",
        **schedule,
    ):
        super().__init__(**{"images": 6, **schedule})
        if targets not in ("true", "predicted", "both"):
            raise ValueError(f'targets={targets!r}; wanted "true", "predicted" or "both"')
        self.methods = AttributionMethods(methods, USUAL, layer=layer, score_layer=score_layer)
        self.targets, self.sheet = targets, sheet
        self._told = set[str]()
        self.film.side = 512

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers are the network's; the quick methods are tried on one image."""
        self.methods.check(network, sample, self.name)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        return sample.each()

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, Row]]:
        """For each image a row of tiles for each explained class; one, where these are the same class."""
        mine = sample.take(subjects)
        images = mine.images
        logits = predict(network, images)
        probabilities, guesses, truths = mine.probabilities(logits), mine.predicted(logits), mine.true(logits)
        truths = guesses if truths is None else truths
        targets = {"true": truths, "predicted": guesses}
        if self.targets != "both":
            targets = {self.targets: targets[self.targets]}
        rows: dict[str, dict[str, Row]] = {subject: {} for subject in subjects}
        for what, classes in targets.items():
            maps = {name: self.methods.map(name, network, mine, classes) for name in self.methods}
            for place, subject in enumerate(subjects):
                number = int(classes[place])
                caption = mine.caption(number, float(probabilities[place, number]))
                caption = "\n".join([caption, mine.truth(place)][: 1 + bool(mine.truth(place))])
                own = {name: values[place] for name, values in maps.items()}
                if what != "predicted" or number != int(truths[place]) or len(targets) == 1:
                    rows[subject][what] = Row(row(images[place], own, caption), zero_maps(own))
        return rows

    def compose(
        self, observations: Mapping[str, Mapping[str, Row]], sample: Sample
    ) -> Mapping[str, Artifact]:
        """One sheet, or a sheet for each method."""
        rows, zeros = dict[str, Sequence[RGB]](), Counter[str]()
        for subject, targets in observations.items():
            for what, found in targets.items():
                rows[f"{subject.removeprefix('image ')} {what}"] = found.tiles
                zeros += found.zeros
        self._say(zeros, len(rows))
        if self.sheet:
            return {"": Picture(comparison(rows, self.methods))}
        return {
            name: Picture(comparison({key: [tiles[0], tiles[place]] for key, tiles in rows.items()}, [name]))
            for place, name in enumerate(self.methods, 1)
        }

    def _say(self, zeros: Counter[str], total: int) -> None:
        fresh = {name: count for name, count in zeros.items() if name not in self._told}
        self._told |= fresh.keys()
        if line := zeros_in_words(fresh, total):
            rank_zero_info(f"{self.name}: {line}")
