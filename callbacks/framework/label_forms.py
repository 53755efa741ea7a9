"""Labels of a batch by their form: class numbers, rows of numbers, label maps, or a description of others."""

import torch
from torch import Tensor


def labels_of(labels: object) -> Tensor | str | None:
    """Class numbers [n]; rows of numbers [n, k], or floats [n]; whole-number maps [n, h, w]; others in words.

    Maps may be [n, 1, h, w], booleans, or floats, as masks for a binary cross-entropy are.
    """
    if not isinstance(labels, Tensor):
        return None
    if labels.dim() == 4 and labels.shape[1] == 1 and _whole(labels):
        labels = labels[:, 0]
    if labels.dim() == 3 and labels.numel() and _whole(labels):
        small = torch.uint8 if labels.min() >= 0 and labels.max() <= 255 else torch.int16
        return labels.detach().cpu().to(small)
    if labels.dim() not in (1, 2) or labels.is_complex() or (labels.dim() == 2 and not labels.shape[1]):
        return form_of(labels)
    return labels.detach().cpu()


def form_of(labels: Tensor) -> str:
    """Type and shape of labels, such as "float32 [n, 3]"."""
    return f"{str(labels.dtype).removeprefix('torch.')} [{', '.join(['n', *map(str, labels.shape[1:])])}]"


def _whole(labels: Tensor) -> bool:
    if labels.is_complex():
        return False
    return not labels.is_floating_point() or bool((labels == labels.round()).all())
