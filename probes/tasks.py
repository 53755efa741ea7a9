"""Tasks of a network by its logits: multi-class, binary (one logit), multi-label, regression.

Probes of classes need one logit for each class. `two_sided` gives two for the one logit of a binary network,
`OneLabel` for one label of many, and `LabelSets` one for each set of labels; `answers` makes a network output
them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fulgurite.probes.record import bare

Task = Literal["multiclass", "binary", "multilabel", "regression", "segmentation"]
TASKS: tuple[Task, ...] = ("multiclass", "binary", "multilabel", "regression")
"""Those that can be given; "segmentation" is inferred from maps of logits and of labels."""
LogitsOf = Callable[[Tensor], Tensor]


def two_sided(logit: Float[Tensor, "n *_"]) -> Float[Tensor, "n 2"]:
    """The logits -z/2 and z/2 of classes 0 and 1, for one logit z.

    Their softmax is the sigmoid of z, their cross-entropy the binary one of z, their difference z.

    Raises:
        ValueError: it is not one number for each image.
    """
    if logit.dim() not in (1, 2) or logit.shape[1:].numel() != 1:
        raise ValueError(f"logits {tuple(logit.shape)}; wanted one for each image, [n] or [n, 1]")
    half = logit.reshape(-1, 1) / 2
    return torch.cat([-half, half], 1)


def two_sided_maps(logits: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 2 h w"]:
    """The logits -z/2 and z/2 of classes 0 and 1 at each position, for a map of one logit z."""
    half = logits / 2
    return torch.cat([-half, half], 1)


@dataclass(frozen=True)
class OneLabel:
    """Gives the two logits of one label of many, as `two_sided` does: 0 without the label, 1 with it."""

    number: int

    def __call__(self, logits: Float[Tensor, "n k"]) -> Float[Tensor, "n 2"]:
        """The two logits."""
        return two_sided(logits[:, self.number])


class LabelSets:
    """The label sets of some images, and their single changes, as classes of a multi-label network.

    A set's logit is half the sum of the logits of its labels less those of all others. The logit of an
    image's set is the largest exactly if the network answers each label of the image correctly (at a
    threshold of 0), and its lead over the next set is the smallest lead of any label, as long as all are
    correct. So attacks and accuracies of classes are those of label sets.

    Args:
        targets: for each image 1 for the labels that it has, 0 for the others.
    """

    def __init__(self, targets: Float[Tensor, "n k"] | Bool[Tensor, "n k"]):
        own = targets > 0.5
        one = torch.eye(own.shape[1], dtype=torch.bool, device=own.device)
        changed = (own.unique(dim=0)[:, None] ^ one).flatten(0, 1)
        sets, numbers = torch.cat([own, changed]).unique(dim=0, return_inverse=True)
        self.sets: Bool[Tensor, "m k"] = sets
        self.numbers = numbers[: len(own)]

    def __call__(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b m"]:
        """The logits of the sets."""
        return logits @ (self.sets.to(logits) - 0.5).T

    def names(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Each set by the names of its labels."""
        return tuple(set_name(row, labels) for row in self.sets)


def set_name(row: Bool[Tensor, "k"] | Float[Tensor, "k"], labels: Sequence[str]) -> str:
    """The names of the labels that are set, such as "cat + dog"; "none" without any."""
    return " + ".join(str(labels[place]) for place in (row > 0.5).nonzero()[:, 0].tolist()) or "none"


def probabilities(logits: Float[Tensor, "n k"], task: Task) -> Float[Tensor, "n k"]:
    """Softmax or, of multi-label logits, sigmoid; others are as they are."""
    if task in ("regression", "segmentation"):
        return logits
    return logits.sigmoid() if task == "multilabel" else logits.softmax(1)


@contextmanager
def answers(network: nn.Module, logits_of: LogitsOf | None) -> Iterator[nn.Module]:
    """Within the block, the network outputs its logits changed by `logits_of`; None changes nothing.

    No module's path changes. Copies of the network that are made within the block do the same.
    """
    if logits_of is None:
        yield network
        return
    hook = answer_by(network, logits_of)
    try:
        yield network
    finally:
        hook.remove()


def answer_by(network: nn.Module, logits_of: LogitsOf) -> RemovableHandle:
    """Make the network output its logits changed by `logits_of`, until the handle is removed."""
    return bare(network).register_forward_hook(_changed(logits_of))


class Answering(nn.Module):
    """A network whose logits are changed by `logits_of`; for training losses, in the network's own mode."""

    def __init__(self, network: nn.Module, logits_of: LogitsOf):
        super().__init__()
        self.network, self.logits_of = network, logits_of
        self.training = network.training

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits."""
        return self.logits_of(self.network(images))


def _changed(logits_of: LogitsOf) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
    def change(_: nn.Module, __: tuple, out: Tensor) -> Tensor:
        return logits_of(out)

    return change
