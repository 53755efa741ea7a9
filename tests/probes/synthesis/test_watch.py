"""Progress, history and the best images of an ascent, and Ctrl-C."""

import sys

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.objectives import Objective, class_score
from fulgurite.probes.synthesis import ascend as module
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier, Pixels
from fulgurite.probes.synthesis.optimizers import sgd, unit_gradient
from fulgurite.probes.synthesis.priors import l2
from fulgurite.probes.synthesis.watch import Watch

SHAPE = (1, 2, 2)
TOTAL = Objective(frozenset({""}), lambda seen: seen[""].flatten(1).sum(1))
HILL = Objective(frozenset({""}), lambda seen: -(seen[""] - 0.6).square().flatten(1).sum(1))


def level(*values: float) -> Pixels:
    return Pixels(torch.stack([torch.full(SHAPE, value) for value in values]))


@pytest.mark.parametrize("batch", [None, 1])
def test_the_history_holds_the_objective_before_each_step(batch):
    watch = Watch()
    ascend(
        nn.Identity(), TOTAL, level(0.2, 0.3), steps=3, by=sgd(0.1), priors=[l2(0)], watch=watch, batch=batch
    )
    assert_close(watch.history, torch.tensor([[0.8, 1.2], [1.2, 1.6], [1.6, 2.0]]))
    ascend(nn.Identity(), TOTAL, level(0.5), steps=1, priors=[l2(1.0)], watch=watch)
    assert_close(watch.history, torch.tensor([[2.0]]))  # without the priors


def test_priors_do_not_hide_that_the_objective_rises():
    # at a gradient of length one, the priors may outweigh the objective in the difference
    watch = Watch()
    weight = Objective(frozenset({""}), lambda seen: 1e-3 * TOTAL.value(seen))
    ascend(
        nn.Identity(),
        weight,
        level(0.2),
        steps=4,
        by=sgd(0.1, normalise=unit_gradient),
        priors=[l2(0.2)],
        watch=watch,
    )
    assert (watch.history.diff(dim=0) > 0).all()


def test_the_best_images_are_so_after_the_priors():
    # from .2 to .68, where the objective is largest, and to .392, which is nearer to the best, .5
    best = ascend(
        nn.Identity(), TOTAL, level(0.2), steps=2, by=sgd(0.8), priors=[l2(1.0)], watch=Watch(best=True)
    )
    assert_close(best, torch.full((1, *SHAPE), 0.392))


def test_the_best_images_are_kept_each_at_its_best():
    # steps of .25 from .35 and .1: .6 is met by the first at once, by the second after two, then passed
    up = Objective(frozenset({""}), lambda seen: HILL.value(seen) + 0 * TOTAL.value(seen))
    climb = lambda gradient: torch.ones_like(gradient)  # noqa: E731
    canvas = level(0.35, 0.1)
    best = ascend(nn.Identity(), up, canvas, steps=3, by=sgd(0.25, normalise=climb), watch=Watch(best=True))
    assert_close(best, torch.full((2, *SHAPE), 0.6))
    assert torch.equal(canvas(), best)
    last = ascend(nn.Identity(), up, level(0.35, 0.1), steps=3, by=sgd(0.25, normalise=climb))
    assert_close(last.flatten(1).mean(1), torch.tensor([1.0, 0.85]))


def test_the_last_images_may_be_the_best():
    images = ascend(nn.Identity(), TOTAL, level(0.2), steps=2, by=sgd(0.1), watch=Watch(best=True))
    assert_close(images, torch.full((1, *SHAPE), 0.4))


@pytest.mark.parametrize("batch", [None, 1])
def test_ctrl_c_keeps_the_best_images_so_far(batch):
    def value(seen):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return TOTAL.value(seen)

    calls, watch = [], Watch(best=True)
    interrupted = Objective(frozenset({""}), value)
    images = ascend(
        nn.Identity(), interrupted, level(0.2, 0.3), steps=9, by=sgd(0.1), watch=watch, batch=batch
    )
    assert watch.interrupted
    expected = [0.4, 0.5] if batch is None else [0.4, 0.3]  # what was not begun is as it was
    assert_close(images.flatten(1).mean(1), torch.tensor(expected))
    assert watch.history.isfinite().sum(0).tolist() == ([3, 3] if batch is None else [3, 0])
    calls.clear()
    watch = Watch(interruptible=True)
    images = ascend(
        nn.Identity(), interrupted, level(0.2, 0.3), steps=9, by=sgd(0.1), watch=watch, batch=batch
    )
    assert watch.interrupted
    # a step further than what was looked at
    last = [0.5, 0.6] if batch is None else [0.5, 0.3]
    assert_close(images.flatten(1).mean(1), torch.tensor(last))
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        ascend(nn.Identity(), interrupted, level(0.2), steps=9, watch=Watch())


def test_a_bar_shows_the_objective(capsys, monkeypatch):
    from fulgurite.probes import progress
    from fulgurite.probes.synthesis import watch

    monkeypatch.setattr(watch, "EVERY", -1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = progress.tqdm
    monkeypatch.setattr(
        progress, "tqdm", lambda *args, **options: shown(*args, **options | {"delay": 0, "mininterval": 0})
    )
    ascend(nn.Identity(), TOTAL, level(0.2), steps=3, by=sgd(0.1), watch=Watch("dream"))
    printed = capsys.readouterr().err
    assert "dream" in printed
    assert "objective 1.2" in printed
    ascend(nn.Identity(), -1 * TOTAL, level(0.2), steps=1, by=sgd(0.1), watch=Watch("style", loss=True))
    assert "loss 0.8" in capsys.readouterr().err


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_images_some_at_a_time_are_those_of_all_at_once(batch):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    classes = torch.tensor([3, 0, 2])
    painted = [
        ascend(network, class_score(classes), Fourier((3, 8, 8), [4, 5, 6]), steps=6, batch=size)
        for size in (batch, None)
    ]
    assert_close(*painted)


def test_when_memory_runs_out_fewer_images_are_made_at_a_time(monkeypatch):
    sizes = []

    def value(seen):
        sizes.append(len(seen[""]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError
        return TOTAL.value(seen)

    monkeypatch.setattr(module, "batch_size", lambda *_: 4)
    with pytest.warns(RuntimeWarning, match="out of memory with 3 images at once"):
        images = ascend(
            nn.Identity(), Objective(frozenset({""}), value), level(0.1, 0.2, 0.3), steps=2, by=sgd(0.1)
        )
    assert sizes == [3, 1, 1, 1, 1, 1, 1]
    assert_close(images.flatten(1).mean(1), torch.tensor([0.3, 0.4, 0.5]))


def test_no_negative_steps():
    with pytest.raises(ValueError, match="steps=-1"):
        ascend(nn.Identity(), TOTAL, level(0.1), steps=-1)
