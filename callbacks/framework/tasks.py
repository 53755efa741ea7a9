"""The task of a network, from its output and labels: classes, one logit, several labels, or regression."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.counted import counted
from fulgurite.probes.record import nearest
from fulgurite.probes.tasks import TASKS, LogitsOf, OneLabel, Task, two_sided

CLASSES: tuple[Task, ...] = ("multiclass", "binary")
LABELS: tuple[Task, ...] = (*CLASSES, "multilabel")
ELSE = "or leave this probe out: Filters, Drift and Embeddings do without"


@dataclass(frozen=True)
class Wanted:
    """The tasks that a probe supports, and what its user states about the network.

    Args:
        served: the tasks that the probe supports.
        task: as given by the user, or by the model's attribute `task`; else it is inferred.
        label: the one label of many that the probe is to look at.
        owner: the probe's name.
        names: of classes, labels or outputs, as given by the user.
    """

    served: Sequence[Task] = CLASSES
    task: Task | None = None
    label: str | int | None = None
    owner: str = "this probe"
    names: Sequence[str] | None = None


def adapted(sample: Sample, count: int, network: str, wanted: Wanted) -> tuple[Sample, LogitsOf | None]:
    """The sample with its task, labels and names; and a function from the network's output to logits.

    Args:
        sample: what the probe looks at.
        count: the number of values that the network outputs for an image.
        network: its name.
        wanted: the requirements of the probe, and what the user states about the network.

    Raises:
        ValueError: the probe does not serve the task, which is unknown, or does not fit the labels.
    """
    if wanted.task != "regression":
        sample = _unsmoothed(sample)
    task = wanted.task or _inferred(sample, count, network)
    if (task == "binary") != (count == 1) and task != "regression":
        raise ValueError(
            f'task="{task}", but {network} gives {counted(count, "number")} for an image; wanted '
            f"{'one logit' if task == 'binary' else 'at least two logits'}; leave task= out to infer it"
        )
    if task == "multilabel":
        return _of_labels(sample, count, network, wanted)
    if wanted.label is not None:
        raise ValueError(f'label={wanted.label!r} is one of many, but the task is "{task}"; leave label= out')
    if task == "regression":
        _see_that_served(task, network, wanted)
        numbers = [f"output {number}" for number in range(count)] if count > 1 else ["output"]
        own = wanted.names or (sample.classes if len(sample.classes) == count else numbers)
        targets = sample.targets
        if targets is None and sample.labels is not None:
            targets = sample.labels[:, None].float()
        if targets is not None and targets.shape[1] != count:
            raise ValueError(
                f"the data give {counted(targets.shape[1], 'number')} to regress, but {network} gives "
                f"{count}; wanted as many"
            )
        sample = replace(sample, task=task, targets=targets, labels=None, unfit="", classes=tuple(own))
        return sample, lambda out: out.reshape(len(out), -1)
    if task == "binary":
        if sample.targets is not None and sample.targets.shape[1] == 1 and _zeros_and_ones(sample.targets):
            sample = replace(sample, labels=sample.targets[:, 0].long(), targets=None, unfit="")
        if len(sample.classes) == 1:
            sample = replace(sample, classes=(f"no {sample.classes[0]}", sample.classes[0]))
        return replace(sample, task=task), two_sided
    if wanted.task == "multiclass" and sample.targets is not None and _one_hot(sample.targets, count):
        sample = replace(sample, labels=sample.targets.argmax(1), targets=None, unfit="")
    return sample, None


def _of_labels(sample: Sample, count: int, network: str, wanted: Wanted) -> tuple[Sample, LogitsOf | None]:
    targets = sample.targets
    if sample.labels is not None or (
        targets is not None and not (targets.shape[1] == count and _zeros_and_ones(targets))
    ):
        came = sample.unfit or "one class number for each image"
        raise ValueError(
            f'task="multilabel", but the data give labels that are {came}; wanted [images, {count}], 1 for '
            "the labels that an image has and 0 for the others"
        )
    names = tuple(wanted.names or sample.classes or map(str, range(count)))
    if len(names) != count:
        raise ValueError(f"{counted(len(names), 'name')} for the {counted(count, 'label')} of {network}")
    sample = replace(sample, task="multilabel", classes=names, unfit="")
    if wanted.label is None:
        _see_that_served("multilabel", network, wanted)
        return sample, None
    number = _number_of(wanted.label, names)
    labels = None if targets is None else targets[:, number].long()
    pair = (f"no {names[number]}", names[number])
    return replace(sample, task="binary", labels=labels, targets=None, classes=pair), OneLabel(number)


def _number_of(label: str | int, names: Sequence[str]) -> int:
    if not isinstance(label, str):
        if not 0 <= label < len(names):
            raise ValueError(f"no label {label}: there are {len(names)}, counted from 0")
        return int(label)
    if label not in names:
        raise ValueError(f"no label {label!r}; {nearest(label, names)}")
    return [*names].index(label)


def _inferred(sample: Sample, count: int, network: str) -> Task:
    targets, labels = sample.targets, sample.labels
    if count == 1:
        if labels is not None and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= 1:
            raise ValueError(
                f"{network} gives one number for an image, and labels go from {int(labels.min())} to "
                f'{int(labels.max())}; wanted 0 and 1 for one logit; for a regression say task="regression", '
                f"{ELSE}"
            )
        if labels is None and targets is None:
            raise ValueError(
                f"{network} gives one number for an image, and the data have no labels that say what it is; "
                f'wanted task="binary" or task="regression" to be said, {ELSE}'
            )
        return "binary" if labels is not None or _zeros_and_ones(targets) else "regression"
    if targets is None or targets.shape[1] != count:
        return "multiclass"
    if _zeros_and_ones(targets):
        if _one_hot(targets, count):
            raise ValueError(
                f"the data give labels that are {sample.unfit}, with a single 1 for each image: one class, "
                'or labels of many? wanted task="multiclass" or task="multilabel", or class numbers; say it, '
                f"{ELSE}"
            )
        return "multilabel"
    return "multiclass" if _shares(targets) else "regression"


def read_alike(training: Sample, sample: Sample, logits_of: LogitsOf | None) -> Sample:
    """Training images, their labels read as those of the sample are."""
    training = _unsmoothed(training) if sample.task in ("multilabel", "binary") else training
    targets = training.targets
    if targets is not None and isinstance(logits_of, OneLabel) and targets.shape[1] > logits_of.number:
        targets, training = None, replace(training, labels=targets[:, logits_of.number].long(), unfit="")
    elif (
        targets is not None and sample.task == "binary" and targets.shape[1] == 1 and _zeros_and_ones(targets)
    ):
        targets, training = None, replace(training, labels=targets[:, 0].long(), unfit="")
    return replace(training, targets=targets, task=sample.task)


def stated_task(model: object) -> Task | None:
    """A model's attribute `task`; None where it is not the name of a task."""
    stated = getattr(model, "task", None)
    return stated if isinstance(stated, str) and stated in TASKS else None


def check_task(task: object) -> None:
    """Check that it is one, or None.

    Raises:
        ValueError: it is not.
    """
    if task is not None and task not in TASKS:
        raise ValueError(f"task={task!r}; wanted one of {', '.join(TASKS)}")


def _see_that_served(task: Task, network: str, wanted: Wanted) -> None:
    if task in wanted.served:
        return
    if task == "multilabel":
        raise ValueError(
            f"{network} gives each label a probability of its own (multi-label), but {wanted.owner} asks for "
            f'classes that exclude each other; wanted one label: label="NAME" asks about it alone, {ELSE}'
        )
    raise ValueError(
        f"{network} gives values (regression), but {wanted.owner} asks for logits of classes; wanted a "
        f"classifier; look at its outputs by Saliency, Attribution and Metrics, {ELSE}"
    )


def _zeros_and_ones(targets: Tensor | None) -> bool:
    return targets is not None and bool(((targets == 0) | (targets == 1)).all())


def _unsmoothed(sample: Sample) -> Sample:
    """Smoothed labels as 0 and 1: targets of two values, below and above a half, that are no shares of 1."""
    targets = sample.targets
    if targets is None or _zeros_and_ones(targets):
        return sample
    low, high = targets.min(), targets.max()
    two = bool(((targets == low) | (targets == high)).all()) and 0 <= low < 0.5 < high <= 1
    shares = targets.shape[1] > 1 and _shares(targets)
    return replace(sample, targets=(targets > 0.5).float()) if two and not shares else sample


def _shares(targets: Tensor) -> bool:
    """Whether each row adds up to 1, as soft labels of classes do."""
    return bool((targets >= 0).all()) and torch.allclose(targets.sum(1), torch.ones(len(targets)), atol=1e-4)


def _one_hot(targets: Tensor, count: int) -> bool:
    return targets.shape[1] == count and _zeros_and_ones(targets) and bool((targets.sum(1) == 1).all())
