"""Fine-tuning in two processes."""

import os
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is a script too: one of two processes

import somebody
from processes import two_of
from tuned_training import GRADUAL, SCHEDULERS, STEPS, Tuned, changed, every_epoch, quiet, state

# the keeper of checkpoints is not needed to go on from one
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

CLIP = 0.3  # what is frozen must not count in the length of the gradient
NORMS_FROZEN = [(epoch, {r".*\.1\.": None, **table}) for epoch, table in GRADUAL]


def two(folder, processes=2):
    """Train by two schedules and once more from a checkpoint; each process writes what came of it."""
    strategy = {
        "strategy": "ddp",
        "devices": processes,
        "use_distributed_sampler": False,
        "gradient_clip_val": CLIP,
    }
    images, rank, reported = somebody.Blobs(48), int(os.environ.get("LOCAL_RANK", "0")), {}
    share = DistributedSampler(images, processes, rank, shuffle=False)
    loaders = DataLoader(images, 8, sampler=share), somebody.loader(8)
    for name, table in {"norms learn": GRADUAL, "norms frozen": NORMS_FROZEN}.items():
        model = Tuned(table, schedule=SCHEDULERS["onecycle"])
        model.network.layer2[3].p = 0.0  # each process draws for its own images
        trainer = quiet(folder, every_epoch(folder / name), **strategy)
        model.network.stem.requires_grad_(False)  # as an earlier training may have left it
        before = state(model.network)
        trainer.fit(model, *loaders)
        reported[name] = {
            "states": [before, *model.states],
            "rates": model.rates,
            "grads": model.grads,
            "loss": trainer.callback_metrics["val_loss"],
        }
    resumed = Tuned(GRADUAL, schedule=SCHEDULERS["onecycle"])
    resumed.network.layer2[3].p = 0.0
    trainer = quiet(folder, **strategy)
    trainer.fit(resumed, *loaders, ckpt_path=folder / "norms learn" / "epoch=1.ckpt")
    reported["resumed"] = {"states": resumed.states, "rates": resumed.rates, "grads": resumed.grads}
    torch.save(reported, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    done = two_of(__file__, folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.ranks
def test_two_processes_stay_equal_after_thawing(ranks):
    for name in ("norms learn", "norms frozen", "resumed"):
        one, other = (reported[name] for reported in ranks)
        for mine, theirs in zip(one["states"], other["states"], strict=True):
            # statistics are each process's own until the first one's are saved
            assert not {part for part in changed(mine, theirs) if "running" not in part}
        assert one["rates"] == other["rates"]
        assert one["grads"] == other["grads"]
    learning = [{"head"}, {"layer2", "head"}, {"layer2", "head"}, {"stem", "layer1", "layer2", "head"}]
    states = ranks[0]["norms learn"]["states"]
    for before, after, stages in zip(states[:-1], states[1:], learning, strict=True):
        assert {name.partition(".")[0] for name in changed(before, after)} == stages


@pytest.mark.ranks
def test_two_processes_resume_as_if_never_interrupted(ranks):
    whole, resumed = (ranks[0][name] for name in ("norms learn", "resumed"))
    assert not changed(whole["states"][-1], resumed["states"][-1])
    assert resumed["rates"] == whole["rates"][2 * STEPS :]


@pytest.mark.ranks
def test_two_processes_learn_what_one_does(ranks, tmp_path):
    model = Tuned(NORMS_FROZEN, schedule=SCHEDULERS["onecycle"])
    model.network.layer2[3].p = 0.0
    trainer = quiet(tmp_path, gradient_clip_val=CLIP)
    trainer.fit(model, DataLoader(somebody.Blobs(48), batch_size=16), somebody.loader(8))
    reported = ranks[0]["norms frozen"]
    assert model.rates == reported["rates"]
    assert model.grads == reported["grads"]
    for mine, theirs in zip(model.states, reported["states"][1:], strict=True):
        assert all(torch.allclose(mine[name], theirs[name], atol=1e-5) for name in mine)
    assert trainer.callback_metrics["val_loss"] == pytest.approx(float(reported["loss"]), abs=1e-5)


if __name__ == "__main__":
    two(Path(sys.argv[1]))
