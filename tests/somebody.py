"""A user's training: a LightningModule and data that do not use this package."""

from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def quiet(folder: Path, *callbacks: pl.Callback, **options) -> pl.Trainer:
    """A trainer that writes to `folder` and prints nothing."""
    options = {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1, **options}
    silent = {"enable_progress_bar": False, "enable_model_summary": False}
    logger = TensorBoardLogger(folder, name="", version="")
    return pl.Trainer(
        **{"logger": logger, "enable_checkpointing": False, **silent, **options}, callbacks=list(callbacks)
    )


class Blobs(Dataset):
    """Coloured images, one colour a class, normalised, with augmentation if asked; tuples, lists or dicts."""

    classes = ("red", "green", "blue")

    def __init__(self, count: int = 24, *, form: str = "tuple", augment: bool = False, size: int = 12):
        generator = torch.Generator().manual_seed(count)
        self.labels = torch.arange(count) % 3
        self.images = torch.rand(count, 3, size, size, generator=generator) / 2
        self.images[torch.arange(count), self.labels] += 0.4
        self.form, self.augment = form, augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        image = self.images[index]
        if self.augment:
            image = (image + 0.1 * torch.rand_like(image)).clamp(0, 1)
        image = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        label = int(self.labels[index])
        return {
            "tuple": (image, label),
            "list": [image, label],
            "dict": {"pixel_values": image, "label": label},
        }[self.form]


def loader(count: int = 24, *, form: str = "tuple", shuffle: bool = False, **options) -> DataLoader:
    """Batches of eight."""
    return DataLoader(Blobs(count, form=form, **options), batch_size=8, shuffle=shuffle)


class Theirs(pl.LightningModule):
    """Convolution, BatchNorm, dropout and a linear layer, used in their own way."""

    def __init__(self, *, frozen: bool = False):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.3)
        )
        self.head = nn.Linear(6 * 25, 3)
        self.losses: list[Tensor] = []
        self.frozen = frozen
        if frozen:
            self.features.requires_grad_(False)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.frozen:
            self.features.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).flatten(1))

    def training_step(self, batch, _):
        images, labels = batch.values() if isinstance(batch, dict) else batch
        loss = F.cross_entropy(self(images), labels)
        self.log("loss", loss)
        self.losses.append(loss.detach().clone())
        return loss

    def validation_step(self, batch, _):
        images, labels = batch.values() if isinstance(batch, dict) else batch
        self.log("val_loss", F.cross_entropy(self(images), labels), batch_size=len(labels))

    def configure_optimizers(self):
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], 0.01)


def images(events: Path) -> dict[tuple[str, int], Tensor]:
    """Every picture in a run's events, by tag and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from fulgurite.probes.render import decoded

    run = EventAccumulator(str(events), size_guidance={"images": 0})
    run.Reload()
    return {
        (tag, event.step): decoded(event.encoded_image_string)
        for tag in run.Tags()["images"]
        for event in run.Images(tag)
    }


def scalars(events: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar in a run's events, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = EventAccumulator(str(events), size_guidance={"scalars": 0})
    run.Reload()
    return {tag: [(event.step, event.value) for event in run.Scalars(tag)] for tag in run.Tags()["scalars"]}


def same(one: object, other: object) -> bool:
    """Bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def checkpoint(run: Path, which: str = "last") -> dict:
    """The content of a run's checkpoint, without the paths and sizes of files."""
    found = torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)
    for state in found["callbacks"].values():
        for place in ("events", "dirpath"):
            state.pop(place, None)
    return found


def fit(folder: Path, *probes: pl.Callback, data=None, **options) -> pl.Trainer:
    """A quiet trainer that has trained, with `data` to validate on."""
    trainer = quiet(folder, *probes, **options)
    trainer.fit(Theirs(), loader(), loader(9) if data is None else data)
    return trainer
