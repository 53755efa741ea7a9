"""Label sets as classes: multi-label images for probes that need a class number for each image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor, nn

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.predict import predict
from fulgurite.probes.tasks import LabelSets, answers, set_name


def by_label_sets(sample: Sample) -> Sample:
    """The sample with the number of its label set for each image, where it has labels of many or one of two.

    Other labels than class numbers are left out.
    """
    targets = sample.targets
    if targets is None or not bool(((targets == 0) | (targets == 1)).all()):
        return sample
    if targets.shape[1] == 1:
        return replace(sample, labels=targets[:, 0].long())
    sets, numbers = targets.unique(dim=0, return_inverse=True)
    known = sample.classes if len(sample.classes) == targets.shape[1] else ()
    names = known or tuple(map(str, range(targets.shape[1])))
    return replace(sample, labels=numbers, classes=tuple(set_name(row, names) for row in sets))


@contextmanager
def asking_for_label_sets(network: nn.Module, sample: Sample) -> Iterator[Sample]:
    """Within the block, a multi-label network gives a logit for each label set, as the sample names them.

    Other tasks are left as they are. Without labels, the sets are the predicted ones.
    """
    if sample.task != "multilabel":
        yield sample
        return
    targets: Tensor | None = sample.targets
    if targets is None:
        targets = (predict(network, sample.images) > 0).float()
    sets = LabelSets(targets.to(sample.device))
    labels = None if sample.targets is None else sets.numbers.cpu()
    own = replace(sample, labels=labels, classes=sets.names(sample.classes), task="multiclass", targets=None)
    with answers(network, sets):
        yield own
