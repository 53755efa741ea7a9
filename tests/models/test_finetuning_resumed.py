"""Fine-tuning that is interrupted and resumed, and what Lightning's BackboneFinetuning gets wrong."""

import pytest
import somebody
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch import nn
from tuned_training import (
    EPOCHS,
    GRADUAL,
    LR,
    SCHEDULERS,
    STEPS,
    Small,
    Tuned,
    changed,
    every_epoch,
    fitted,
    state,
)

# the keeper of checkpoints is not needed to go on from one
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


# what Lightning's BackboneFinetuning gets wrong


def test_resuming_does_not_freeze_again(tmp_path):
    fitted(tmp_path, Tuned(GRADUAL), every_epoch(tmp_path))
    resumed = Tuned(GRADUAL)
    fitted(tmp_path, resumed, checkpoint=tmp_path / "epoch=1.ckpt")
    assert resumed.grads[0] == {
        name for name, _ in Small().named_parameters() if name[:4] in ("laye", "head")
    } - {
        "layer1.0.weight",
        "layer1.0.bias",
    }
    assert resumed.grads[-1] == {name for name, _ in Small().named_parameters()}
    assert changed(resumed.states[0], resumed.states[-1]) == {*resumed.states[0]}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_and_warm_up_go_by_group(name, tmp_path):
    model = Tuned(GRADUAL, schedule=SCHEDULERS[name])
    fitted(tmp_path, model)
    # one parameter alone, at a rate of 1: the schedule itself
    alone = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = SCHEDULERS[name](alone)
    for step, rates in enumerate(model.rates):
        factors = [0.1, 0.1, 0.2, 0.2, 0.4, 0.4] + [1.0 if step < 3 * STEPS else 0.5] * 2
        assert rates == pytest.approx([LR * factor * alone.param_groups[0]["lr"] for factor in factors])
        alone.step()
        scheduler.step()
    assert len(model.rates) == EPOCHS * STEPS


def test_learning_rates_are_on_the_board_by_name(tmp_path):
    model = Tuned(GRADUAL)
    monitor = LearningRateMonitor("step")
    somebody.quiet(tmp_path, monitor, max_epochs=1).fit(model, somebody.loader(), somebody.loader(8))
    assert {key.partition("/")[2] for key in monitor.lrs} == {*model.finetuning._groups}


class Twins(nn.Module):
    """Two layers and two norms with equal values."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(2))
        self.second.load_state_dict(self.first.state_dict())
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        x = F.adaptive_avg_pool2d(images, 2)[:, 0].flatten(1)
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


def test_parameters_equal_in_value_all_learn(tmp_path):
    model = Tuned([(0, {"first": None, "": 1.0}), (1, {"": 1.0})], network=Twins())
    before = state(model.network)
    fitted(tmp_path, model)
    assert {name.partition(".")[0] for name in changed(before, model.states[0])} == {"second", "head"}
    assert changed(model.states[0], model.states[-1]) == {*before}


def test_frozen_norms_act_the_same_in_training_and_norms_can_be_unfrozen(tmp_path):
    images = somebody.Blobs(24).images
    model = Tuned({"head": 1.0, "": None})
    fitted(tmp_path, model)
    features = nn.Sequential(model.network.stem, model.network.layer1, model.network.layer2)
    model.eval()
    expected = features(images)
    model.train()
    assert torch.equal(features(images), expected)

    model = Tuned({r"head|.*\.1\.": 1.0, "": None})
    before = state(model.network)
    fitted(tmp_path, model)
    norms = {name for name in before if ".1." in name}
    assert changed(before, model.states[-1]) == norms | {"head.weight", "head.bias"}


# resumed


@pytest.mark.parametrize(
    ("optimizer", "schedule"), [("sgd", "lambda"), *(("adamw", name) for name in SCHEDULERS)]
)
def test_a_run_interrupted_at_any_epoch_ends_bit_identical(optimizer, schedule, tmp_path):
    def made():
        return Tuned(GRADUAL, optimizer=optimizer, schedule=SCHEDULERS[schedule])

    whole = made()
    ended = fitted(tmp_path, whole, every_epoch(tmp_path)).optimizers[0].state_dict()
    for epoch in range(EPOCHS - 1):
        resumed = made()
        trainer = fitted(tmp_path, resumed, checkpoint=tmp_path / f"epoch={epoch}.ckpt")
        assert not changed(state(whole), state(resumed))
        assert resumed.rates == whole.rates[(epoch + 1) * STEPS :]
        assert resumed.grads == whole.grads[(epoch + 1) * STEPS :]
        assert str(trainer.optimizers[0].state_dict()) == str(ended)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_a_run_interrupted_within_an_epoch_resumes_with_the_same_table(tmp_path):
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    whole = Tuned(GRADUAL)
    fitted(tmp_path, whole, keep)
    resumed = Tuned(GRADUAL)
    fitted(tmp_path, resumed, checkpoint=tmp_path / "step=5.ckpt")
    assert resumed.grads == whole.grads[5:]
    assert resumed.rates == whole.rates[5:]


def test_a_checkpoint_holds_the_number_of_the_table(tmp_path):
    fitted(tmp_path, Tuned(GRADUAL), every_epoch(tmp_path))
    phases = []
    for epoch in range(EPOCHS):
        saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        phases.append({group["phase"] for group in saved["optimizer_states"][0]["param_groups"]})
    assert phases == [{0}, {1}, {1}, {2}]


def test_another_strategy_cannot_be_resumed(tmp_path):
    fitted(tmp_path, Tuned({"head": 1.0, "": None}), every_epoch(tmp_path))
    for table in ({"stem": 1.0, "": None}, {"head": 1.0, "": 0.5}):
        with pytest.raises(ValueError, match=r"strategy that it began with|size of optimizer's group"):
            fitted(tmp_path, Tuned(table), checkpoint=tmp_path / "epoch=0.ckpt")
