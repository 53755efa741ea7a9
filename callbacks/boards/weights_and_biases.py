"""Weights & Biases as a board, for a Trainer with a WandbLogger; `pip install fulgurite[wandb]`."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from fulgurite.callbacks.boards.folder import embedding_rows
from fulgurite.callbacks.framework.artifacts import (
    Artifact,
    Embedding,
    Graph,
    Histogram,
    Picture,
    Scalar,
    Table,
)


@dataclass
class WeightsAndBiases:
    """The run of a WandbLogger: the axis is the training step; its own step counter is not changed."""

    logger: WandbLogger

    def log(self, artifacts: Mapping[str, Artifact], step: int) -> None:
        """Log all of them as one row."""
        row = {tag: _item(artifact) for tag, artifact in artifacts.items()}
        self.logger.experiment.log({**row, "trainer/global_step": step})

    def where(self) -> str:
        """The page of the run, or the folder of one that is offline."""
        run: Any = self.logger.experiment
        return f"to watch: {run.url or run.dir}"


def _item(artifact: Artifact) -> object:
    import wandb  # an extra  # pyright: ignore[reportMissingImports]

    if isinstance(artifact, Scalar):
        return float(artifact.value)
    if isinstance(artifact, Picture):
        return wandb.Image(Image.open(io.BytesIO(artifact.encoded())))
    if isinstance(artifact, Histogram):
        return wandb.Histogram(artifact.finite().tolist())
    if isinstance(artifact, Table):
        return wandb.Table(list(artifact.head), [list(row) for row in artifact.rows])
    if isinstance(artifact, Embedding):
        head, *rows = embedding_rows(artifact)
        return wandb.Table(head, rows)
    if isinstance(artifact, Graph):
        rows = [[node.path, node.kind, str(node.shape), ", ".join(node.inputs)] for node in artifact.nodes]
        return wandb.Table(["module", "kind", "shape", "inputs"], rows)
    return wandb.Table(["text"], [[artifact.lines]])
