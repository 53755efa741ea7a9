"""Layer table and module graph of the network, once: shapes, parameters, memory, multiply-adds."""

from collections.abc import Mapping, Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Graph, Table, Text
from fulgurite.callbacks.framework.observation import network_of, prepared_network
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.activations.layer_table import COUNTED, layer_table
from fulgurite.probes.activations.layer_table import LayerTable as Rows
from fulgurite.probes.activations.module_graph import module_graph


class LayerTable(ProbeCallback):
    """Output, parameters and cost of each layer for one image, as a table, before training.

    See `layer_table`; `counts` says what the columns count. Next to it is the module graph, for TensorBoard's
    graph tab, where parts of the network are boxes that open at a click: see `module_graph`. In training, it
    replaces Lightning's model summary: the table by stages is printed instead, also when training is resumed
    from a checkpoint.

    Args:
        stages: a row for each stage of the network, instead of one for each layer.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    logs_numbers = False
    needs = "layers"

    def __init__(self, *, stages: bool = False, images: int | None = 1, **schedule):
        super().__init__(images=images, **schedule)
        self.stages = stages
        self._replaced = ""
        self._learning: list[nn.Parameter] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Replace Lightning's model summary."""
        super().setup(trainer, pl_module, stage)
        self._learning = [own for own in network_of(pl_module).parameters() if own.requires_grad]
        callbacks: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        others = [callback for callback in callbacks if not isinstance(callback, ModelSummary)]
        if stage == "fit" and len(others) < len(callbacks):
            self._replaced = type(network_of(pl_module)).__name__
            trainer.callbacks = others  # pyright: ignore[reportAttributeAccessIssue]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the untrained network; of one that is trained on, only print the table."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step and trainer.is_global_zero and self._replaced and self.sample is not None:
            with prepared_network(self, network_of(pl_module)) as network:
                try:
                    self._print(layer_table(network, self.sample[:1].images, self._learning))
                except ValueError as error:  # as a failed look: training can start
                    rank_zero_warn(f"{self.name} has no table: {error}")

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The table, before training or of a finished network; nothing at other times: it does not change."""
        return ["layers"] if self.look.first or not self.look.label else []

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Artifact]:
        """The table, and what it counts."""
        # in a look the network requires no gradients, so that autograd would keep nothing
        table = layer_table(network, sample[:1].images, self._learning)
        if self._replaced and self.look.first:
            self._print(table)
        head, rows = (table.by_stage() if self.stages else table).cells()
        graph = Graph(module_graph(network, sample[:1].images))
        return {"layers": Table(head, rows), "layers/counts": Text("\n".join(COUNTED)), "graph": graph}

    def _print(self, table: Rows) -> None:
        rank_zero_info(f"{self._replaced}, for one image:\n{table.by_stage().brief()}")
