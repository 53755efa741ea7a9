"""Board: the protocol of logging targets; TensorBoard, Weights & Biases, MLflow, a folder."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from fulgurite.callbacks.framework.artifacts import Artifact


@runtime_checkable
class Board(Protocol):
    """Where artifacts are logged; only the first process of a run has any."""

    def log(self, artifacts: Mapping[str, Artifact], step: int) -> None:
        """Log each under its tag at this step, such that a crash afterwards loses none.

        Raises:
            OSError: the disk is full.
        """
        ...

    def where(self) -> str:
        """One line on how to view it."""
        ...


def log_all(boards: Sequence[Board], artifacts: Mapping[str, Artifact], step: int) -> None:
    """Log to every board, even if an earlier one fails.

    Raises:
        Exception: the error of the first board that fails.
    """
    errors = []
    for board in boards:
        try:
            board.log(artifacts, step)
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
