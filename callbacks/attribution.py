"""Attribution maps of validation images by several methods, at each epoch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from fulgurite.callbacks.attribution_methods import AttributionMethods, Methods
from fulgurite.callbacks.explained_class import explained_in_words, one_class
from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.captions import (
    explained,
    prediction_captions,
    row_names,
    true_captions,
)
from fulgurite.callbacks.framework.film_maps import FilmMaps, film_maps
from fulgurite.callbacks.framework.map_probe import MapProbe
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.map_sheets import MapRow, Scale, check_scale, map_sheet
from fulgurite.probes.attribution.render_maps import zero_maps, zeros_in_words
from fulgurite.probes.predict import predict
from fulgurite.probes.render import noted
from fulgurite.probes.tasks import TASKS

SIDE, FRAME, FRAMES = 112, 96, 4  # of a tile, and one in the film; images in the film
USUAL = ("input_x_gradient", "integrated_gradients", "guided_backprop", "grad_cam", "layer_cam")


class Attribution(MapProbe):
    """Attribution maps of several methods, on a sheet with class and probability, or a picture for each.

    Maps of a method are on one scale. A method whose maps are 0 everywhere is left out of the sheet, and the
    log says so once for each method. Captions of misclassified images are red.

    Of a map of logits, the class with the largest average logit is explained, by this average: often the
    background, so that `targets` names the class that is of interest.

    Args:
        methods: their names, as in `probes.attribution.methods.METHODS`; or a dict from names to keyword
            arguments, such as `{"rise": {"masks": 500}}`. Without it, a usual choice of those that suit the
            network: guided backpropagation needs ReLUs.
        layer: the layer whose maps the CAM methods weight; the last one by default.
        targets: the class to explain: the "true" one, the "predicted" one, or "both"; or one class for all
            images, by its number or name, so that maps do not switch with the prediction.
        sheet: compare all methods on one sheet; otherwise a picture for each method.
        score_layer: where the scores are read; before the last ReLU, if the logits pass through one.
        scale: one for each "column", or for each "tile", which shows weak maps as well.
        images: how many validation images; None for all.
        **schedule: as for `MapProbe` and `ProbeCallback`.
    """

    logs_numbers = False
    tasks = (*TASKS, "segmentation")

    fewer, least = "subjects", 0.25

    def __init__(
        self,
        methods: Methods | None = None,
        *,
        layer: str | None = None,
        targets: int | str = "predicted",
        sheet: bool = True,
        score_layer: str = "",
        scale: Scale = "column",
        images: int | None = 6,
        **schedule,
    ):
        super().__init__(images=images, **schedule)
        self.methods = AttributionMethods(methods, USUAL, layer=layer, score_layer=score_layer)
        self.targets, self.sheet = targets, sheet
        self.scale: Scale = check_scale(scale)
        self._reported = set[str]()
        self.film.side = FRAME

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers are the network's; the quick methods are tried on one image."""
        self.methods.check(network, sample, self.name)
        one_class(self.targets, sample)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        return sample.each()

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, MapRow]]:
        """For each image a row for each explained class; one, where these are the same class."""
        mine = sample.take(subjects)
        images = mine.images
        logits = predict(network, images)
        captions, guesses, truths = (
            prediction_captions(mine, logits),
            mine.predicted(logits),
            mine.true(logits),
        )
        truths = guesses if truths is None else truths
        targets = {"true": truths, "predicted": guesses}
        if (number := one_class(self.targets, sample)) is not None:
            targets = {str(self.targets): torch.full_like(guesses, number)}
        elif self.targets != "both":
            targets = {str(self.targets): targets[str(self.targets)]}
        rows: dict[str, dict[str, MapRow]] = {subject: {} for subject in subjects}
        for what, classes in targets.items():
            maps = {
                name: self.methods.map(name, network, mine, classes, part=self.part) for name in self.methods
            }
            for place, subject in enumerate(subjects):
                own = {name: values[place] for name, values in maps.items()}
                if what != "predicted" or int(classes[place]) != int(truths[place]) or len(targets) == 1:
                    of = explained(sample, int(classes[place]))
                    row = MapRow(images[place], own, *captions[place], of=of)
                    rows[subject][what] = row.kept(SIDE)
        return rows

    def compose(
        self, observations: Mapping[str, Mapping[str, MapRow]], sample: Sample
    ) -> Mapping[str, Artifact]:
        """One sheet, or a sheet for each method."""
        rows, zeros, names = dict[str, MapRow](), Counter[str](), row_names(sample)
        for subject, targets in observations.items():
            for what, found in targets.items():
                both = self.targets == "both" and len(targets) > 1
                rows[f"{names[subject]} {what}" if both else names[subject]] = found
                zeros += zero_maps(found.maps)
        self._say(zeros, len(rows))
        which = explained_in_words(self.targets, sample)

        def drawn(shown: Mapping[str, MapRow]) -> Picture:
            return Picture(noted(map_sheet(shown, scale=self.scale, side=SIDE), which))

        if self.sheet:
            return {"": drawn(rows)}
        return {
            name: drawn({key: replace(row, maps={name: row.maps[name]}) for key, row in rows.items()})
            for name in self.methods
        }

    def frames(
        self,
        observations: Mapping[str, Mapping[str, MapRow]],
        composed: object,
    ) -> Mapping[str, FilmMaps]:
        """The maps of some images, of the first class that is explained of each."""
        assert self.sample is not None  # it has looked
        few = {subject: next(iter(targets.values())) for subject, targets in observations.items()}
        shown, which = dict([*few.items()][:FRAMES]), explained_in_words(self.targets, self.sample, film=True)
        return film_maps(shown, true_captions(self.sample), side=FRAME, which=which)

    def _say(self, zeros: Counter[str], total: int) -> None:
        fresh = {name: count for name, count in zeros.items() if name not in self._reported}
        self._reported |= fresh.keys()
        if line := zeros_in_words(fresh, total):
            rank_zero_info(f"{self.name}: {line}")
