"""Messages of Lightning that the command silences."""

import logging
import warnings


def hush() -> None:
    """Silence Lightning's messages about itself, and about what this command does on purpose."""
    for message in (
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        ".*does not have many workers which may be a bottleneck",
        "The number of training batches .* is smaller than the logging interval",
        "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
        "Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", message)
    tips = "lightning.pytorch.utilities.rank_zero"
    logging.getLogger(tips).addFilter(lambda record: "Tip:" not in record.getMessage())
