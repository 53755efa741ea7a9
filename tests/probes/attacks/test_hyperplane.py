"""Projection onto a hyperplane within a box: no shift is shorter, and none leaves the box."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog

from fulgurite.probes.attacks.hyperplane import shift_to_plane
from fulgurite.probes.attacks.threat import L1, L2, Linf, Threat

CHANNELS = (0.0, -0.5), (0.8, 1.0)
BOUNDS = [(0.0, 1.0), CHANNELS, (0.0, float("inf")), None]
THREATS = [kind(1, bounds) for kind in (Linf, L2, L1) for bounds in BOUNDS]


def problems(threat, count=40, seed=0):
    """Points within bounds, normals of which some entries are 0, and gaps of which some are out of reach."""
    random = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 2, 2, 2, generator=random, dtype=torch.float64)
    points[::3] = points[::3].round()
    normals = torch.randn(count, 2, 2, 2, generator=random, dtype=torch.float64)
    normals[::4] *= torch.rand(normals[::4].shape, generator=random) > 0.5
    normals *= 10 ** torch.randn(count, 1, 1, 1, generator=random, dtype=torch.float64)
    gaps = normals.flatten(1).norm(dim=1) * torch.randn(count, generator=random, dtype=torch.float64)
    return threat.bounded(points), normals, gaps


def limits(threat, points):
    return [limit.expand_as(points).flatten(1).numpy() for limit in threat.limits(points)]


def by_linear_program(threat, normal, gap, low, high):
    """The length of the shortest shift in Linf or L1, or None where the plane is out of reach."""
    d = len(normal)
    if isinstance(threat, Linf):  # minimise t, with -t <= shift <= t
        cost = np.r_[np.zeros(d), 1]
        above = np.block([[np.eye(d), -np.ones((d, 1))], [-np.eye(d), -np.ones((d, 1))]])
        extent = [*zip(low, high, strict=True), (0, None)]
    else:  # minimise the sum of t, with -t <= shift <= t for each pixel
        cost = np.r_[np.zeros(d), np.ones(d)]
        above = np.block([[np.eye(d), -np.eye(d)], [-np.eye(d), -np.eye(d)]])
        extent = [*zip(low, high, strict=True), *[(0, None)] * d]
    onto = np.r_[normal, np.zeros(len(cost) - d)][None]
    found = linprog(cost, above, np.zeros(2 * d), onto, [gap], extent)
    return found.fun if found.status == 0 else None


def by_multiplier(normal, gap, low, high):
    """The length of the shortest shift in L2: a multiple of the normal, cut off at the bounds."""

    def growth(multiple):
        return normal @ np.clip(multiple * normal, low, high) - gap

    far = 1e6 * np.sign(gap) / np.abs(normal).max()
    if growth(far) * np.sign(gap) < 0:
        return None
    return np.linalg.norm(np.clip(brentq(growth, 0, far, xtol=1e-14, rtol=1e-14) * normal, low, high))


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_no_shift_onto_the_plane_is_shorter(threat):
    points, normals, gaps = problems(threat)
    shifts = shift_to_plane(points, normals, gaps, threat)
    low, high = limits(threat, points)
    reached = 0
    for row, (point, normal, gap) in enumerate(zip(points, normals, gaps, strict=True)):
        x, w = point.flatten().numpy(), normal.flatten().numpy()
        args = w, gap.item(), low[row] - x, high[row] - x
        wanted = by_multiplier(*args) if isinstance(threat, L2) else by_linear_program(threat, *args)
        if wanted is None:
            continue
        reached += 1
        torch.testing.assert_close((shifts[row] * normal).sum(), gap, rtol=1e-7, atol=1e-9)
        length = threat.length(shifts[row : row + 1]).item()
        assert length == pytest.approx(wanted, rel=1e-6, abs=1e-8)
    assert reached > (35 if threat.bounds is None else 12)


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_the_shift_stays_within_bounds(threat):
    points, normals, gaps = problems(threat)
    moved = points + shift_to_plane(points, normals, gaps, threat)
    torch.testing.assert_close(moved, threat.bounded(moved), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_a_plane_out_of_reach_is_approached_as_far_as_bounds_let(kind):
    threat = kind(1)
    points, normals, gaps = problems(threat)
    shifts = shift_to_plane(points, normals, 1e3 * normals.flatten(1).norm(dim=1) * gaps.sign(), threat)
    ahead = normals * gaps.sign()[:, None, None, None]
    corner = torch.where(ahead > 0, 1 - points, torch.where(ahead < 0, -points, 0))
    torch.testing.assert_close(shifts, corner)


def test_without_bounds_it_is_the_closed_form():
    normals = torch.tensor([3.0, -4.0, 0.0]).reshape(1, 1, 1, 3)
    points, gap = torch.full((1, 1, 1, 3), 7.0), torch.tensor([-5.0])
    shifts = [shift_to_plane(points, normals, gap, kind(1, bounds=None)).flatten() for kind in (Linf, L2, L1)]
    wanted = torch.tensor([[-5 / 7, 5 / 7, 0], [-0.6, 0.8, 0], [0, 1.25, 0]])
    torch.testing.assert_close(torch.stack(shifts), wanted)


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_a_normal_of_zero_and_a_gap_of_zero_move_nothing(threat):
    points, normals, gaps = problems(threat)
    assert not shift_to_plane(points, torch.zeros_like(points), gaps, threat).any()
    assert not shift_to_plane(points, normals, torch.zeros_like(gaps), threat).any()


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_a_row_alone_moves_as_it_does_among_others(threat):
    points, normals, gaps = (part.float() for part in problems(threat))
    shifts = shift_to_plane(points, normals, gaps, threat)
    alone = [
        shift_to_plane(points[i : i + 1], normals[i : i + 1], gaps[i : i + 1], threat)
        for i in range(len(points))
    ]
    assert torch.equal(torch.cat(alone), shifts)


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_vanishing_and_huge_normals_do_no_harm(kind):
    points = torch.full((2, 1, 2, 2), 0.5)
    normals = torch.ones_like(points) * torch.tensor([1e-37, 1e37])[:, None, None, None]
    shifts = shift_to_plane(points, normals, torch.tensor([1.0, 1.0]), kind(1))
    assert torch.equal(shifts[0], torch.full_like(shifts[0], 0.5))
    assert shifts[1].isfinite().all()


def test_another_norm_is_refused():
    class L0(Threat):
        sample = step = project = length = None

    points = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="wanted Linf, L2 or L1"):
        shift_to_plane(points, points, torch.zeros(1), L0(1))
