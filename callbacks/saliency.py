"""Gradient saliency maps at each epoch (Simonyan et al. 2014)."""

from collections.abc import Sequence

from torch import nn

from fulgurite.callbacks.framework.image_strips import ImageStrips
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.gradient import saliency
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, enlarged, grid, heat, picture


class Saliency(ImageStrips):
    """Images next to the saliency of their true and predicted class; each map has its own brightness.

    The absolute gradient of the class score before the softmax, its maximum over the channels. Simonyan et
    al. 2014, arxiv.org/abs/1312.6034.

    Args:
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(self, *, layer: str = "", **schedule):
        super().__init__(**schedule)
        self.layer = layer
        self.film.side = 320

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's."""
        layer_of(network, self.layer)

    def strips(self, network: nn.Module, sample: Sample) -> Sequence[RGB]:
        """Of each image: itself, the map of its true class, the map of the predicted class."""
        probabilities = predict(network, sample.images).softmax(1)
        guesses = probabilities.argmax(1)
        labels = guesses if sample.labels is None else sample.labels.to(guesses.device)
        classes_shown = [guesses] if sample.labels is None else [guesses, labels]
        objectives = [class_score(classes, layer=self.layer) for classes in classes_shown]
        guessed, *true = saliency(network, sample.images, objectives)[:, :, 0]
        images, strips = sample.images, []
        for place in range(len(sample)):
            label, guess = int(labels[place]), int(guesses[place])
            tiles = [_tile(picture(images[place]), "")]
            if true:
                tiles.append(
                    _tile(heat(true[0][place]), f"{sample.name(label)}: {probabilities[place, label]:.0%}")
                )
            tiles.append(
                _tile(heat(guessed[place]), f"pred {sample.name(guess)}: {probabilities[place, guess]:.0%}")
            )
            strips.append(grid(tiles, columns=len(tiles), gap=2))
        return strips


def _tile(pixels: RGB, caption: str) -> RGB:
    return captioned(enlarged(pixels, side=96), caption)
