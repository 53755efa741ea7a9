"""Loss, accuracy and confusion matrix at each epoch; of labels of many F1 and precision, of values errors."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_confusion_matrix,
    multilabel_average_precision,
    multilabel_confusion_matrix,
)

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.map_metrics import map_counts, of_counts
from fulgurite.probes.plots import MATRIX, confusion_matrix, matrix_scale
from fulgurite.probes.predict import predict
from fulgurite.probes.render import RGB, grid, stacked
from fulgurite.probes.tasks import TASKS

MOST = 16  # labels whose confusion matrices are shown
SIDE, MANY = 400, 720  # of a picture in the film, and of one of many matrices
CELL = 44  # of these


class Metrics(ProbeCallback):
    """Loss, accuracy, accuracy of each class and the confusion matrix, on up to `images` validation images.

    Of one logit also the `AUROC`. Of a multi-label network: the binary cross-entropy, `accuracy` (the share
    of all decisions that are right, at a probability of 0.5), `exact match` (images all of whose labels are),
    `F1` and `average precision`, each a mean over the labels, F1 of each label, and a confusion matrix for
    each of the first 16. Of a regression: mean absolute error, root mean square error, and R2 of each output.
    Of maps of logits with label maps of their size: the cross-entropy, `pixel accuracy`, `mean IoU`, and the
    intersection over union of each class, over the pixels of all images, less those labelled 255 or -100.
    Each image counts once, however many processes share the work.

    Args:
        images: how many; None for all.
        **schedule: as for `ProbeCallback`.
    """

    fewer = "images"
    tasks = (*TASKS, "segmentation")

    def __init__(self, *, images: int | None = 2000, **schedule):
        super().__init__(images=images, **schedule)
        self.film.side = SIDE

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels."""
        if sample.labels is None and sample.targets is None and sample.maps is None:
            raise ValueError("the validation data have no labels, so there is nothing to measure by")
        self.film.side = MANY if sample.task == "multilabel" else SIDE

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks."""
        return sample.chunks()

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Tensor]:
        """The logits of each chunk; of maps the counts of classes, true by predicted, and the summed loss."""
        if sample.task == "segmentation":
            return {name: map_counts(network, sample.chunk(name)) for name in subjects}
        return {name: predict(network, sample.chunk(name).images).cpu() for name in subjects}

    def compose(self, observations: Mapping[str, Tensor], sample: Sample) -> Mapping[str, Artifact]:
        """Numbers, and the matrix as a picture."""
        if sample.task == "segmentation":
            return of_counts(torch.stack(list(observations.values())).sum(0), sample.classes)
        logits = torch.cat(list(observations.values()))
        if sample.task == "multilabel":
            return _of_labels(logits, sample)
        return _of_values(logits, sample) if sample.task == "regression" else _of_classes(logits, sample)

    def frames(
        self, observations: Mapping[str, Tensor], composed: Mapping[str, Artifact]
    ) -> Mapping[str, Artifact]:
        """The matrix; those of many labels smaller than on their sheet, so that epochs fit side by side."""
        if self.sample is None or self.sample.task != "multilabel":
            return composed
        counts = _label_counts(torch.cat(list(observations.values())), self.sample)
        return {"confusion": Picture(_label_matrices(counts, self.sample, least=2 * CELL))}


def _of_classes(logits: Float[Tensor, "n k"], sample: Sample) -> dict[str, Artifact]:
    labels = sample.labels
    assert labels is not None  # `check` has refused such a sample
    counts = multiclass_confusion_matrix(logits, labels, num_classes=len(sample.classes))
    right = counts.diagonal() / counts.sum(1)
    scalars = {
        "loss": F.cross_entropy(logits, labels),
        "accuracy": counts.diagonal().sum() / counts.sum(),
    }
    if sample.task == "binary" and 0 < labels.sum() < len(labels):
        scalars["AUROC"] = binary_auroc(logits[:, 1] - logits[:, 0], labels)
    scalars |= {
        f"accuracy of {name}": right[k] for k, name in enumerate(sample.classes) if right[k].isfinite()
    }
    artifacts: dict[str, Artifact] = {name: Scalar(value) for name, value in scalars.items()}
    return artifacts | {"confusion": Picture(confusion_matrix(counts, sample.classes))}


def _of_labels(logits: Float[Tensor, "n k"], sample: Sample) -> dict[str, Artifact]:
    targets = sample.targets
    assert targets is not None  # `check` has refused such a sample
    whole, counts = targets.long(), _label_counts(logits, sample)
    hit, wrong = counts[:, 1, 1], counts[:, 0, 1] + counts[:, 1, 0]
    f1, known = 2 * hit / (2 * hit + wrong), whole.any(0)
    right = (logits > 0) == (targets > 0.5)
    scalars = {
        "loss": F.binary_cross_entropy_with_logits(logits, targets),
        "accuracy": right.float().mean(),
        "exact match": right.all(1).float().mean(),
        "F1": f1[known].mean(),
    }
    if known.any():
        own = multilabel_average_precision(
            logits[:, known].sigmoid(), whole[:, known], num_labels=int(known.sum())
        )
        assert isinstance(own, Tensor)
        scalars["average precision"] = own
    scalars |= {f"F1 of {name}": f1[k] for k, name in enumerate(sample.classes) if known[k]}
    artifacts: dict[str, Artifact] = {
        name: Scalar(value) for name, value in scalars.items() if torch.as_tensor(value).isfinite()
    }
    return artifacts | {"confusion": Picture(_label_matrices(counts, sample))}


def _label_counts(logits: Float[Tensor, "n k"], sample: Sample) -> Int[Tensor, "k 2 2"]:
    assert sample.targets is not None
    return multilabel_confusion_matrix(
        logits.sigmoid(), sample.targets.long(), num_labels=len(sample.classes)
    )


def _label_matrices(counts: Int[Tensor, "k 2 2"], sample: Sample, *, least: int = MATRIX) -> RGB:
    """Those of the first labels, in a grid."""
    tiles = [
        confusion_matrix(counts[k], ("no", "yes"), title=name, least=least, scale=False)
        for k, name in enumerate(sample.classes[:MOST])
    ]
    return stacked([grid(tiles, gap=8), matrix_scale()], gap=6)


def _of_values(values: Float[Tensor, "n k"], sample: Sample) -> dict[str, Artifact]:
    targets = sample.targets
    assert targets is not None  # `check` has refused such a sample
    errors = values - targets
    spread = (targets - targets.mean(0)).square().sum(0)
    scalars = {
        "mean absolute error": errors.abs().mean(),
        "root mean square error": errors.square().mean().sqrt(),
    }
    scalars |= {
        f"R2 of {name}": 1 - errors[:, k].square().sum() / spread[k]
        for k, name in enumerate(sample.classes)
        if spread[k] > 0
    }
    return {name: Scalar(value) for name, value in scalars.items()}
