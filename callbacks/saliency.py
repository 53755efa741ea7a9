"""Gradient saliency maps at each epoch (Simonyan et al. 2014)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

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
from fulgurite.probes.attribution.gradient import saliency
from fulgurite.probes.attribution.map_sheets import MapRow, Scale, check_scale, map_sheet
from fulgurite.probes.attribution.render_maps import Look, drawn_values, zeros_in_words
from fulgurite.probes.colours import common_top
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import noted
from fulgurite.probes.task_objectives import output
from fulgurite.probes.tasks import TASKS

# names of maps; columns have longer ones where both are shown
OF_TRUE, OF_PREDICTED = "saliency", "of the prediction"
SIDE, FRAMES = 96, 8  # of a tile; images in the film


class Saliency(MapProbe):
    """Images next to the saliency of their true class, and of the predicted one where it is another.

    All maps are on one scale; captions of misclassified images are red. Where maps are 0 everywhere, the log
    says so once.

    The absolute gradient of the class score before the softmax, its maximum over the channels. Simonyan et
    al. 2014, arxiv.org/abs/1312.6034. Of a multi-label network, the true label with the largest logit and the
    one with the largest of all; of a regression, the first output; of a map
    of logits, the class with the largest average logit, whose average over the positions is explained: often
    the background, so that `targets` names the class that is of interest.

    Args:
        targets: the class to explain: the "true" one, the "predicted" one, or "both"; or one class for all
            images, by its number or name.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        scale: one for all maps ("column"), or for each "tile", which shows weak maps as well.
        **schedule: as for `MapProbe` and `ProbeCallback`.
    """

    logs_numbers = False
    fewer = "subjects"
    tasks = (*TASKS, "segmentation")

    def __init__(self, *, targets: int | str = "both", layer: str = "", scale: Scale = "column", **schedule):
        super().__init__(**schedule)
        if not isinstance(layer, str):
            raise ValueError(f"layer={layer!r}; wanted the name of a layer, as named_modules() has it")
        self.targets: int | str = targets
        self.scale: Scale = check_scale(scale)
        self.layer, self._reported = layer, False
        self.film.side = SIDE

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's, and the class one of its classes."""
        layer_of(network, self.layer)
        one_class(self.targets, sample)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        return sample.each()

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, MapRow]:
        """Of each image: itself, the map of its true class, that of the predicted class if it is another.

        Or the map of the one class that is explained of all.
        """
        mine = sample.take(subjects)
        images, logits = mine.images, predict(network, mine.images)
        captions, guesses, known = (
            prediction_captions(mine, logits),
            mine.predicted(logits),
            mine.true(logits),
        )
        if (number := one_class(self.targets, sample)) is not None:
            guesses = known = torch.full_like(guesses, number)
        elif self.targets != "both" and known is not None:
            guesses = known = known if self.targets == "true" else guesses
        classes_shown = [guesses] if known is None or known is guesses else [guesses, known]
        score = output if sample.task == "regression" else class_score
        objectives = [score(classes, layer=self.layer) for classes in classes_shown]
        guessed, *true = saliency(network, images, objectives)
        rows = {}
        for place, subject in enumerate(subjects):
            maps = {OF_TRUE: true[0][place]} if true else {OF_PREDICTED: guessed[place]}
            shown = {next(iter(maps)): int((guesses if known is None else known)[place])}
            wrong = known is not None and int(guesses[place]) != int(known[place])
            if wrong and sample.task != "binary":  # either side of one logit has the same saliency
                maps[OF_PREDICTED], shown[OF_PREDICTED] = guessed[place], int(guesses[place])
            notes = {name: [words] for name, own in shown.items() if (words := explained(sample, own))}
            rows[subject] = MapRow(images[place], maps, *captions[place], notes=notes).kept(SIDE)
        return rows

    def compose(self, observations: Mapping[str, MapRow], sample: Sample) -> Mapping[str, Artifact]:
        """A sheet of all images."""
        rows, which = self._rows(observations, sample)
        self._say(rows)
        blocks, how = 1 if len(rows) < 6 else 2, self._colours(rows)
        paper = map_sheet(rows, scale=self.scale, side=SIDE, blocks=blocks, **how)
        return {"": Picture(noted(paper, which))}

    def frames(self, observations: Mapping[str, MapRow], composed: object) -> Mapping[str, FilmMaps]:
        """The maps of the true classes of some images."""
        assert self.sample is not None  # it has looked
        few = dict([*observations.items()][:FRAMES])
        rows = {}
        for subject, row in few.items():
            name, values = next(iter(row.maps.items()))
            rows[subject] = replace(row, maps={OF_TRUE: values}, of="".join(row.notes.get(name, ())))
        which = explained_in_words(self.targets, self.sample, film=True)
        return film_maps(rows, true_captions(self.sample), looks={OF_TRUE: "heat"}, side=SIDE, which=which)

    def _rows(self, observations: Mapping[str, MapRow], sample: Sample) -> tuple[dict[str, MapRow], str]:
        """The rows with the names of their images and of the columns, and a line on whose maps they are."""
        names = row_names(sample)
        both = len({name for row in observations.values() for name in row.maps}) > 1
        what = "label" if sample.task == "multilabel" else "class"
        columns = {
            OF_TRUE: f"{OF_TRUE} of the true {what}",
            OF_PREDICTED: f"{OF_TRUE} of the predicted {what}",
        }
        if not both:
            columns = dict.fromkeys(columns, OF_TRUE)
        rows = {}
        for subject, row in observations.items():
            maps = {columns[name]: own for name, own in row.maps.items()}
            notes = {columns[name]: own for name, own in row.notes.items()}
            rows[names[subject]] = replace(row, maps=maps, notes=notes)
        targets = "true" if self.targets == "both" and not both else self.targets
        return rows, explained_in_words(targets, sample)

    def _colours(self, rows: Mapping[str, MapRow]) -> dict[str, Any]:
        """One scale for both columns: they are of the same unit."""
        looks: dict[str, Look] = {name: "heat" for row in rows.values() for name in row.maps}
        maps = [drawn_values(own, "heat") for row in rows.values() for own in row.maps.values()]
        return {"looks": looks, "tops": dict.fromkeys(looks, common_top(maps))}

    def _say(self, rows: Mapping[str, MapRow]) -> None:
        zeros = sum(not bool(own.any()) for row in rows.values() for own in list(row.maps.values())[:1])
        if zeros and not self._reported:
            self._reported = True
            rank_zero_info(f"{self.name}: {zeros_in_words({'saliency': zeros}, len(rows))}")
