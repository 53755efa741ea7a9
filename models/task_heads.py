"""Losses and metrics of binary, multi-label and regression networks, for the `Classifier`."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, Metric
from torchmetrics.classification import MulticlassAccuracy, MultilabelAccuracy, MultilabelExactMatch

from fulgurite.models.losses import Loss, Plain
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.counted import counted
from fulgurite.probes.tasks import TASKS, Answering, LabelSets, Task, two_sided


def check_arguments(
    task: Task, classes: int, loss: Loss, threat: Threat | None, robust_images: int | None
) -> None:
    """Check that the arguments of a `Classifier` suit its task.

    Raises:
        ValueError: it does not.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r}; wanted one of {', '.join(TASKS)}")
    least = 2 if task in ("binary", "multiclass") else 1
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < least:
        one = '; one logit is task="binary", classes=2' if task == "multiclass" else ""
        raise ValueError(f"classes={classes!r}; wanted a number of at least {least}{one}")
    if task == "binary" and classes != 2:
        raise ValueError(f'classes={classes}; wanted 2 for task="binary", two sides of one logit')
    if task == "regression" and (threat is not None or not isinstance(loss, Plain)):
        raise ValueError('task="regression" has no classes to attack; leave out threat and loss')
    if task == "multilabel" and robust_images is not None:
        raise ValueError(
            f"robust_images={robust_images} is as many of each class, but images have several labels; "
            "leave it out"
        )


def metrics_of(task: Task, classes: int) -> dict[str, Metric]:
    """The metrics of a task by name; "robust accuracy" is of predictions under attack."""
    if task == "regression":
        return {"mean absolute error": MeanAbsoluteError(num_outputs=1)}
    if task == "multilabel":
        return {
            "accuracy": MultilabelAccuracy(classes, average="micro"),
            "exact match": MultilabelExactMatch(classes),
            "robust accuracy": MulticlassAccuracy(2, average="micro"),
        }
    return {
        "accuracy": MulticlassAccuracy(classes, average="micro"),
        "robust accuracy": MulticlassAccuracy(classes, average="micro"),
    }


def as_classes(network: nn.Module, labels: Tensor, task: Task) -> tuple[nn.Module, Tensor]:
    """The network with a logit for each class, and class numbers for labels; of label sets, for several."""
    if task == "binary":
        return Answering(network, two_sided), labels.reshape(-1).long()
    if task == "multilabel":
        sets = LabelSets(labels)
        return Answering(network, sets), sets.numbers
    return network, labels


def training_loss(
    loss: Loss, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Tensor, task: Task
) -> Float[Tensor, ""]:
    """The mean loss of a batch.

    Without an attack, that is the binary cross-entropy of one logit or of each label, or the mean square
    error. Attacks, and training on them, treat one logit as two classes, and label sets as classes.
    """
    if task in ("multilabel", "regression") and isinstance(loss, Plain):
        return losses(network(images), labels, task, smoothing=loss.smoothing).mean()
    network, numbers = as_classes(network, labels, task)
    return loss(network, images, numbers)


def losses(logits: Tensor, labels: Tensor, task: Task, *, smoothing: float = 0.0) -> Float[Tensor, "n"]:
    """The loss of each image."""
    if task == "binary":
        return F.cross_entropy(two_sided(logits), labels.reshape(-1).long(), reduction="none")
    if task == "multiclass":
        return F.cross_entropy(logits, labels, reduction="none")
    values, wanted = logits.reshape(len(logits), -1), labels.reshape(len(labels), -1).to(logits)
    if task == "regression":
        return F.mse_loss(values, wanted, reduction="none").mean(1)
    wanted = wanted * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(values, wanted, reduction="none").mean(1)


def check_shapes(logits: Tensor, labels: Tensor, task: Task, classes: int) -> None:
    """Check that logits and labels have the shapes of the task.

    Raises:
        ValueError: they have not.
    """
    count = logits[0].numel() if logits.dim() <= 2 else 0
    if task == "multiclass":
        if count == 1:
            raise ValueError(
                'the network gives one logit; wanted Classifier(task="binary"), or a logit for each class'
            )
        if logits.dim() < 2 or logits.shape[1] != classes:
            raise ValueError(
                f"the network gives {tuple(logits.shape)}; wanted [{len(labels)}, {classes}]: as many logits "
                "as classes="
            )
        if logits.dim() == 2 and len(labels) != len(logits):
            raise ValueError(
                f"the network gives {tuple(logits.shape)}; wanted a row for each of "
                f"{counted(len(labels), 'label')}"
            )
        return
    wanted, rows = (1 if task == "binary" else classes), task != "binary"
    if count != wanted:
        raise ValueError(
            f'the network gives {tuple(logits.shape)}; wanted [{len(labels)}, {wanted}] for task="{task}"'
        )
    if rows and labels.numel() != len(labels) * classes:
        raise ValueError(
            f'labels {tuple(labels.shape)}; wanted [{len(labels)}, {classes}] for task="{task}": a number '
            f"for each {'label, 1 or 0' if task == 'multilabel' else 'output'}"
        )
    if task == "binary" and labels.numel() != len(logits):
        raise ValueError(f"labels {tuple(labels.shape)}; wanted 0 or 1 for each of {len(logits)} images")


def stays_correct(answers: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each prediction is correct, as predictions 1 or 0 of a label 1: for label sets of a batch."""
    right = (answers == labels).long()
    return right, torch.ones_like(right)
