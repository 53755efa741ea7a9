"""Frozen means frozen and thawed means learning, at any depth, after a resume and in two processes too."""

import os
import re
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, OneCycleLR, SequentialLR
from torch.utils.data import DataLoader, DistributedSampler, Sampler
from torchvision import models

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is a script too: one of two processes
import somebody
from processes import two_of

from fulgurite.models.classifier import warm_cosine
from fulgurite.models.finetuning import Finetuning, frozen_by, pace
from fulgurite.models.networks import build
from fulgurite.models.stages import stages_of
from fulgurite.models.strategies import schedule_of
from fulgurite.probes.frozen_eval import frozen_eval

# the keeper of checkpoints is not needed to go on from one
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

EPOCHS, STEPS, LR = 4, 3, 0.05
GRADUAL = [
    (0, {"stem|layer": None, "head": 1.0}),
    (1, {"stem|layer1": None, "layer2": 0.4, "head": 1.0}),
    (3, {"stem": 0.1, "layer1": 0.2, "layer2": 0.4, "head": 0.5}),
]


class Small(nn.Module):
    """Three stages and a head, with norms and dropout; the norms of one stage lie among its convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(4, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(6 * 4, 3)

    def forward(self, images):
        return self.head(self.layer2(self.layer1(self.stem(images))).flatten(1))


class Tuned(pl.LightningModule):
    """What anybody has to write, and a diary."""

    def __init__(self, table, *, network=None, optimizer="adamw", schedule=None, held=True):
        super().__init__()
        torch.manual_seed(0)
        self.network = Small() if network is None else network
        self.finetuning = Finetuning(self.network, table)
        self.optimizer, self.schedule, self.held = optimizer, schedule, held
        self.rates, self.states, self.grads = [], [], []

    def configure_optimizers(self):
        groups = self.finetuning.groups(LR, weight_decay=0.1)
        if self.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups)
        else:
            optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
        if self.schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"},
        }

    def configure_callbacks(self):
        return [self.finetuning]

    def train(self, mode=True):
        super().train(mode)
        if self.held:
            self.finetuning.hold()
        return self

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, _):
        torch.manual_seed(self.global_step)  # dropout's draws
        self.rates.append([group["lr"] for group in self.optimizers().param_groups])
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch, _):
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self(images), labels), sync_dist=True)

    def on_before_optimizer_step(self, _):
        self.grads.append({name for name, own in self.network.named_parameters() if own.grad is not None})

    def on_train_epoch_end(self):
        self.states.append(state(self.network))


class Seeded(Sampler):
    """Another order each epoch, and the same one in each run."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(24, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self):
        return 24


def state(network):
    return {name: own.detach().clone() for name, own in network.state_dict().items()}


def changed(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


def fitted(folder, model, *callbacks, checkpoint=None, **options):
    trainer = quiet(folder, *callbacks, **options)
    loader = DataLoader(somebody.Blobs(24), batch_size=8, sampler=Seeded())
    trainer.fit(model, loader, somebody.loader(8), ckpt_path=checkpoint)
    return trainer


def quiet(folder, *callbacks, **options):
    keeps = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    defaults = {"max_epochs": EPOCHS, "enable_checkpointing": keeps, "logger": False}
    return somebody.quiet(folder, *callbacks, **{**defaults, **options})


def every_epoch(folder):
    return ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)


# tables


def test_the_first_pattern_that_fits_counts():
    groups = pace(Small(), 0.1, {"stem|layer1": None, "layer": 0.1, "head": 1.0}, weight_decay=0.5)
    told = {group["name"]: (group["frozen"], group["lr"], group["weight_decay"]) for group in groups}
    assert told == {
        "stem|layer1": (True, 0.0, 0.5),
        "stem|layer1 spared": (True, 0.0, 0.0),
        "layer": (False, pytest.approx(0.01), 0.5),
        "layer spared": (False, pytest.approx(0.01), 0.0),
        "head": (False, 0.1, 0.5),
        "head spared": (False, 0.1, 0.0),
    }


@pytest.mark.parametrize("table", [GRADUAL, {"": 1.0}, {".*bn|.*1": None, "": 1.0}], ids=str)
def test_every_parameter_is_in_one_group_and_norms_and_biases_are_spared(table):
    network = Small()
    groups = pace(network, 0.1, table, weight_decay=0.5)
    grouped = {id(own): group for group in groups for own in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(grouped)
    assert grouped.keys() == {id(own) for own in network.parameters()}
    assert {own.dim() for group in groups if not group["weight_decay"] for own in group["params"]} == {1}
    assert {own.dim() for group in groups if group["weight_decay"] for own in group["params"]} == {2, 4}


def test_a_scale_per_channel_is_spared_whatever_its_shape():
    network = nn.Linear(3, 2)
    network.scale = nn.Parameter(torch.ones(2, 1, 1))
    (_, spared) = pace(network, 0.1, {"": 1.0}, weight_decay=0.5)
    assert any(own is network.scale for own in spared["params"])


def test_a_compiled_network_has_the_names_of_the_bare_one():
    network = Small()
    network.layer1 = torch.compile(network.layer1, backend="eager")
    names = [group["name"] for group in pace(torch.compile(network, backend="eager"), 0.1, GRADUAL)]
    assert names == [group["name"] for group in pace(Small(), 0.1, GRADUAL)]


def test_groups_of_a_schedule_go_the_same_way_in_all_its_tables():
    groups = pace(Small(), 1.0, [(0, {"head": 1, "": None}), (1, {"head": 1, "stem": 0.1, "layer": 0.2})])
    told = {group["name"]: (group["lr"], group["frozen"]) for group in groups if group["params"][0].dim() > 1}
    assert told == {"head": (1.0, False), "the rest & stem": (0.1, True), "the rest & layer": (0.2, True)}


def test_patterns_that_would_get_one_name_keep_apart():
    network = nn.ModuleDict({"a": nn.Linear(1, 2), "b": nn.Linear(1, 2)})
    names = [group["name"] for group in pace(network, 1.0, {"a.w|b.w": 1, r"a\.w|b": 1, "a": 1})]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"head": 1.0}, "no pattern fits stem.0.weight, stem.1.weight, .* and 5 more; add 'stem'"),
        ({"lyaer": 1.0, "": 1.0}, r"pattern 'lyaer' gets no parameter; nearest: layer2, layer1"),
        ({"layer": 1.0, "layer2": 0.1, "": 1.0}, "'layer' takes layer2.0.weight, .* before it; put 'layer2'"),
        ({"": None}, "nothing would learn"),
        ([(0, {"": 1.0}), (2, {"": None})], "nothing would learn"),
        ({"": 0.0}, "factor 0.0 for ''; wanted one above 0, or None"),
        ({"": float("nan")}, "factor nan"),
        ({"(": 1.0}, "no regular expression"),
        ([(1, {"": 1.0})], r"from epoch.*\[1\]"),
        ([(0, {"": 1.0}), (0, {"": 1.0})], r"\[0, 0\]"),
        ([], r"\[\]"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_followed_is_refused(table, told):
    for use in (lambda: pace(Small(), 0.1, table), lambda: Finetuning(Small(), table)):
        with pytest.raises(ValueError, match=told):
            use()


def test_modules_are_kept_in_eval_mode_with_all_that_is_frozen_in_them():
    network = Small()
    _, modules = frozen_by(network, {"stem|layer2.0": None, "": 1.0})
    names = {name for name, module in network.named_modules() if any(module is own for own in modules)}
    assert names == {"stem", "stem.0", "stem.1", "stem.2", "layer2.0"}


# frozen


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("held", [True, False], ids=["train() overridden", "train() not overridden"])
def test_frozen_weights_and_statistics_stay_bit_identical(optimizer, held, tmp_path):
    model = Tuned(GRADUAL, optimizer=optimizer, held=held)
    states = [state(model.network)]
    fitted(tmp_path, model)
    states += model.states
    stages = [{"head"}, {"layer2", "head"}, {"layer2", "head"}, {"stem", "layer1", "layer2", "head"}]
    for before, after, learning in zip(states[:-1], states[1:], stages, strict=True):
        # whatever learns moves, weights and statistics alike
        assert changed(before, after) == {name for name in before if name.partition(".")[0] in learning}


def test_what_is_frozen_again_loses_its_momentum(tmp_path):
    tables = [(0, {"": 1.0}), (2, {"head": 1.0, "": None})]
    model = Tuned(tables, optimizer="sgd")
    fitted(tmp_path, model)
    assert {name.partition(".")[0] for name in changed(model.states[1], model.states[3])} == {"head"}
    assert changed(model.states[0], model.states[1]) == {*model.states[0]}


def test_the_backward_pass_ends_above_what_is_frozen(tmp_path):
    model, seen = Tuned(GRADUAL), []
    model.network.layer2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].requires_grad))
    model.network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].requires_grad))
    fitted(tmp_path, model, limit_val_batches=0)
    assert seen == [False, False] * STEPS + [False, True] * 2 * STEPS + [True, True] * STEPS


class Trains(pl.Callback):
    """Somebody who thaws by accident."""

    def on_train_batch_start(self, trainer, pl_module, *_):
        pl_module.network.train()


def test_train_called_on_a_part_of_the_module_thaws_nothing(tmp_path):
    model = Tuned({"head": 1.0, "": None})
    before = state(model.network)
    fitted(tmp_path, model, Trains())
    assert {name.partition(".")[0] for name in changed(before, state(model.network))} == {"head"}


def test_modes_outlast_validation_a_look_and_train(tmp_path):
    class Modes(pl.Callback):
        def __init__(self):
            self.seen = set()

        def on_train_batch_end(self, trainer, pl_module, *_):
            with frozen_eval(pl_module.network):
                pass
            pl_module.train()
            self.seen.add(
                frozenset(name for name, part in pl_module.network.named_modules() if part.training)
            )

    fitted(tmp_path, Tuned({"stem|layer": None, "": 1.0}), modes := Modes(), val_check_interval=1)
    assert modes.seen == {frozenset(["", "head"])}


def test_probes_change_nothing_of_it(tmp_path):
    from fulgurite.callbacks.saliency import Saliency

    alone, watched = Tuned(GRADUAL), Tuned(GRADUAL)
    fitted(tmp_path, alone)
    scale = {"mean": somebody.MEAN, "std": somebody.STD}
    somebody_watches = Saliency(pictures=tmp_path / "pictures", on_error="raise", **scale)
    fitted(tmp_path, watched, somebody_watches, logger=TensorBoardLogger(tmp_path))
    assert not changed(state(alone), state(watched))
    assert [*(tmp_path / "pictures").iterdir()]


def test_another_training_begins_at_the_first_table(tmp_path):
    model = Tuned(GRADUAL)
    fitted(tmp_path, model)
    for _ in range(2):  # after one that ended thawed, and after one that ended frozen
        before = state(model.network)
        quiet(tmp_path, max_epochs=1).fit(model, somebody.loader(), somebody.loader(8))
        assert {name.partition(".")[0] for name in changed(before, state(model.network))} == {"head"}


def test_other_ways_to_share_out_a_network_are_refused(tmp_path):
    from lightning.pytorch.strategies import ModelParallelStrategy

    model = Tuned(GRADUAL)
    trainer = pl.Trainer(strategy=ModelParallelStrategy(), accelerator="cpu", devices=1, logger=False)
    with pytest.raises(ValueError, match=r'with strategy="ddp", not with ModelParallelStrategy'):
        model.finetuning.setup(trainer, model, "fit")


def test_an_optimizer_of_other_groups_is_refused(tmp_path):
    model = Tuned(GRADUAL)
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match=r"none with a phase.*make it of `Finetuning\.groups`"):
        fitted(tmp_path, model)


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


SCHEDULERS = {
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: warm_cosine(step, EPOCHS * STEPS)),
    "onecycle": lambda optimizer: OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=EPOCHS * STEPS
    ),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, EPOCHS * STEPS),
    "sequence": lambda optimizer: SequentialLR(
        optimizer,
        [LinearLR(optimizer, 0.1, total_iters=4), CosineAnnealingLR(optimizer, EPOCHS * STEPS - 4)],
        [4],
    ),
}


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


def test_frozen_norms_answer_alike_in_training_and_norms_can_be_told_to_learn(tmp_path):
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
def test_a_run_interrupted_within_an_epoch_goes_on_by_the_same_table(tmp_path):
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


# strategies and stages


def told(schedule):
    return [(epoch, [*table.values()]) for epoch, table in schedule]


def test_strategies_are_tables_over_the_stages_of_a_network():
    network = build("small_vgg", classes=3)
    patterns = [stage.pattern for stage in stages_of(network)]
    assert patterns == [rf"conv{n}\.|norm{n}\." for n in (1, 2, 3)] + [r"hidden\.", r"classifier\."]
    layerwise = pytest.approx([0.0625, 0.125, 0.25, 0.5, 1.0])
    assert told(schedule_of("linear", network)) == [(0, [None] * 4 + [1.0])]
    assert told(schedule_of("last", network)) == [(0, [None] * 3 + [1.0] * 2)]
    assert told(schedule_of("last", network, stages=3)) == [(0, [None] + [1.0] * 4)]
    assert told(schedule_of("full", network)) == told(schedule_of("scratch", network)) == [(0, [1.0] * 5)]
    assert told(schedule_of("layerwise", network, decay=0.5)) == [(0, layerwise)]
    gradual = schedule_of("gradual", network, decay=0.5, every=2)
    for phase, (epoch, table) in enumerate(gradual):
        assert epoch == 2 * phase
        assert [*table.values()] == [None] * (4 - phase) + layerwise.expected[4 - phase :]
    assert len(gradual) == 5
    assert all([*table] == patterns for _, table in gradual)


@pytest.mark.parametrize("strategy", ["linear", "last", "layerwise", "gradual", "full", "scratch"])
def test_under_every_strategy_the_frozen_stay_and_the_rest_learns(strategy, tmp_path):
    network = build("small_vgg", classes=3)
    schedule = schedule_of(strategy, network)
    model = Tuned(schedule, network=network)
    states = [state(network)]
    fitted(tmp_path, model)
    states += model.states
    table = dict(schedule)
    for epoch in range(EPOCHS):
        factors = table[max(start for start in table if start <= epoch)]
        learning = re.compile("|".join(pattern for pattern, factor in factors.items() if factor is not None))
        assert changed(states[epoch], states[epoch + 1]) == {
            name for name in states[0] if learning.match(name)
        }


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"strategy": "layer_wise"}, "no strategy 'layer_wise'; nearest: layerwise"),
        ({"strategy": "last", "stages": 5}, "stages=5; this SmallVGG has 4 before its head"),
        ({"strategy": "last", "stages": 0}, "stages=0"),
        ({"strategy": "layerwise", "decay": 0.0}, "decay=0.0"),
        ({"strategy": "gradual", "every": 0}, "every=0"),
        ({"strategy": "linear", "shape": (1, 32, 32)}, "takes 3 channels, the images have 1"),
    ],
    ids=str,
)
def test_a_strategy_that_cannot_be_is_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        schedule_of(network=build("small_vgg", classes=3), **options)


def test_a_network_for_one_size_says_so():
    with pytest.raises(ValueError, match=r"Small cannot take an image of 3 x 224 x 224 .*shape=\(channels"):
        stages_of(Small())
    stages = stages_of(Small(), shape=(3, 12, 12))
    assert [stage.name for stage in stages] == ["stem|layer1", "layer2", "head"]


def test_a_network_without_a_head_has_no_stages():
    with pytest.raises(ValueError, match="Sequential has no head"):
        stages_of(nn.Sequential(nn.ReLU()))


def test_stages_follow_the_calls_and_take_along_whatever_lies_between():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.deep, self.deep_norm = nn.Conv2d(4, 8, 3, 2), nn.BatchNorm2d(8, affine=False)
            self.aux = nn.Linear(4, 3)
            self.shallow = nn.Conv2d(1, 4, 3, 2)
            self.fc = nn.Linear(8, 3)

        def forward(self, images):
            return self.fc(self.deep_norm(self.deep(self.scale * self.shallow(images))).mean((2, 3)))

    stem, deep, head = (stage.pattern for stage in stages_of(Odd(), shape=(1, 32, 32)))
    assert re.match(stem, "shallow.weight")
    assert re.match(deep, "deep_norm.running_mean")
    assert re.match(head, "aux.weight")
    assert re.match(head, "fc.weight")
    assert re.match(f"{stem}|{deep}", "scale")


def test_finding_stages_changes_nothing():
    network = build("torchvision/squeezenet1_1", classes=3).train()
    network.requires_grad_(False)
    before, draws = state(network), torch.get_rng_state()
    network.classifier[0].eval()
    stages_of(network)
    assert not changed(before, state(network))
    assert torch.equal(torch.get_rng_state(), draws)
    assert [name for name, part in network.named_modules() if not part.training] == ["classifier.0"]
    assert not any(own.requires_grad or own.is_meta for own in network.parameters())
    assert not any(part._forward_hooks for part in network.modules())


def test_stages_of_a_compiled_network_are_those_of_the_bare_one():
    network = build("small_cnn", classes=3)
    assert stages_of(torch.compile(network, backend="eager")) == stages_of(network)


def called_last(network, stages, shape):
    """When each stage last ran a convolution or linear layer in a plain pass: a twin by hooks of its own."""
    calls, hooks = [], []
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            hooks.append(part.register_forward_hook(lambda *_, name=name: calls.append(name)))
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    fits = [[at for at, name in enumerate(calls) if re.match(stage.pattern, f"{name}.")] for stage in stages]
    assert sum(map(len, fits)) == len(calls)
    return [at[-1] for at in fits]


def check_stages(network, size, head):
    stages = stages_of(network)
    names = [name for name, _ in network.named_parameters()]
    for name in names:
        assert sum(bool(re.match(stage.pattern, name)) for stage in stages) == 1, name
    assert {name.rpartition(".")[0] for name in names if re.match(stages[-1].pattern, name)} == {*head}
    assert 3 <= len(stages) <= 8
    order = called_last(network, stages, (3, size, size))
    assert order == sorted(order)
    assert len({stage.name for stage in stages}) == len(stages)
    pace(network, 0.1, dict.fromkeys((stage.pattern for stage in stages), 1.0))


OWN = ["small_vgg", "all_conv", "small_cnn", "strided_cnn", "preact_resnet18", "resnet18_3x3"]
FAST = {
    "torchvision/resnet18": "fc",
    "torchvision/shufflenet_v2_x1_0": "fc",
    "torchvision/squeezenet1_0": "classifier.1",
    "torchvision/squeezenet1_1": "classifier.1",
    "torchvision/shufflenet_v2_x0_5": "fc",
    "torchvision/mobilenet_v2": "classifier.1",
    "torchvision/mobilenet_v3_small": "classifier.3",
    "torchvision/mnasnet0_5": "classifier.1",
    "torchvision/regnet_x_400mf": "fc",
    "torchvision/resnet34": "fc",
    "torchvision/googlenet": "fc",
    "timm/resnet18": "fc",
    "timm/mobilenetv3_small_050": "classifier",
    "timm/convnext_atto": "head.fc",
    "timm/regnetx_002": "head.fc",
    "timm/efficientnet_lite0": "classifier",
    "timm/lcnet_050": "classifier",
    "timm/repvgg_a0": "head.fc",
    "timm/dla46_c": "fc",
}
SLOW = {
    "torchvision/efficientnet_b0": "classifier.1",
    "torchvision/resnet50": "fc",
    "torchvision/densenet121": "classifier",
    "torchvision/alexnet": "classifier.6",
    "torchvision/vgg11": "classifier.6",
    "torchvision/vgg16_bn": "classifier.6",
    "torchvision/inception_v3": "fc",
    "torchvision/convnext_tiny": "classifier.2",
    "torchvision/efficientnet_v2_s": "classifier.1",
    "torchvision/wide_resnet50_2": "fc",
    "torchvision/resnext50_32x4d": "fc",
    "torchvision/regnet_y_400mf": "fc",
    "torchvision/densenet161": "classifier",
    "torchvision/maxvit_t": "classifier.5",
    "timm/vgg16_bn": "head.fc",
    "timm/densenet121": "classifier",
    "timm/hrnet_w18_small": "classifier",
    "timm/inception_v4": "last_linear",
    "timm/inception_resnet_v2": "classif",
    "timm/legacy_xception": "fc",
    "timm/xception41": "head.fc",
    "timm/tresnet_m": "head.fc",
    "timm/nfnet_f0": "head.fc",
    "timm/resnetv2_50": "head.fc",
    "timm/dpn68": "classifier",
    "timm/dla34": "fc",
    "timm/vovnet39a": "head.fc",
    "timm/ghostnet_050": "classifier",
    "timm/rexnet_100": "head.fc",
    "timm/selecsls42": "fc",
    "timm/poolformer_s12": "head.fc",
    "timm/rdnet_tiny": "head.fc",
    "timm/mobileone_s0": "head.fc",
    "timm/fastvit_t8": "head.fc",
    "timm/convmixer_768_32": "head",
    "timm/pnasnet5large": "last_linear",
    "timm/hgnetv2_b0": "head.fc",
    "timm/efficientvit_b0": "head.classifier.4",
}


@pytest.mark.parametrize("name", OWN)
def test_every_parameter_of_our_networks_is_in_one_stage(name):
    check_stages(build(name, classes=5), 32, ["fc" if name == "resnet18_3x3" else "classifier"])


@pytest.mark.parametrize("name", FAST)
def test_every_parameter_is_in_one_stage_and_stages_go_by_depth(name):
    check_stages(build(name, classes=5), 96, [FAST[name]])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_parameter_is_in_one_stage_of_larger_networks(name):
    network = build(name, classes=5)
    check_stages(network, 224, [SLOW[name]])


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("torchvision/resnet18", ["conv1|bn1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("resnet18_3x3", ["conv1|bn1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("preact_resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4|norm", "classifier"]),
        ("small_cnn", ["conv1|conv2", "hidden", "classifier"]),
        (
            "torchvision/squeezenet1_1",
            [
                "features.0",
                "features.3|features.4",
                "features.6|features.7",
                "features.9..features.12",
                "classifier",
            ],
        ),
        (
            "timm/mobilenetv3_small_050",
            [
                "conv_stem|bn1",
                "blocks.0",
                "blocks.1",
                "blocks.2|blocks.3",
                "blocks.4|blocks.5",
                "conv_head",
                "classifier",
            ],
        ),
    ],
)
def test_stages_are_those_a_reader_would_draw(name, stages):
    assert [stage.name for stage in stages_of(build(name, classes=5))] == stages


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100"])
def test_a_network_has_the_same_stages_in_both_libraries(name):
    theirs = {"mobilenetv3_small_100": "mobilenet_v3_small"}.get(name, name)
    counts = [len(stages_of(build(full, classes=5))) for full in (f"timm/{name}", f"torchvision/{theirs}")]
    assert counts[0] == counts[1]


def test_auxiliary_heads_go_with_the_head():
    network = models.get_model("googlenet", weights=None, num_classes=5, init_weights=False)
    *_, head = stages_of(network)
    heads = {name.partition(".")[0] for name, _ in network.named_parameters() if re.match(head.pattern, name)}
    assert heads == {"aux1", "aux2", "fc"}


# two processes

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
    images, rank, told = somebody.Blobs(48), int(os.environ.get("LOCAL_RANK", "0")), {}
    share = DistributedSampler(images, processes, rank, shuffle=False)
    loaders = DataLoader(images, 8, sampler=share), somebody.loader(8)
    for name, table in {"norms learn": GRADUAL, "norms frozen": NORMS_FROZEN}.items():
        model = Tuned(table, schedule=SCHEDULERS["onecycle"])
        model.network.layer2[3].p = 0.0  # each process draws for its own images
        trainer = quiet(folder, every_epoch(folder / name), **strategy)
        model.network.stem.requires_grad_(False)  # as an earlier training may have left it
        before = state(model.network)
        trainer.fit(model, *loaders)
        told[name] = {
            "states": [before, *model.states],
            "rates": model.rates,
            "grads": model.grads,
            "loss": trainer.callback_metrics["val_loss"],
        }
    resumed = Tuned(GRADUAL, schedule=SCHEDULERS["onecycle"])
    resumed.network.layer2[3].p = 0.0
    trainer = quiet(folder, **strategy)
    trainer.fit(resumed, *loaders, ckpt_path=folder / "norms learn" / "epoch=1.ckpt")
    told["resumed"] = {"states": resumed.states, "rates": resumed.rates, "grads": resumed.grads}
    torch.save(told, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    done = two_of(__file__, folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.ranks
def test_two_processes_stay_equal_after_thawing(ranks):
    for name in ("norms learn", "norms frozen", "resumed"):
        one, other = (told[name] for told in ranks)
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
    told = ranks[0]["norms frozen"]
    assert model.rates == told["rates"]
    assert model.grads == told["grads"]
    for mine, theirs in zip(model.states, told["states"][1:], strict=True):
        assert all(torch.allclose(mine[name], theirs[name], atol=1e-5) for name in mine)
    assert trainer.callback_metrics["val_loss"] == pytest.approx(float(told["loss"]), abs=1e-5)


if __name__ == "__main__":
    two(Path(sys.argv[1]))
