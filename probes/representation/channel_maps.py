"""Linear maps between feature maps: filter banks fitted by ridge regression, matched channels, training."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fulgurite.probes.moments import Moments

WIDEST = 4096  # values that a filter may read: their products take 128 MiB


@dataclass(frozen=True)
class ChannelMap:
    """A bank of filters with biases, as a convolution's: each position is computed from those near it.

    `weight` is [channels out, channels in, k, k], with k odd; positions beyond the edge are 0.
    """

    weight: Float[Tensor, "q p k k"]
    bias: Float[Tensor, "q"]

    def __call__(self, maps: Float[Tensor, "n p h w"]) -> Float[Tensor, "n q h w"]:
        """The maps put through it."""
        return F.conv2d(maps, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class MapSums:
    """Sums over positions of images, from which maps between two layers are fitted, of filters k x k.

    Args:
        kernel: the side of the filters, odd.
        matched: whether channels are to be matched, too.
    """

    def __init__(self, kernel: int = 1, *, matched: bool = False):
        self.kernel, self.channels = kernel, 0
        pairs = [("in", "in"), ("in", "out"), *([("out", "out")] if matched else [])]
        self.moments, self.rows = Moments(pairs), 0

    def update(self, given: Float[Tensor, "n p h w"], wanted: Float[Tensor, "n q h w"]) -> None:
        """Add the maps of some images.

        Raises:
            ValueError: values that are not finite.
        """
        self.channels = given.shape[1]
        columns = given.flatten(2)
        if self.kernel > 1:
            columns = F.unfold(given, self.kernel, padding=self.kernel // 2)
        values = {"in": columns.movedim(1, 2).flatten(0, 1), "out": wanted.flatten(2).movedim(1, 2)}
        values["out"] = values["out"].flatten(0, 1)
        ids = torch.arange(self.rows, self.rows + len(values["in"]), device=given.device)
        self.moments.update(ids, values)
        self.rows += len(ids)

    def ridge(self, penalty: float = 1e-3) -> ChannelMap:
        """The filters with the least squared error + the penalty x the inputs' mean variance x their squares.

        In float64. Hoerl & Kennard 1970.
        """
        own, cross = self.moments.covariance("in"), self.moments.covariance("in", "out")
        strength = max(penalty * float(own.diagonal().mean()), 1e-12)
        weight = torch.linalg.solve(own + strength * torch.eye(len(own)).to(own), cross).T
        bias = self.moments.mean("out") - weight @ self.moments.mean("in")
        return ChannelMap(
            weight.unflatten(1, (self.channels, self.kernel, self.kernel)).float(), bias.float()
        )

    def matched(self) -> ChannelMap:
        """Each channel from the one that it correlates with most, scaled; no channel is used twice.

        The pairs have the largest sum of sizes of correlations (Hungarian method). A channel without a
        partner is constant at its mean.
        """
        cross = self.moments.covariance("in", "out")
        own, theirs = (self.moments.covariance(name).diagonal() for name in ("in", "out"))
        rows, columns = matched_channels(cross, own, theirs)
        weight = torch.zeros_like(cross.T)
        slopes = cross[rows, columns] / own[rows].clamp(min=1e-12)
        weight[columns, rows] = slopes
        bias = self.moments.mean("out") - weight @ self.moments.mean("in")
        return ChannelMap(weight[:, :, None, None].float(), bias.float())


def matched_channels(
    cross: Float[Tensor, "p q"], own: Float[Tensor, "p"], theirs: Float[Tensor, "q"]
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
    """Pairs of channels whose correlations have the largest sum of sizes, from covariances and variances."""
    scale = (own.clamp(min=1e-12)[:, None] * theirs.clamp(min=1e-12)).sqrt()
    rows, columns = linear_sum_assignment((cross / scale).abs().cpu().numpy(), maximize=True)
    return torch.from_numpy(rows).to(cross.device), torch.from_numpy(columns).to(cross.device)


def identity_map(channels: int) -> ChannelMap:
    """The map that changes nothing."""
    return ChannelMap(torch.eye(channels)[:, :, None, None], torch.zeros(channels))


def trained_map(
    start: ChannelMap,
    loss: Callable[[ChannelMap, Tensor, Tensor], Tensor],
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    *,
    epochs: int,
    steps: int,
    lr: float = 0.03,
) -> ChannelMap:
    """The map after training: Adam, with a learning rate that falls along a cosine.

    Args:
        start: where it begins; it is not changed.
        loss: of a map, its input, and labels.
        batches: the inputs and labels of an epoch.
        epochs: how many.
        steps: batches of an epoch.
        lr: the first learning rate, in units of the root mean square of the weights at the start.
    """
    weight, bias = (own.clone().requires_grad_() for own in (start.weight, start.bias))
    size = float(start.weight.square().mean().sqrt()) or 1.0
    steepest = torch.optim.Adam([weight, bias], lr * size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(steepest, max(1, epochs * steps))
    for epoch in range(epochs):
        for given, labels in batches(epoch):
            value = loss(ChannelMap(weight, bias), given, labels)
            weight.grad, bias.grad = torch.autograd.grad(value, [weight, bias])
            steepest.step()
            schedule.step()
    return ChannelMap(weight.detach(), bias.detach())
