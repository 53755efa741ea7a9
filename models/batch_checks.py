"""Checks of the first batches of a training: labels and logits that go with the task and the classes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fulgurite.models.task_heads import check_shapes
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.tasks import Task


class BatchChecks:
    """Checks the first batch of each stage, and no other: reading labels waits for the device.

    Args:
        task: of the `Classifier`.
        classes: how many it has; labels or outputs, for such tasks.
    """

    def __init__(self, task: Task, classes: int):
        self.task: Task = task
        self.classes, self.checked = classes, set[str]()

    def evaluation(self, stage: str, logits: Tensor, labels: Tensor) -> None:
        """Check logits and labels of validation or test images.

        Raises:
            ValueError: they do not go with the task or the classes.
        """
        if stage in self.checked:
            return
        check_shapes(logits, labels, self.task, self.classes)
        check_values(labels, self.task, self.classes)
        if self.task == "multiclass" and labels.dim() == 2 and logits.dim() == 2:
            raise ValueError(
                f"labels {tuple(labels.shape)} of validation or test images; wanted class numbers "
                f"[{len(labels)}], such as labels.argmax(1)"
            )
        self.checked.add(stage)

    @contextmanager
    def training(self, network: nn.Module, images: Tensor, labels: Tensor) -> Iterator[None]:
        """Check the labels of training images; and where the loss of them fails, say what does not fit.

        Raises:
            ValueError: they do not go with the task or the classes.
        """
        if "train" in self.checked:
            yield
            return
        check_values(labels, self.task, self.classes)
        try:
            yield
        except (RuntimeError, ValueError, IndexError) as error:
            if not isinstance(error, torch.OutOfMemoryError):
                self._explain(network, images, labels, error)
            raise
        self.checked.add("train")

    def _explain(self, network: nn.Module, images: Tensor, labels: Tensor, error: Exception) -> None:
        try:
            with frozen_eval(network) as own, torch.no_grad():
                logits = own(images)
        except Exception:
            return  # the network itself fails, as the first error says
        if isinstance(logits, Tensor):
            try:
                check_shapes(logits, labels, self.task, self.classes)
            except ValueError as reason:
                raise reason from error


def check_values(labels: Tensor, task: Task, classes: int) -> None:
    """Check that labels are class numbers below `classes`, or rows of 0 and 1, as the task has them.

    Raises:
        ValueError: they are not.
    """
    if task == "regression" or not labels.numel():
        return
    came = f"labels {str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
    low, high = torch.stack(torch.aminmax(labels.detach().float())).tolist()
    if task == "multilabel":
        if low < 0 or high > 1:
            raise ValueError(
                f"labels from {low:g} to {high:g}; wanted 1 for the labels that an image has and 0 for the "
                'others, for task="multilabel"'
            )
        return
    if task == "multiclass" and labels.dim() == 2:
        if not labels.is_floating_point() or low < 0 or bool(((labels.sum(1) - 1).abs() > 0.01).any()):
            raise ValueError(
                f"{came}; wanted class numbers [{len(labels)}]; where an image has several labels, "
                'Classifier(task="multilabel") with one classes= for each column'
            )
        return
    if task == "multiclass" and labels.is_floating_point():
        raise ValueError(
            f"{came}; wanted whole class numbers; of values to predict, "
            'Classifier(task="regression"); else labels.long()'
        )
    last = 1 if task == "binary" else classes - 1
    # -100 is left out by the cross-entropy
    numbers = labels[labels != -100] if low == -100 and task == "multiclass" else labels
    if numbers.numel() and (int(numbers.min()) < 0 or high > last):
        raise ValueError(
            f'labels from {int(numbers.min())} to {high:g}; wanted 0 or 1 for task="binary"'
            if task == "binary"
            else f"labels from {int(numbers.min())} to {high:g}; wanted class numbers from 0 to {last} for "
            f"{counted(classes, 'class')}: number them so, or raise classes="
        )
