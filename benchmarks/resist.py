"""Robust accuracy on digits, and training time, of every adversarial-training method.

python -m benchmarks.resist [--quick] [--only METHOD ...] [--threads N]

The recipe robust_digits, as it is: 8 x 8 pixels, Linf 0.15, 30 epochs; test accuracy and that under PGD-50
from five starts, medians of the seeds 0, 1 and 2, after the last epoch. Bars: mart and free at most 3 points
below madry's robust accuracy.
"""

import argparse
import statistics
import warnings
from functools import partial
from time import process_time
from typing import Any

import lightning.pytorch as pl
import torch

from benchmarks.timing import show
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.recipes import robust_digits

WAYS: dict[str, dict[str, Any]] = {
    "madry": {"method": "madry"},
    "trades": {"method": "trades"},
    "mart": {"method": "mart"},
    "fast": {"method": "fast"},
    "free": {"method": "free"},
    "madry, awp .005": {"method": "madry", "awp": 0.005},
    "trades, awp .005": {"method": "trades", "awp": 0.005},
    "madry, ema .995": {"method": "madry", "ema": 0.995},
    "trades, awp .005, ema .995": {"method": "trades", "awp": 0.005, "ema": 0.995},
}
SHORT = ("madry", "mart", "free")


def trained(seed: int, **knobs: Any) -> tuple[float, float, float]:
    """Test accuracy, robust accuracy, and the CPU time of training in seconds."""
    made = robust_digits.recipe(every=0, seed=seed, **knobs)
    made.model.attacks = {
        "val": partial(pgd, steps=10),
        "test": partial(pgd, steps=50, restarts=5, drop=True),
    }
    trainer = pl.Trainer(
        max_epochs=made.epochs,
        accelerator="cpu",
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*made.callbacks],
    )
    started = process_time()
    trainer.fit(made.model, made.data)
    took = process_time() - started
    found = trainer.test(made.model, made.data, verbose=False)[0]
    return found["test/accuracy"], found["test/robust accuracy"], took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, and those with a bar alone")
    parser.add_argument("--only", nargs="+", choices=WAYS, help="these ways")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    rows: list[list] = []
    for name in args.only or (SHORT if args.quick else WAYS):
        runs = [trained(seed, **WAYS[name]) for seed in ((0,) if args.quick else (0, 1, 2))]
        clean, robust, took = (statistics.median(part) for part in zip(*runs, strict=True))
        spread = " to ".join(f"{end([run[1] for run in runs]):.3f}" for end in (min, max))
        rows.append([name, clean, robust, spread, took])
        print(*rows[-1], flush=True)
    show(
        "Digits, Linf 0.15; bars: mart and free at most .03 below madry",
        ["method", "accuracy", "under PGD-50", "of the seeds", "CPU s"],
        rows,
    )


if __name__ == "__main__":
    main()
