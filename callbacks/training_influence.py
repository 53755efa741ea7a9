"""Training images that raised and lowered predictions most at each epoch (TRAK, Park et al. 2023)."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.chunks import chunk_of, chunks_of, joined
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.predict import predict
from fulgurite.probes.render import RGB, captioned, picture, sheet
from fulgurite.probes.representation.render_influence import influence_columns, influence_tiles
from fulgurite.probes.representation.training_influence import DIMENSION, influence_of, margin_gradients

SIDE = 64


class TrainingInfluence(ProbeCallback):
    """Which training images raised the margin of the predicted class most, and which lowered it most.

    A row for each validation image: the image and its prediction, then training images with their labels and
    their shares of the influence of all, see `training_influence`; of the network as it is at each time, by
    TRAK. Costs a forward and a backward pass for each training image, and some for each one shown: for every
    k epochs.

    Args:
        k: how many training images of either kind.
        training: how many training images are compared, as training sees them, spread evenly over the set.
        images: how many validation images.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(self, *, k: int = 4, training: int = 500, images: int | None = 6, **schedule):
        super().__init__(images=images, **schedule)
        if min(k, training) < 1:
            raise ValueError(f"k={k}, training={training}; wanted at least 1 training image")
        self.k, self.training_images, self.film.side = k, training, 400

    def check(self, network: nn.Module, sample: Sample) -> None:
        """Training images have labels."""
        if self.training_sample is not None and self.training_sample.labels is None:
            raise ValueError("the training data have no labels, so no image supports a class")

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, and training images, in chunks; none where there are no training data."""
        return chunks_of(self._parts(sample))

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """The projected gradients of each chunk."""
        found = {}
        for subject in subjects:
            name, part = chunk_of(self._parts(sample), subject)
            images = part.images
            classes = predict(network, images).argmax(1) if name == "sample" else part.labels
            assert classes is not None  # `check` has refused such training images
            gradients, residuals = margin_gradients(network, images, classes, (DIMENSION, self.seed))
            found[subject] = {"gradients": gradients, "residuals": residuals, "classes": classes.cpu()}
        return found

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """The picture."""
        if not self._parts(sample):
            return {}
        training, asked = joined(observations, "training"), joined(observations, "sample")
        found = influence_of(training["gradients"], training["residuals"], asked["gradients"])
        return {"": Picture(self._picture(found, asked["classes"], sample))}

    def _picture(self, found: Tensor, classes: Tensor, sample: Sample) -> RGB:
        training = self.training_sample
        assert training is not None
        assert training.labels is not None
        count = min(self.k, found.shape[1])
        labels = [sample.name(label) for label in training.labels.tolist()]
        rows = {}
        for place, own in enumerate(found):
            image = captioned(sized(picture(sample[[place]].images[0].cpu()), SIDE), "")
            tiles = influence_tiles(own, lambda chosen: training[chosen].images, labels, k=count, side=SIDE)
            rows[f"{place}: pred {sample.name(int(classes[place]))}"] = [image, *tiles]
        return sheet(rows, columns=["image", *influence_columns(count)])

    def _parts(self, sample: Sample) -> dict[str, Sample]:
        return {} if self.training_sample is None else {"sample": sample, "training": self.training_sample}
