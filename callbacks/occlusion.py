"""Occlusion maps of validation images at each epoch (Zeiler & Fergus 2014)."""

from collections.abc import Sequence

from torch import nn

from fulgurite.callbacks.framework.image_strips import ImageStrips
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.tasks import LABELS
from fulgurite.probes.attribution.occlusion import occlusion, windows
from fulgurite.probes.attribution.perturbations import Fill, filling
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.objectives import class_score, probability
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, grid, heat, overlaid, picture
from fulgurite.probes.task_objectives import label_probability


class Occlusion(ImageStrips):
    """Images, what hiding each place costs the true class's score, and the probability that is left of it.

    The score's loss is warm over the image where hiding hurts, cool where it helps; the probability is pale
    where it stays 1, black where it falls to 0. Zeiler & Fergus 2014, arxiv.org/abs/1311.2901.

    Args:
        window: side of the hidden square, in pixels; a quarter of the image's shorter side without it.
        stride: from window to window; half a window without it.
        fill: what it is hidden behind: "grey", "mean", "blur" or a level.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        **schedule: as for `ProbeCallback`.
    """

    can_look_at_fewer = True
    aspect = None
    tasks = LABELS

    def __init__(
        self,
        *,
        window: int | None = None,
        stride: int | None = None,
        fill: Fill = "grey",
        layer: str = "",
        **schedule,
    ):
        super().__init__(**{"images": 4, **schedule})
        self.window, self.stride, self.layer = window, stride, layer
        self.fill: Fill = fill
        self.film.side = 340

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's, and windows and filling suit the images."""
        layer_of(network, self.layer)
        _, height, width = sample.shape
        windows((height, width), self._window(sample), self.stride)
        filling(sample[:1].images, self.fill)

    def strips(self, network: nn.Module, sample: Sample) -> Sequence[RGB]:
        """Of each image: itself, the loss of the score, and the probability that is left."""
        images = sample.images
        logits = predict(network, images)
        probabilities, labels = sample.probabilities(logits), sample.true(logits)
        labels = sample.predicted(logits) if labels is None else labels
        share = label_probability if sample.task == "multilabel" else probability
        losses, drops = occlusion(
            network,
            images,
            [class_score(labels, layer=self.layer), share(labels)],
            window=self._window(sample),
            stride=self.stride,
            fill=self.fill,
        )
        strips = []
        for place in range(len(sample)):
            label = int(labels[place])
            probability_before, image = probabilities[place, label], picture(images[place])
            left = heat((probability_before - drops[place, 0]).clamp(0, 1), top=1.0)
            tiles = {
                sample.caption(label, float(probability_before)): image,
                "score lost": overlaid(image, losses[place, 0]),
                "probability left": left,
            }
            row = [captioned(sized(tile, 112), text) for text, tile in tiles.items()]
            strips.append(grid(row, columns=len(row), gap=2))
        return strips

    def _window(self, sample: Sample) -> int:
        return max(1, min(sample.shape[1:]) // 4) if self.window is None else self.window
