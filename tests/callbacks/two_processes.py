"""Trains and probes in as many processes as asked; the test beside it starts it, as Lightning its ranks."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.loggers import TensorBoardLogger

sys.path.insert(0, str(Path(__file__).parents[1]))
import somebody

from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.embeddings import Embeddings
from fulgurite.callbacks.filters import Filters
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.saliency import Saliency

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


class FailsOnTheSecond(ProbeCallback):
    """Fails on the second process only; or brings something there that cannot travel."""

    def __init__(self, how: str, **schedule):
        super().__init__(**schedule)
        self.how = how

    def subjects(self, network, sample) -> Sequence[str]:
        return ["first", "second"]

    def observe(self, network, sample, subjects):
        if "second" not in subjects:
            return {}
        if self.how == "unpicklable":
            return {"second": lambda: 0}
        raise KeyError("on the second")


def probes(how: str) -> list[ProbeCallback]:
    if how in ("raise", "warn", "unpicklable"):
        return [FailsOnTheSecond(how, on_error="raise" if how == "raise" else "warn", **SCALE)]
    if how == "none":
        return []
    kinds = (Filters, Saliency, Embeddings, Metrics)
    return [
        *(kind(on_error="raise", **SCALE) for kind in kinds),
        ClassImages(steps=16, precise=True, on_error="raise", **SCALE),
    ]


def main(folder: Path, how: str, processes: int) -> None:
    torch.manual_seed(0)
    model = somebody.Theirs()
    strategy = {"strategy": "ddp", "devices": processes} if processes > 1 else {"devices": 1}
    trainer = somebody.quiet(folder, *probes(how), **strategy)
    trainer.fit(model, somebody.loader(shuffle=True), somebody.loader(300))
    if trainer.is_global_zero:
        torch.save(model.state_dict(), folder / "weights.pt")
        print("came to the end")


def again(folder: Path, weights: Path) -> None:
    """Look at trained weights in one process."""
    model = somebody.Theirs()
    model.load_state_dict(torch.load(weights, weights_only=True))
    trainer = somebody.quiet(folder, *probes("all"), logger=TensorBoardLogger(folder, name="", version=""))
    trainer.validate(model, somebody.loader(300), verbose=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
