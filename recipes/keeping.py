"""What a run keeps in its folder as it trains: what it is, and its best and last weights."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from fulgurite.recipes.run import Run


class Note(pl.Callback):
    """Notes what is trained in the run's folder, after a first step: what could be refused has not been."""

    def __init__(self, run: Run, folder: Path):
        self.run, self.folder, self.noted = run, folder, False

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Write it, once."""
        rehearsal = trainer.fast_dev_run  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.is_global_zero and not rehearsal and not self.noted:
            self.run.write(self.folder)
        self.noted = True


class Patience(EarlyStopping):
    """Stops a run that gets no better; a resumed run has the patience that it is asked for now."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was counted from the checkpoint, and the patience from here."""
        super().load_state_dict({**state_dict, "patience": self.patience})


class Checkpoints(ModelCheckpoint):
    """The best and the last checkpoint of a run; the best score is still known where the folder has moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the places of the files from here, the rest from the checkpoint."""

        def here(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {name: here(state_dict[name]) for name in paths}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath})
