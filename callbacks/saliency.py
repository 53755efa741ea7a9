"""Gradient saliency maps at each epoch (Simonyan et al. 2014)."""

from collections.abc import Mapping, Sequence

from torch import nn

from fulgurite.callbacks.boards.tensorboard import Artifact, Picture
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.gradient import saliency
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, enlarged, grid, heat, picture


class Saliency(ProbeCallback):
    """Images beside the saliency of their true and of their predicted class; each map has its own brightness.

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

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their place in the sample."""
        layer_of(network, self.layer)
        return [f"image {place:02d}" for place in range(len(sample))]

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Artifact]:
        """A strip for each image: itself, the map of its true class, the map of the predicted class."""
        mine = sample[[int(subject.removeprefix("image ")) for subject in subjects]]
        chances = predict(network, mine.images).softmax(1)
        guesses = chances.argmax(1)
        labels = guesses if mine.labels is None else mine.labels.to(guesses.device)
        asked = [guesses] if mine.labels is None else [guesses, labels]
        objectives = [class_score(classes, layer=self.layer) for classes in asked]
        guessed, *true = saliency(network, mine.images, objectives)[:, :, 0]
        strips = {}
        for place, subject in enumerate(subjects):
            label, guess = int(labels[place]), int(guesses[place])
            tiles = [_tile(picture(mine.images[place]), "")]
            if true:
                tiles.append(
                    _tile(heat(true[0][place]), f"{sample.name(label)}: {chances[place, label]:.0%}")
                )
            tiles.append(
                _tile(heat(guessed[place]), f"pred {sample.name(guess)}: {chances[place, guess]:.0%}")
            )
            strips[subject] = Picture(grid(tiles, columns=len(tiles), gap=2))
        return strips

    def compose(self, seen: Mapping[str, Picture], sample: Sample) -> Mapping[str, Artifact]:
        """One sheet of all strips."""
        return {
            "": Picture(grid([strip.pixels for strip in seen.values()], columns=_columns(len(seen)), gap=6))
        }


def _tile(pixels: RGB, caption: str) -> RGB:
    return captioned(enlarged(pixels, side=96), caption)


def _columns(strips: int) -> int:
    """Strips are about three times as wide as high."""
    return max(1, round((strips / 3) ** 0.5))
