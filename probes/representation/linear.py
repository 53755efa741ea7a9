"""Linear classifiers of features: ridge in closed form, and softmax regression by training."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import same_randomness
from fulgurite.probes.intervals import wilson
from fulgurite.probes.representation.stages import Features

RIDGES = tuple(10.0**power for power in range(-5, 3))
_AT_ONCE = 4096


@dataclass(frozen=True)
class Proportion:
    """The number of images, and of those that were classified correctly."""

    right: int
    count: int

    @property
    def accuracy(self) -> float:
        """The share."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of it: for all images of which these are a sample."""
        return wilson(self.right, self.count)


@dataclass(frozen=True)
class Head:
    """A linear classifier of raw features: their standardisation is part of its weights.

    `penalty` is the one it was fitted with.
    """

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, "k"]
    penalty: float

    def scores(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """A score for each class, in float64."""
        return torch.cat([part @ self.weight.T + self.bias for part in _parts(features)])

    def score(self, features: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> Proportion:
        """The number of images that it classifies correctly."""
        return Proportion(int((self.scores(features).argmax(1) == labels.cpu()).sum()), len(labels))

    def layer(self) -> nn.Linear:
        """The same as a layer of a network, in float32."""
        layer = nn.Linear(self.weight.shape[1], len(self.weight))
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            layer.bias.copy_(self.bias)
        return layer


Fit = Callable[[Float[Tensor, "n d"], Int[Tensor, "n"]], Head]


def ridge(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    *,
    penalty: float | None = None,
    penalties: Sequence[float] = RIDGES,
) -> Head:
    """The least squares classifier of standardised features, with 1 for an image's class and -1 for others.

    Minimises the mean squared error + `penalty` x the squared length of the weights, in closed form. Without
    a penalty, it is the one of `penalties` with the least squared error on images left out one by one, which
    takes no second fit. Hoerl & Kennard 1970; Golub, Heath & Wahba 1979.

    Raises:
        ValueError: fewer than two images, features that are not finite, or a penalty that is not positive.
    """
    check(features, labels)
    check_penalties(penalties if penalty is None else [penalty])
    standard, mean, scale = standardised(features)
    problem = _Ridge(standard, 2.0 * F.one_hot(labels.cpu().long()) - 1)
    if penalty is None:
        penalty = min(penalties, key=lambda each: float(problem.left_out(each).square().mean()))
    return folded(problem.weight(penalty), problem.target, mean, scale, penalty)


class _Ridge:
    """All ridge regressions of a problem, from one decomposition of the smaller of its two Gram matrices."""

    def __init__(self, standard: Float[Tensor, "n d"], wanted: Float[Tensor, "n k"]):
        self.standard, self.target = standard, wanted.double().mean(0)
        self.wanted = wanted.double() - self.target
        self.wide = standard.shape[1] > len(standard)
        gram = standard @ standard.T if self.wide else standard.T @ standard
        squares, self.axes = torch.linalg.eigh(gram)
        self.squares = squares.clamp(min=0)
        # images along the axes
        self.along = self.axes * self.squares.sqrt() if self.wide else standard @ self.axes

    def weight(self, penalty: float) -> Float[Tensor, "d k"]:
        shrunk = (self.squares + penalty * len(self.standard))[:, None]
        if self.wide:
            return self.standard.T @ (self.axes @ (self.axes.T @ self.wanted / shrunk))
        return self.axes @ (self.along.T @ self.wanted / shrunk)

    def left_out(self, penalty: float) -> Float[Tensor, "n k"]:
        """The error on each image of the regression on all others, of features standardised by all."""
        shrunk = self.squares + penalty * len(self.standard)
        error = self.wanted - self.along @ (self.along.T @ self.wanted / shrunk[:, None])
        leverage = 1 / len(self.standard) + (self.along.square() / shrunk).sum(1)
        return error / (1 - leverage)[:, None]


def train_head(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    *,
    head: nn.Linear | None = None,
    epochs: int = 30,
    batch_size: int = 64,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    lr: float = 2e-3,
    decay: float = 0.01,
    seed: int = 0,
) -> Head:
    """A head as trained on a frozen network, from its features, without passes through the network.

    Minimises the cross-entropy in shuffled batches; the learning rate rises over the first tenth of the steps
    and falls along a cosine. Features are not standardised.

    Args:
        features: what goes into the head.
        labels: of the images.
        head: the initial weights, and the number of classes; a fresh one by default. It is not changed.
        epochs: through all features.
        batch_size: the last batch of an epoch may be smaller.
        optimizer: "adamw", or "sgd" with Nesterov momentum 0.9.
        lr: the highest learning rate.
        decay: of the weights, not of the biases.
        seed: of the order and of a fresh head.
    """
    check(features, labels)
    if optimizer not in ("adamw", "sgd"):
        raise ValueError(f'optimizer={optimizer!r}; wanted "adamw" or "sgd"')
    if head is not None and head.in_features != features.shape[1]:
        raise ValueError(f"a head for {head.in_features} features and features of {features.shape[1]}")
    values, labels = features.detach().float(), labels.to(features.device).long()
    with torch.inference_mode(False), torch.enable_grad(), same_randomness(features.device):
        torch.manual_seed(seed)
        own = nn.Linear(values.shape[1], int(labels.max()) + 1 if head is None else head.out_features)
        if head is not None:
            own.load_state_dict(head.state_dict())
        own = own.to(values.device)
        steps = _optimizer(own, optimizer, lr, decay)
        count = epochs * math.ceil(len(values) / batch_size)
        schedule = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: _pace(step, count))
        for _ in range(epochs):
            for rows in torch.randperm(len(values)).to(values.device).split(batch_size):
                steps.zero_grad()
                F.cross_entropy(own(values[rows].clone()), labels[rows].clone()).backward()
                steps.step()
                schedule.step()
    return Head(own.weight.detach().cpu().double(), own.bias.detach().cpu().double(), decay)


def _optimizer(head: nn.Linear, name: str, lr: float, decay: float) -> torch.optim.Optimizer:
    groups = [{"params": [head.weight]}, {"params": [head.bias], "weight_decay": 0.0}]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr, weight_decay=decay)
    return torch.optim.SGD(groups, lr, 0.9, weight_decay=decay, nesterov=True)


def _pace(step: int, steps: int, *, warmup: float = 0.1) -> float:
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def by_stage(train: Features, test: Features, *, fit: Fit = ridge) -> dict[str, Proportion]:
    """How well a linear classifier of each layer's features does on images that it was not fitted to.

    Raises:
        ValueError: the two are of different layers.
    """
    if list(train.of) != list(test.of):
        raise ValueError(
            f"fitted on {', '.join(train.of)}, scored on {', '.join(test.of)}; wanted the same layers"
        )
    return {
        layer: fit(values, train.labels).score(test.of[layer], test.labels)
        for layer, values in train.of.items()
    }


def check(features: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> None:
    """Check that a classifier can be fitted to these.

    Raises:
        ValueError: fewer than two images, labels below 0, or features that are not finite.
    """
    if len(features) < 2:
        raise ValueError(f"features of {counted(len(features), 'image')}; wanted two or more")
    if int(labels.min()) < 0:
        raise ValueError(f"a label of {int(labels.min())}; classes are counted from 0")
    if wrong := sum(int((~part.isfinite()).any(1).sum()) for part in _parts(features)):
        raise ValueError(f"features that are not finite in {wrong} of {counted(len(features), 'image')}")


def check_penalties(penalties: Sequence[float]) -> None:
    """Check that these are penalties.

    Raises:
        ValueError: there is none, or one is not positive.
    """
    if not penalties or not min(penalties) > 0:
        raise ValueError(f"penalties {tuple(penalties)}; wanted positive numbers, at least one")


def standardised(
    features: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "d"], Float[Tensor, "d"]]:
    """The features in units of their standard deviation from their mean, in float64, and what these are."""
    values = features.detach().cpu().double()
    mean = values.mean(0)
    values = values - mean
    scale = values.square().mean(0).sqrt()
    # a feature that is the same for all stays at 0: what is left of it is rounding
    scale = torch.where(scale > 4 * torch.finfo(features.dtype).eps * mean.abs(), scale, 1.0)
    return values / scale, mean, scale


def folded(
    weight: Float[Tensor, "d k"],
    bias: Float[Tensor, "k"],
    mean: Float[Tensor, "d"],
    scale: Float[Tensor, "d"],
    penalty: float,
) -> Head:
    """The classifier of raw features that is equal to a classifier of standardised features."""
    weight = (weight / scale[:, None]).T.contiguous()
    return Head(weight, bias - weight @ mean, penalty)


def _parts(features: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "m d"]]:
    """In float64, in parts that fit into memory."""
    return (part.detach().cpu().double() for part in features.split(_AT_ONCE))
