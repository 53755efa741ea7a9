"""Trains robustly in as many processes as asked, on the same images; the test next to it starts it."""

import os
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from fulgurite.callbacks.weight_average import WeightAverage
from fulgurite.models import losses
from fulgurite.models.classifier import Classifier
from fulgurite.models.free_training import Free
from fulgurite.models.losses import Adversarial, Fast, Growing, Trades
from fulgurite.models.weight_perturbation import WeightPerturbed
from fulgurite.probes.attacks.threat import Linf

THREAT = Linf(0.1)


def _each_image_by_itself(attack):
    """Draws of an image that depend on it alone: two processes have other batches than one."""
    return lambda *given, generator, **how: attack(*given, **how)


class InOrder(pl.LightningDataModule):
    """Batches that together are the same images in the same order, however many processes share them."""

    def __init__(self, data: TensorDataset):
        super().__init__()
        self.data = data

    def train_dataloader(self) -> DataLoader:
        ranks = self.trainer.world_size
        mine = range(self.trainer.global_rank, len(self.data), ranks)
        return DataLoader(Subset(self.data, mine), 8 // ranks)

    val_dataloader = train_dataloader


class All:
    """Every robust loss at once."""

    def __init__(self, *losses: Growing):
        self.losses, self.warmup = losses, losses[0].warmup

    def at(self, progress: float) -> "All":
        return All(*(loss.at(progress) for loss in self.losses))

    def __call__(self, network, images, labels):
        return sum(loss(network, images, labels) for loss in self.losses)


def network(*, norm: bool) -> nn.Module:
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(4) if norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), middle, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def trained(
    loss, processes: int, *, norm: bool = False, epochs: int = 1, **options
) -> dict[str, torch.Tensor]:
    """What the module holds in the end, and what was validated."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % 3
    images = torch.rand(48, 1, 6, 6, generator=generator)
    images[torch.arange(48), 0, labels] += 0.5
    model = Classifier(network(norm=norm), classes=3, loss=loss, lr=0.01, threat=THREAT)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(model, InOrder(TensorDataset(images.clamp(0, 1), labels)))
    found = {
        name: value.detach().clone() for name, value in trainer.callback_metrics.items() if "val/" in name
    }
    return model.state_dict() | found


def main(folder: Path, processes: int) -> None:
    losses.pgd, losses.fgsm = _each_image_by_itself(losses.pgd), _each_image_by_itself(losses.fgsm)
    how = {"warmup": 0.5}
    every = All(Adversarial(THREAT, steps=3, **how), Trades(THREAT, steps=3, **how), Fast(THREAT, **how))
    found = {
        "every": trained(every, processes, epochs=3),
        "free": trained(Free(THREAT, replays=2), processes, callbacks=[WeightAverage(0.5)]),
    }
    perturbed, average = WeightPerturbed(Adversarial(THREAT, steps=3), 0.05), WeightAverage(0.5)
    # statistics are of a process's own images: it learns something else than one alone
    found["perturbed"] = trained(perturbed, processes, norm=True, callbacks=[average])
    found["perturbed, learning"] = average.state_dict()["other"]
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(found, folder / f"{os.environ.get('LOCAL_RANK', '0')}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
