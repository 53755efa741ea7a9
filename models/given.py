"""The arguments of LightningCLI for a model, as plain values, which a checkpoint can hold."""

from typing import Any

from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin


class _Given(HyperparametersMixin):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()


def given_arguments() -> dict[str, Any]:
    """The arguments of the model that LightningCLI is creating, from its configuration; else nothing.

    With them, a resumed run and `load_from_checkpoint` can create the model again.
    """
    return dict(_Given().hparams)
