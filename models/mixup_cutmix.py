"""Mixup and CutMix: batches of images mixed in pairs, with soft labels (torchvision's own)."""

from collections.abc import Sequence

import lightning.pytorch as pl
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.transforms import v2

from fulgurite.models.losses import Loss, Plain
from fulgurite.models.weighted_loss import Weighted
from fulgurite.probes.tasks import Task

ALPHAS = {"mixup": 0.2, "cutmix": 1.0}
"""Parameter of the Beta distribution that shares are drawn from, as in the papers on ImageNet."""
_KINDS = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


def mixed(
    images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"], kinds: Sequence[str], *, classes: int
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n k"]]:
    """Each image mixed with the one before it in the batch, and the shares of both classes for its label.

    One share for the batch: a mean of both images (mixup, Zhang et al. 2018, arxiv.org/abs/1710.09412), or
    a rectangle of the other one (cutmix, Yun et al. 2019, arxiv.org/abs/1905.04899); of several kinds one is
    drawn. Draws are from torch's generator of the CPU; images stay on their device.

    Args:
        images: of a batch.
        labels: their classes.
        kinds: "mixup", "cutmix", or both.
        classes: how many there are.
    """
    changes = [_KINDS[kind](alpha=ALPHAS[kind], num_classes=classes) for kind in kinds]
    return v2.RandomChoice(changes)(images, labels)


def mixing_of(trainer: pl.Trainer) -> Sequence[str]:
    """How batches are mixed by the data module's attribute; not at all without it."""
    return getattr(getattr(trainer, "datamodule", None), "mixing", ())


def check_mixes(kinds: Sequence[str], loss: Loss, task: Task) -> None:
    """Check that a model can learn from mixed images.

    Raises:
        ValueError: its loss needs one class for each image, or its task has no classes.
    """
    if unknown := [kind for kind in kinds if kind not in _KINDS]:
        raise ValueError(f"mixing by {unknown[0]!r}; wanted {' or '.join(_KINDS)}")
    if kinds and (task != "multiclass" or not isinstance(loss, Plain | Weighted)):
        what = f'task="{task}"' if task != "multiclass" else f"the loss {type(loss).__name__}"
        raise ValueError(
            f"images mixed by {' and '.join(kinds)} have shares of two classes, and {what} wants one class; "
            "choose another augmentation, such as standard"
        )
