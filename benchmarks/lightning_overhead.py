"""Training time: a bare PyTorch loop, Lightning, and Lightning with live probes.

python -m benchmarks.lightning_overhead [--quick] [--threads N]
"""

import argparse
import itertools
import logging
import statistics
import tempfile
import warnings
from time import perf_counter

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger

from benchmarks.timing import show
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.models.classifier import warm_cosine
from fulgurite.recipes.digits import recipe
from fulgurite.recipes.recipe import classifier_of


class Clock(pl.Callback):
    """When each epoch ended, its validation included."""

    def __init__(self):
        self.ends: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends.append(perf_counter())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends.append(perf_counter())

    def epochs(self) -> list[float]:
        """Seconds of each but the first."""
        return [later - earlier for earlier, later in zip(self.ends[1:], self.ends[2:], strict=False)]


def bare(epochs: int) -> list[float]:
    """The recipe's network, data, optimiser, schedule and validation in a loop of PyTorch."""
    plan = recipe(epochs=epochs, every=0)
    plan.data.setup("fit")
    network, train, val = plan.network, plan.data.train_dataloader(), plan.data.val_dataloader()
    spared = [p for p in network.parameters() if p.dim() < 2]
    decayed = [p for p in network.parameters() if p.dim() >= 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": spared, "weight_decay": 0.0}], classifier_of(plan).lr
    )
    steps = epochs * len(train)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    ends = [perf_counter()]
    for _ in range(epochs):
        network.train()
        for images, labels in train:
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.inference_mode():
            right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in val)
        assert right
        ends.append(perf_counter())
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


def lightning(epochs: int, *, every: int) -> tuple[list[float], list[ProbeCallback]]:
    """The recipe as `train.py fit digits` runs it, logger and progress bar on."""
    plan, clock = recipe(epochs=epochs, every=every), Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            log_every_n_steps=10,
            logger=TensorBoardLogger(folder),
            callbacks=[*plan.probes, clock],
            enable_model_summary=False,
        )
        trainer.fit(plan.model, plan.data)
    return clock.epochs(), list(plan.probes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer epochs and rounds")
    default = torch.get_num_threads()
    parser.add_argument("--threads", type=int, default=default, help=f"of torch; {default}")
    args = parser.parse_args()
    quick = args.quick
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    epochs, rounds = (5, 2) if quick else (8, 5)
    seconds: dict[str, list[float]] = {"bare loop": [], "Lightning": [], "Lightning with all probes": []}
    looks: dict[str, list[float]] = {}
    for _ in range(rounds):
        seconds["bare loop"] += bare(epochs)
        seconds["Lightning"] += lightning(epochs, every=0)[0]
        times, probes = lightning(epochs, every=1)
        seconds["Lightning with all probes"] += times
        for probe in probes:
            looks.setdefault(probe.name, []).append(probe.seconds / (epochs + 1))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rows = [[name, value, value / medians["bare loop"]] for name, value in medians.items()]
    epoch = medians["Lightning"]
    rows += [
        [f"one look of {name}", statistics.median(t), statistics.median(t) / epoch]
        for name, t in looks.items()
    ]
    head = ["an epoch of digits by", "seconds", "x bare loop; looks: x epoch"]
    show("Training; bar: Lightning at most 1.15 x the bare loop", head, rows)


if __name__ == "__main__":
    main()
