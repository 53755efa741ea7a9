"""Gradient saliency maps at each epoch (Simonyan et al. 2014)."""

from collections.abc import Sequence

from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from fulgurite.callbacks.framework.image_strips import ImageStrips
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.gradient import saliency
from fulgurite.probes.attribution.render_maps import zero_maps, zeros_in_words
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, enlarged, grid, heat, picture
from fulgurite.probes.task_objectives import output
from fulgurite.probes.tasks import TASKS


class Saliency(ImageStrips):
    """Images next to the saliency of their true class, and of the predicted one where it is another.

    Each map has its own brightness. One that is 0 everywhere has that below it, and the log says so once.

    The absolute gradient of the class score before the softmax, its maximum over the channels. Simonyan et
    al. 2014, arxiv.org/abs/1312.6034. Of a multi-label network, the true label with the largest logit and the
    one with the largest of all; of a regression, the first output; of a map
    of logits, the class with the largest average logit, whose average over the positions is explained.

    Args:
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        **schedule: as for `ProbeCallback`.
    """

    tasks = (*TASKS, "segmentation")

    def __init__(self, *, layer: str = "", **schedule):
        super().__init__(**schedule)
        self.layer, self._told = layer, False
        self.film.side = 320

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's."""
        layer_of(network, self.layer)

    def strips(self, network: nn.Module, sample: Sample) -> Sequence[RGB]:
        """Of each image: itself, the map of its true class, that of the predicted class if it is another."""
        logits = predict(network, sample.images)
        probabilities, guesses, known = (
            sample.probabilities(logits),
            sample.predicted(logits),
            sample.true(logits),
        )
        labels = guesses if known is None else known
        classes_shown = [guesses] if known is None else [guesses, labels]
        score = output if sample.task == "regression" else class_score
        objectives = [score(classes, layer=self.layer) for classes in classes_shown]
        guessed, *true = saliency(network, sample.images, objectives)[:, :, 0]
        images, strips = sample.images, []
        for place in range(len(sample)):
            label, guess = int(labels[place]), int(guesses[place])
            tiles = [_tile(picture(images[place]), sample.truth(place))]
            if true:
                tiles.append(_map(true[0][place], sample.caption(label, float(probabilities[place, label]))))
            if not true or guess != label:
                tiles.append(
                    _map(guessed[place], f"pred {sample.caption(guess, float(probabilities[place, guess]))}")
                )
            strips.append(grid(tiles, columns=1 + len(classes_shown), gap=2))
        self._say(guessed)
        return strips

    def _say(self, maps: Float[Tensor, "n h w"]) -> None:
        line = zeros_in_words(zero_maps({"saliency": maps[:, None]}), len(maps))
        if line and not self._told:
            self._told = True
            rank_zero_info(f"{self.name}: {line}")


def _map(values: Float[Tensor, "h w"], caption: str) -> RGB:
    tile = _tile(heat(values), caption)
    return tile if values.any() else captioned(tile, "0 everywhere")


def _tile(pixels: RGB, caption: str) -> RGB:
    return captioned(enlarged(pixels, side=96), caption)
