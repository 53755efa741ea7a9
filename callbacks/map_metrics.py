"""Mean intersection over union, pixel accuracy and loss of maps of logits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.segmentation import ignored
from fulgurite.probes.plots import confusion_matrix

FEW = 8  # images that go through a network together


def map_counts(network: nn.Module, sample: Sample) -> Float64[Tensor, "k_1 k"]:
    """Pixels by true class (rows) and predicted class; in a last row the summed cross-entropy, first."""
    total = torch.zeros(len(sample.classes) + 1, len(sample.classes), dtype=torch.float64)
    for start in range(0, len(sample), FEW):
        part = sample[start : start + FEW]
        with torch.no_grad():
            logits = network(part.images).float().cpu()
        assert part.maps is not None  # `check` has refused such a sample
        labels = part.maps.long().masked_fill(ignored(part.maps), -1)
        known, count = labels >= 0, logits.shape[1]
        pairs = labels[known] * count + logits.argmax(1)[known]
        total[:-1] += torch.bincount(pairs, minlength=count**2).view(count, count)
        total[-1, 0] += F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum").double()
    return total


def of_counts(total: Float64[Tensor, "k_1 k"], classes: Sequence[str]) -> dict[str, Artifact]:
    """Scalars and the confusion matrix of pixels; classes without a pixel, true or predicted, are left out.

    Raises:
        ValueError: no pixel has a label.
    """
    counts, pixels = total[:-1], total[:-1].sum()
    if pixels == 0:
        raise ValueError("no pixel has a label other than 255 and -100, so there is nothing to measure by")
    hit, either = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
    overlap = hit / either
    scalars = {
        "loss": total[-1, 0] / pixels,
        "pixel accuracy": hit.sum() / pixels,
        "mean IoU": overlap[either > 0].mean(),
    }
    scalars |= {f"IoU of {name}": overlap[k] for k, name in enumerate(classes) if either[k] > 0}
    artifacts: dict[str, Artifact] = {name: Scalar(value) for name, value in scalars.items()}
    return artifacts | {"confusion": Picture(confusion_matrix(counts.long(), classes))}
