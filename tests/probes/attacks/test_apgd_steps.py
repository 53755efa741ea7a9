"""Auto-PGD's steps: those of the paper, and when their sizes are halved."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attacks.adaptive_steps import Halving
from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.threat import L1, L2, Linf


class Smooth(nn.Module):
    """Without kinks and flat places, where rounding would decide which way is up."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first = nn.Parameter(torch.randn(12, 16, generator=generator) * 0.7)
        self.second = nn.Parameter(torch.randn(5, 12, generator=generator))

    def forward(self, images):
        hidden = ((images.flatten(1)[:, None] * self.first).sum(2) * 3).tanh()
        return (hidden[:, None] * self.second).sum(2)


def paper(net, image, label, threat, steps):
    """APGD-CE for one image, slowly and in float64: the highest loss, where it was met, turns back."""

    def loss(point):
        point = point.clone().requires_grad_()
        value = F.cross_entropy(net(point), label)
        return value.item(), torch.autograd.grad(value, point)[0]

    def climb(ball, begun, steps):
        sparse, radius = isinstance(threat, L1), ball.epsilon
        points, (value, slope) = [ball.project(begun, image)], loss(ball.project(begun, image))
        values, best, record = [value], (value, points[0], slope), [(value, None)]
        size, due = radius * (1 if sparse else 2), max(int((0.04 if sparse else 0.22) * steps), 1)
        since, period, halved, at, nonzero = 0, due, True, points[0], int((points[0] != image).sum())
        for step in range(steps):
            if sparse:
                count = max(math.ceil(nonzero / 1.5), 1)
                least = slope.abs().flatten().sort(descending=True).values[count - 1]
                way = slope.sign() * (slope.abs() >= least)
                moved = ball.project(at + size * way / way.abs().sum(), image)
            else:
                way = slope.sign() if isinstance(threat, Linf) else slope / slope.norm()
                moved = ball.project(at + size * way, image)
                weight = 0.75 if step else 1.0
                moved = ball.project(at + weight * (moved - at) + (1 - weight) * (at - points[-1]), image)
            points.append(at)
            at, (value, slope) = moved, loss(moved)
            values.append(value)
            best = max(best, (value, at, slope), key=lambda seen: seen[0])
            since += 1
            if since < period:
                continue
            if sparse:
                now = int((best[1] != image).sum())
                back = now < 0.95 * nonzero
                size, nonzero = radius if back else max(size / 1.5, radius / 10), now
            else:
                rises = sum(values[-i] > values[-i - 1] for i in range(1, period + 1))
                back = rises <= 0.75 * period or (not halved and record[-1][0] == best[0])
                size, halved = (size / 2, True) if back else (size, False)
                period = max(period - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
            record.append((best[0], back))
            at, slope = best[1:] if back else (at, slope)
            since = 0
        return best[0], best[1], sum(bool(back) for _, back in record)

    noise = PerImageRandom(image.float()).uniform(*image.shape[1:]) * 2 - 1
    if not isinstance(threat, Linf):
        noise = PerImageRandom(image.float()).normal(*image.shape[1:])
    if isinstance(threat, L1):
        early = int(0.3 * steps)
        begun = threat.at(3 * threat.epsilon).project(image + noise, image)
        _, begun, _ = climb(threat.at(3 * threat.epsilon), begun, early)
        _, begun, _ = climb(threat.at(2 * threat.epsilon), begun, early)
        return climb(threat, begun, steps - 2 * early)
    return climb(threat, image + threat.epsilon * noise.double() / threat.length(noise), steps)


@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.7), L1(1.5)], ids=repr)
def test_the_steps_are_those_of_the_paper(threat):
    net, images = Smooth(), torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    labels = net(images).argmax(1)
    moved = apgd(net, images, labels, threat, steps=100, drop=False)
    precise = copy.deepcopy(net).double()
    walks = [paper(precise, images[i : i + 1].double(), labels[i : i + 1], threat, 100) for i in range(3)]
    assert any(turns for _, _, turns in walks)
    wanted = torch.tensor([value for value, _, _ in walks])
    assert_close(F.cross_entropy(net(moved), labels, reduction="none"), wanted, rtol=1e-3, atol=1e-4)
    assert_close(moved, torch.cat([point for _, point, _ in walks]).float(), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("rises", "halved_before", "grew", "halved"),
    [(6, False, True, True), (7, False, True, False), (7, False, False, True), (7, True, False, False)],
)
def test_steps_are_halved_where_the_loss_rose_too_seldom_or_not_at_all(rises, halved_before, grew, halved):
    climb = SimpleNamespace(
        rises=torch.tensor([rises]),
        halved=torch.tensor([halved_before]),
        highest=torch.tensor([2.0]),
        known=torch.tensor([1.0 if grew else 2.0]),
        sizes=torch.tensor([0.4]),
        period=8,
        shorter=3,
        shortest=6,
    )
    assert Halving.adapt(climb).item() is halved
    assert climb.sizes.item() == pytest.approx(0.2 if halved else 0.4)
    assert climb.period == 6
