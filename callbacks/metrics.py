"""Accuracy per class and the confusion matrix at each epoch."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.plots import confusion_matrix
from fulgurite.probes.predict import predict


class Metrics(ProbeCallback):
    """Loss, accuracy, accuracy of each class and the confusion matrix, on up to `images` validation images.

    Each image counts once, however many processes share the work.

    Args:
        images: how many; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(self, *, images: int | None = 2000, **schedule):
        super().__init__(images=images, **schedule)
        self.film.side = 200

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels."""
        if sample.labels is None:
            raise ValueError("the validation data have no labels, so there is nothing to measure by")

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks."""
        return sample.chunks()

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Tensor]:
        """The logits of each chunk."""
        return {name: predict(network, sample.chunk(name).images).cpu() for name in subjects}

    def compose(self, observations: Mapping[str, Tensor], sample: Sample) -> Mapping[str, Artifact]:
        """Numbers, and the matrix as a picture."""
        logits, labels = torch.cat(list(observations.values())), sample.labels
        assert labels is not None  # `check` has refused such a sample
        counts = multiclass_confusion_matrix(logits, labels, num_classes=len(sample.classes))
        right = counts.diagonal() / counts.sum(1)
        scalars = {
            "loss": F.cross_entropy(logits, labels),
            "accuracy": counts.diagonal().sum() / counts.sum(),
        }
        scalars |= {
            f"accuracy of {name}": right[k] for k, name in enumerate(sample.classes) if right[k].isfinite()
        }
        pinned: dict[str, Artifact] = {name: Scalar(value) for name, value in scalars.items()}
        return pinned | {"confusion": Picture(confusion_matrix(counts, sample.classes))}
