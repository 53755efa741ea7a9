"""MLflow as a board, for a Trainer with an MLFlowLogger; `pip install fulgurite[mlflow]`."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lightning.pytorch.loggers import MLFlowLogger
from PIL import Image

from fulgurite.callbacks.boards.folder import as_text, file_name
from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar


@dataclass
class MLflow:
    """The run of an MLFlowLogger: scalars are its metrics, all else files among its artifacts."""

    logger: MLFlowLogger

    def log(self, artifacts: Mapping[str, Artifact], step: int) -> None:
        """Log each one separately."""
        client, run = self.logger.experiment, self.logger.run_id
        for tag, artifact in artifacts.items():
            if isinstance(artifact, Scalar):
                # it refuses other characters
                client.log_metric(run, re.sub(r"[^\w .:/-]", "_", tag), float(artifact.value), step=step)
            elif isinstance(artifact, Picture):
                picture = Image.open(io.BytesIO(artifact.encoded()))
                client.log_image(run, picture, f"pictures/{file_name(tag)}/{step:08d}.png")
            else:
                kind, suffix, content = as_text(artifact)
                client.log_text(run, content, f"{kind}/{file_name(tag)}/{step:08d}.{suffix}")

    def where(self) -> str:
        """Where the run is tracked."""
        logger = self.logger
        return f"to watch: run {logger.run_id} of {logger.name} at {logger.experiment.tracking_uri}"
