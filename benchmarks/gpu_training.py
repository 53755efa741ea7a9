"""An epoch of CIFAR-10's size with our classes, and with plain loops that keep the data on the device.

Run by `python -m benchmarks.gpu`. The images are noise: accuracy does not matter here. Both sides train a
ResNet-18 with a 3 x 3 stem by SGD in bfloat16, on the same crops and mirror images of the same bytes.
"""

import logging
import tempfile
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import disable_possible_user_warnings
from torch import Tensor, nn
from torchvision.transforms import v2

from fulgurite.data.augment import cropped, flipped
from fulgurite.data.datasets import InMemory
from fulgurite.data.image_data_module import ImageData
from fulgurite.models.classifier import Classifier
from fulgurite.models.losses import Fast, Loss, Plain
from fulgurite.models.networks import build
from fulgurite.probes.attacks.gradient_pass import GradientPass
from fulgurite.probes.attacks.threat import Linf
from fulgurite.recipes.recipe import standard_probes

CLASSES = tuple("0123456789")
THREAT = Linf("8/255")
BATCH = 512


class Noise(ImageData):
    """Random images of CIFAR-10's size, `count` to train on and a tenth of them to validate."""

    channels, size, mean, std, classes = 3, 32, (0.5,) * 3, (0.25,) * 3, CLASSES

    def __init__(self, count: int, *, batch_size: int = BATCH):
        super().__init__(batch_size=batch_size)
        generator = torch.Generator().manual_seed(0)
        self.bytes = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        self.numbers = torch.randint(10, (count,), generator=generator)

    def parts(self) -> tuple[InMemory, InMemory, InMemory]:
        change = v2.Compose([partial(cropped, padding=4), flipped])
        few = max(10, len(self.bytes) // 10)
        train = InMemory(self.bytes, self.numbers, CLASSES, augment=change)
        val = InMemory(self.bytes[:few], self.numbers[:few], CLASSES)
        return train, val, val


class Clock(pl.Callback):
    """Seconds of each epoch's training steps, and of all else."""

    def __init__(self, device: torch.device):
        self.device, self.epochs = device, list[float]()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = self.now()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append(self.now() - self.began)


def ours(
    device: torch.device, count: int, loss: Loss, probes: list[Any], epochs: int, name: str
) -> tuple[float, float]:
    """Seconds of the fastest epoch without validation, and of the whole run."""
    torch.manual_seed(0)
    data = Noise(count)
    model = Classifier(build(name, classes=10), classes=10, loss=loss, optimizer="sgd", lr=0.1)
    clock = Clock(device)
    started = perf_counter()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator=device.type,
        devices=1,
        precision="bf16-mixed",
        logger=TensorBoardLogger(tempfile.mkdtemp()) if probes else False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=None if probes else 0,
        callbacks=[clock, *probes],
    )
    trainer.fit(model, data)
    clock.now()
    return min(clock.epochs), perf_counter() - started


def by_hand(
    device: torch.device,
    count: int,
    step: Callable[[nn.Module, Tensor, Tensor], Tensor],
    epochs: int,
    name: str,
) -> float:
    """Seconds of the fastest epoch of a loop with everything on the device."""
    torch.manual_seed(0)
    data = Noise(count)
    images, labels = data.bytes.to(device), data.numbers.to(device)
    network = build(name, classes=10).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True, fused=device.type == "cuda"
    )
    seconds = []
    for _ in range(epochs):
        started = Clock(device).now()
        for rows in torch.randperm(count, device=device).split(BATCH):
            batch = flipped(cropped(images[rows].float() / 255, padding=4))
            with torch.autocast(device.type, torch.bfloat16):
                loss = step(network, batch.contiguous(memory_format=torch.channels_last), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(Clock(device).now() - started)
    return min(seconds)


def plain_step(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(network(images), labels)


def fast_step(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """FGSM of 1.25 radii from a random start, in eval mode, and the loss of what it found."""
    epsilon = THREAT.epsilon
    network.eval()
    moved = (images + (2 * torch.rand_like(images) - 1) * epsilon).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(moved), labels), moved)
    stepped = moved.detach() + 1.25 * epsilon * gradient.sign()
    moved = torch.minimum(torch.maximum(stepped, images - epsilon), images + epsilon).clamp(0, 1)
    network.train()
    return F.cross_entropy(network(moved), labels)


def training_rows(device: torch.device, *, quick: bool) -> list[list]:
    """A line for each: seconds, and times the loop by hand."""
    disable_possible_user_warnings()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    count, epochs, long, name = (96, 2, 2, "small_vgg") if quick else (50_000, 2, 4, "resnet18_3x3")
    bf16 = GradientPass(channels_last=True, dtype=torch.bfloat16, compiled=True)
    rows = []
    for what, loss, step in (
        ("plain", Plain(), plain_step),
        ("Fast", Fast(THREAT, gradient_pass=bf16), fast_step),
    ):
        hand = by_hand(device, count, step, epochs, name)
        mine, _ = ours(device, count, loss, [], epochs, name)
        rows += [
            [f"{what}, ResNet-18, an epoch", "by hand", hand, 1.0],
            [f"{what}, ResNet-18, an epoch", "ours", mine, mine / hand],
        ]
    _, without = ours(device, count, Plain(), [], long, name)
    _, watched = ours(device, count, Plain(), list(standard_probes(every=1, budget=0.1)), long, name)
    what = f"{long} epochs, all default probes"
    return [
        *rows,
        [what, "without them", without, without / without],
        [what, "with them", watched, watched / without],
    ]
