"""The layer table at the start of training, and where it cannot be made."""

import pytest
import somebody
import torch
from lightning.pytorch.callbacks import ModelSummary
from torch import nn

from fulgurite.callbacks.framework.artifacts import Graph, Table, Text
from fulgurite.callbacks.framework.observation import network_of
from fulgurite.callbacks.layer_table import LayerTable
from fulgurite.probes.activations.layer_table import layer_table


@pytest.fixture
def logged(monkeypatch) -> list:
    found = []

    class Board:
        def where(self):
            return ""

        def log(self, artifacts, step):
            found.extend((tag, step, item) for tag, item in artifacts.items() if tag.startswith("LayerTable"))

    monkeypatch.setattr("fulgurite.callbacks.framework.session.boards_of", lambda *_: [Board()])
    return found


@pytest.mark.parametrize("stages", [False, True])
def test_the_table_is_logged_once(tmp_path, logged, stages):
    probe, model = LayerTable(stages=stages, mean=somebody.MEAN, std=somebody.STD), somebody.Theirs()
    trainer = somebody.quiet(tmp_path, probe)
    trainer.fit(model, somebody.loader(), somebody.loader(15, shuffle=False))
    assert [(tag, step) for tag, step, _ in logged] == [
        ("LayerTable/layers", 0),
        ("LayerTable/layers/counts", 0),
        ("LayerTable/graph", 0),
    ]
    table, counts, graph = (item for *_, item in logged)
    assert isinstance(graph, Graph)
    assert [node.path for node in graph.nodes][:2] == ["images", "features.0"]
    assert isinstance(table, Table)
    assert isinstance(counts, Text)
    parameters = sum(own.numel() for own in model.parameters())
    assert table.rows[0][2] == "3 x 12 x 12"
    assert table.rows[-1][3] == f"{parameters:,}"
    assert len(table.rows) == (4 if stages else 2 + sum(not [*m.children()] for m in model.modules()))
    assert any(isinstance(part, nn.Conv2d) for part in model.modules())
    trainer.validate(model, somebody.loader(15, shuffle=False), verbose=False)
    assert len(logged) == 6  # of a finished network, once more
    assert logged[3][2] == table


def test_memory_is_what_a_training_step_keeps(tmp_path, logged, monkeypatch):
    kept, model = [], somebody.Theirs()

    def seen(*asked):
        table = layer_table(*asked)
        kept.append(table.kept_bytes)
        return table

    monkeypatch.setattr("fulgurite.callbacks.layer_table.layer_table", seen)
    probe = LayerTable(mean=somebody.MEAN, std=somebody.STD)
    somebody.quiet(tmp_path, probe).fit(model, somebody.loader(), somebody.loader(15, shuffle=False))
    assert kept[0] >= layer_table(network_of(model), torch.rand(1, 3, 12, 12)).kept_bytes > 0
    assert all(own.requires_grad for own in network_of(model).parameters())


@pytest.mark.parametrize("summarised", [True, False])
def test_it_takes_the_place_of_lightnings_model_summary(tmp_path, logged, caplog, summarised):
    probe = LayerTable(mean=somebody.MEAN, std=somebody.STD)
    trainer = somebody.quiet(
        tmp_path, probe, enable_model_summary=summarised, max_epochs=1, limit_train_batches=1
    )
    with caplog.at_level("INFO"):
        trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(3))
    assert not any(isinstance(callback, ModelSummary) for callback in trainer.callbacks)
    assert "Non-trainable params" not in caplog.text
    assert caplog.text.count("Theirs, for one image:") == summarised
    assert caplog.text.count("multiply-adds") == summarised


def test_a_resumed_run_prints_the_table_but_has_no_second_look(tmp_path, logged, caplog):
    def trainer(epochs: int):
        probe = LayerTable(mean=somebody.MEAN, std=somebody.STD)
        options = {"enable_model_summary": True, "max_epochs": epochs, "limit_train_batches": 1}
        return somebody.quiet(tmp_path, probe, **options)

    first, data = trainer(1), (somebody.loader(), somebody.loader(3))
    first.fit(somebody.Theirs(), *data)
    first.save_checkpoint(tmp_path / "last.ckpt")
    assert len(logged) == 3
    caplog.clear()
    with caplog.at_level("INFO"):
        trainer(2).fit(somebody.Theirs(), *data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert caplog.text.count("Theirs, for one image:") == 1
    assert len(logged) == 3


def test_a_table_that_cannot_be_made_is_no_reason_not_to_go_on(tmp_path, logged, monkeypatch):
    data = somebody.loader(), somebody.loader(3)
    probe = LayerTable(mean=somebody.MEAN, std=somebody.STD)
    options = {"enable_model_summary": True, "max_epochs": 1, "limit_train_batches": 1}
    trainer = somebody.quiet(tmp_path, probe, **options)
    model = somebody.Theirs()
    trainer.fit(model, *data)

    def impossible(*_):
        raise ValueError("Theirs cannot be run")

    monkeypatch.setattr("fulgurite.callbacks.layer_table.layer_table", impossible)
    trainer.fit_loop.max_epochs = 2
    with pytest.warns(UserWarning, match="LayerTable has no table: Theirs cannot be run"):
        trainer.fit(model, *data)
    assert trainer.current_epoch == 2
