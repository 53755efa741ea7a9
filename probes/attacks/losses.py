"""Losses for attacks: cross-entropy, margin, and difference of logits ratio (DLR)."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

AttackLoss = Callable[[Float[Tensor, "n k"], Int[Tensor, "n"], Int[Tensor, "n"] | None], Float[Tensor, "n"]]


def cross_entropy(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"], targets: Int[Tensor, "n"] | None = None
) -> Float[Tensor, "n"]:
    """The cross-entropy of the label; minus that of the target, if there is one."""
    if targets is not None:
        return -F.cross_entropy(logits, targets, reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def margin(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"], targets: Int[Tensor, "n"] | None = None
) -> Float[Tensor, "n"]:
    """By how much the best other class beats the label: above 0 where the image fools the network.

    With targets, by how much the target beats the best other class. Carlini & Wagner 2017,
    arxiv.org/abs/1608.04644.
    """
    if targets is not None:
        return -margin(logits, targets)
    return strongest_other(logits, labels) - logits.gather(1, labels[:, None])[:, 0]


def lead(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"], targets: Int[Tensor, "n"] | None = None
) -> Float[Tensor, "n"]:
    """By how much the target beats the label, whatever other classes do; without targets, the margin."""
    if targets is None:
        return margin(logits, labels)
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


def dlr(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"], targets: Int[Tensor, "n"] | None = None
) -> Float[Tensor, "n"]:
    """The margin relative to the spread of the largest logits, so that their scale does not matter.

    With targets, by how much the target beats the label, relative to that. Croce & Hein 2020,
    arxiv.org/abs/2003.01690.

    Raises:
        ValueError: fewer than three classes, or four with targets.
    """
    needed = 3 if targets is None else 4
    if logits.shape[1] < needed:
        targeted = "the targeted DLR loss" if targets is not None else "the DLR loss"
        raise ValueError(
            f'{targeted} needs at least {needed} classes, the network has {logits.shape[1]}; "margin" does'
        )
    top = logits.topk(needed, 1).values
    if targets is None:
        return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)
    return lead(logits, labels, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


LOSSES: dict[str, AttackLoss] = {"cross_entropy": cross_entropy, "margin": margin, "lead": lead, "dlr": dlr}


def strongest_other(logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The largest logit of all classes but the label."""
    return logits.scatter(1, labels[:, None], float("-inf")).amax(1)


def misclassified(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"], targets: Int[Tensor, "n"] | None = None
) -> Bool[Tensor, "n"]:
    """Whether the prediction is not the label, as NaN is not; with targets, whether it is the target."""
    if targets is not None:
        return (logits.argmax(1) == targets) & ~logits.isnan().any(1)
    return (logits.argmax(1) != labels) | logits.isnan().any(1)
