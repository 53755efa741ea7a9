"""What LightningCLI was given to make a model of: plain values, which a checkpoint can hold."""

from typing import Any

from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin


class _Given(HyperparametersMixin):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()


def given_arguments() -> dict[str, Any]:
    """The arguments of the model that LightningCLI is making, as its configuration has them; else nothing.

    A run that is resumed there, and `load_from_checkpoint`, can make the model of them again.
    """
    return dict(_Given().hparams)
