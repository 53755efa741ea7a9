"""Frozen means frozen and unfrozen means learning, at any depth."""

import lightning.pytorch as pl
import pytest
import somebody
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from tuned_training import GRADUAL, STEPS, Small, Tuned, changed, fitted, quiet, state

from fulgurite.models.finetuning import Finetuning, frozen_by, pace
from fulgurite.probes.frozen_eval import frozen_eval

# the keeper of checkpoints is not needed to go on from one
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


# tables


def test_the_first_pattern_that_fits_counts():
    groups = pace(Small(), 0.1, {"stem|layer1": None, "layer": 0.1, "head": 1.0}, weight_decay=0.5)
    reported = {group["name"]: (group["frozen"], group["lr"], group["weight_decay"]) for group in groups}
    assert reported == {
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


def test_a_scale_per_channel_has_no_weight_decay_whatever_its_shape():
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
    reported = {
        group["name"]: (group["lr"], group["frozen"]) for group in groups if group["params"][0].dim() > 1
    }
    assert reported == {"head": (1.0, False), "the rest & stem": (0.1, True), "the rest & layer": (0.2, True)}


def test_patterns_that_would_get_one_name_keep_apart():
    network = nn.ModuleDict({"a": nn.Linear(1, 2), "b": nn.Linear(1, 2)})
    names = [group["name"] for group in pace(network, 1.0, {"a.w|b.w": 1, r"a\.w|b": 1, "a": 1})]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"head": 1.0}, "no pattern fits stem.0.weight, stem.1.weight, .* and 5 more; add 'stem'"),
        ({"lyaer": 1.0, "": 1.0}, r"pattern 'lyaer' gets no parameter; nearest: layer2, layer1"),
        ({"layer": 1.0, "layer2": 0.1, "": 1.0}, "'layer' takes layer2.0.weight, .* before it; put 'layer2'"),
        ({"": None}, "nothing would learn"),
        ([(0, {"": 1.0}), (2, {"": None})], "nothing would learn"),
        ({"": 0.0}, "factor 0.0 for ''; wanted one above 0, or None"),
        ({"": float("nan")}, "factor nan"),
        ({"(": 1.0}, "not a regular expression"),
        ([(1, {"": 1.0})], r"from epoch.*\[1\]"),
        ([(0, {"": 1.0}), (0, {"": 1.0})], r"\[0, 0\]"),
        ([], r"\[\]"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_followed_is_refused(table, message):
    for use in (lambda: pace(Small(), 0.1, table), lambda: Finetuning(Small(), table)):
        with pytest.raises(ValueError, match=message):
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
        # whatever learns changes, both weights and statistics
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
    """A callback that unfreezes by accident."""

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
    for _ in range(2):  # after one that ended unfrozen, and after one that ended frozen
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
