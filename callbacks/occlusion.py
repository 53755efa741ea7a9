"""Occlusion maps of validation images at each epoch (Zeiler & Fergus 2014)."""

from collections.abc import Mapping, Sequence

from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.captions import (
    explained,
    maps_of,
    prediction_captions,
    row_names,
    true_captions,
)
from fulgurite.callbacks.framework.film_maps import FilmMaps, film_maps
from fulgurite.callbacks.framework.map_probe import MapProbe
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.tasks import LABELS
from fulgurite.probes.attribution.map_sheets import MapRow, map_sheet, scale_end
from fulgurite.probes.attribution.occlusion import occlusion, windows
from fulgurite.probes.attribution.perturbations import Fill, filling
from fulgurite.probes.attribution.render_maps import Look
from fulgurite.probes.objectives import class_score, probability
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import noted
from fulgurite.probes.task_objectives import label_probability

SCORE, PROBABILITY = "score lost", "probability lost"
SIDE = 112  # of a tile
WORDS = {"over": "orange: hiding this place lowers score or probability; blue: raises it"}
LOOKS: Mapping[str, Look] = {SCORE: "over", PROBABILITY: "over"}
LEAST = 0.01  # the scale of probabilities ends here at least: smaller changes look weak


class Occlusion(MapProbe):
    """Images, and how much hiding each position lowers the true class's score and its probability.

    Both are orange over the image where hiding lowers them, blue where it raises them; scores of all images
    on one scale, and their probabilities. Zeiler & Fergus 2014, arxiv.org/abs/1311.2901.

    Args:
        window: side of the hidden square, in pixels; a quarter of the image's shorter side without it.
        stride: from window to window; half a window without it.
        fill: what replaces hidden pixels: "grey", "mean", "blur" or a level.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        images: how many validation images; None for all.
        **schedule: as for `MapProbe` and `ProbeCallback`.
    """

    logs_numbers = False
    fewer = "subjects"
    tasks = LABELS

    def __init__(
        self,
        *,
        window: int | None = None,
        stride: int | None = None,
        fill: Fill = "grey",
        layer: str = "",
        images: int | None = 4,
        **schedule,
    ):
        super().__init__(images=images, **schedule)
        self.window, self.stride, self.layer = window, stride, layer
        self.fill: Fill = fill
        self.film.side = SIDE

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's, and windows and filling suit the images."""
        layer_of(network, self.layer)
        _, height, width = sample.shape
        windows((height, width), self._window(sample), self.stride)
        filling(sample[:1].images, self.fill)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        return sample.each()

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, MapRow]:
        """Of each image: itself, the loss of the score, and that of the probability."""
        mine = sample.take(subjects)
        images, logits = mine.images, predict(network, mine.images)
        captions, labels = prediction_captions(mine, logits), mine.true(logits)
        labels = mine.predicted(logits) if labels is None else labels
        share = label_probability if sample.task == "multilabel" else probability
        losses, drops = occlusion(
            network,
            images,
            [class_score(labels, layer=self.layer), share(labels)],
            window=self._window(sample),
            stride=self.stride,
            fill=self.fill,
        )
        rows = {}
        for place, subject in enumerate(subjects):
            maps = {SCORE: losses[place], PROBABILITY: drops[place]}
            of = explained(sample, int(labels[place]))
            rows[subject] = MapRow(images[place], maps, *captions[place], of=of).kept(SIDE)
        return rows

    def compose(self, observations: Mapping[str, MapRow], sample: Sample) -> Mapping[str, Artifact]:
        """A sheet of all images."""
        names = row_names(sample)
        rows = {names[subject]: row for subject, row in observations.items()}
        tops = {PROBABILITY: max(LEAST, scale_end(rows, PROBABILITY, "over"))}
        paper = map_sheet(rows, looks=LOOKS, tops=tops, side=SIDE, words=WORDS)
        return {"": Picture(noted(paper, maps_of(sample, "true")))}

    def frames(self, observations: Mapping[str, MapRow], composed: object) -> Mapping[str, FilmMaps]:
        """The maps of each image."""
        assert self.sample is not None  # it has looked
        which = maps_of(self.sample, "true", film=True)
        truths = true_captions(self.sample)
        return film_maps(observations, truths, looks=LOOKS, side=SIDE, which=which, words=WORDS)

    def _window(self, sample: Sample) -> int:
        return max(1, min(sample.shape[1:]) // 4) if self.window is None else self.window
