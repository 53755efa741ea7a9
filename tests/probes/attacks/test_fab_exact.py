"""FAB on logistic regression, whose robust accuracy is known exactly."""

import numpy as np
import pytest
import torch
from linear_network import predictions

from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.threat import L1, L2, Linf


def farthest_leads(threat, normals, low, high):
    """How much linear functions can grow within ball and bounds: exact, by other ways than the attack's."""
    gains, room = np.abs(normals), np.where(normals > 0, high, -low)
    if isinstance(threat, Linf):
        return (gains * np.minimum(room, threat.epsilon)).sum(-1)
    if isinstance(threat, L1):  # the steepest pixel first
        order = np.argsort(-gains, axis=-1)
        room, gains = (np.take_along_axis(part, order, -1) for part in (room, gains))
        before = np.cumsum(room, -1) - room
        return (gains * np.clip(threat.epsilon - before, 0, room)).sum(-1)
    shorter, longer = np.zeros_like(gains[..., :1]), np.full_like(gains[..., :1], 1e6)
    for _ in range(80):
        middle = (shorter + longer) / 2
        fits = np.linalg.norm(np.minimum(middle * gains, room), axis=-1, keepdims=True) <= threat.epsilon
        shorter, longer = np.where(fits, middle, shorter), np.where(fits, longer, middle)
    return (gains * np.minimum(shorter * gains, room)).sum(-1)


def exactly_standing(net, images, labels, threat):
    """Which images no attack on a linear network can make fall: no rival ever gets ahead."""
    weight, bias = net.weight.detach().double().numpy(), net.bias.detach().double().numpy()
    pixels, labels = images.flatten(1).double().numpy()[:, None], labels.numpy()
    low, high = (np.clip(limit, -1e3, 1e3) for limit in (threat.bounds or (-np.inf, np.inf)))
    normals, shifts = weight - weight[labels, None], bias - bias[labels, None]
    leads = (normals * pixels).sum(-1) + shifts
    leads += farthest_leads(threat, normals, low - pixels, high - pixels)
    leads[range(len(labels)), labels] = -np.inf
    return torch.tensor(leads.max(1) <= 0)


@pytest.mark.parametrize(
    ("threat", "robust"),
    [
        *((Linf(0.05), 0.8667), (Linf(0.1), 0.5733), (L2(0.25), 0.8556), (L2(0.5), 0.5733)),
        *(
            (Linf(0.1, bounds=None), 0.4489),
            (L2(0.5, bounds=None), 0.5067),
            (L1(1.0), 0.6844),
            (L1(2.0), 0.2089),
        ),
    ],
    ids=repr,
)
def test_on_logistic_regression_it_is_exact(threat, robust, regression):
    net, images, labels = regression
    exact = exactly_standing(net, images, labels, threat)
    assert float(exact.float().mean()) == pytest.approx(robust, abs=1e-4)
    stands = predictions(net, fab(net, images, labels, threat, steps=10)) == labels
    assert not (exact & ~stands).any()
    assert float((stands & ~exact).float().mean()) <= 0.01
