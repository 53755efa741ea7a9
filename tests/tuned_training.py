"""A training by a table of learning rates, which records its states, rates and gradients."""

import lightning.pytorch as pl
import somebody
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, OneCycleLR, SequentialLR
from torch.utils.data import DataLoader, Sampler

from fulgurite.models.classifier import warm_cosine
from fulgurite.models.finetuning import Finetuning

EPOCHS, STEPS, LR = 4, 3, 0.05
GRADUAL = [
    (0, {"stem|layer": None, "head": 1.0}),
    (1, {"stem|layer1": None, "layer2": 0.4, "head": 1.0}),
    (3, {"stem": 0.1, "layer1": 0.2, "layer2": 0.4, "head": 0.5}),
]


class Small(nn.Module):
    """Three stages and a head, with norms and dropout; the norms of one stage lie among its convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(4, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(6 * 4, 3)

    def forward(self, images):
        return self.head(self.layer2(self.layer1(self.stem(images))).flatten(1))


class Tuned(pl.LightningModule):
    """What anybody has to write, and a diary."""

    def __init__(self, table, *, network=None, optimizer="adamw", schedule=None, held=True):
        super().__init__()
        torch.manual_seed(0)
        self.network = Small() if network is None else network
        self.finetuning = Finetuning(self.network, table)
        self.optimizer, self.schedule, self.held = optimizer, schedule, held
        self.rates, self.states, self.grads = [], [], []

    def configure_optimizers(self):
        groups = self.finetuning.groups(LR, weight_decay=0.1)
        if self.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups)
        else:
            optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
        if self.schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"},
        }

    def configure_callbacks(self):
        return [self.finetuning]

    def train(self, mode=True):
        super().train(mode)
        if self.held:
            self.finetuning.hold()
        return self

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, _):
        torch.manual_seed(self.global_step)  # dropout's draws
        self.rates.append([group["lr"] for group in self.optimizers().param_groups])
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch, _):
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self(images), labels), sync_dist=True)

    def on_before_optimizer_step(self, _):
        self.grads.append({name for name, own in self.network.named_parameters() if own.grad is not None})

    def on_train_epoch_end(self):
        self.states.append(state(self.network))


class Seeded(Sampler):
    """Another order each epoch, and the same one in each run."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(24, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self):
        return 24


def state(network):
    return {name: own.detach().clone() for name, own in network.state_dict().items()}


def changed(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


def fitted(folder, model, *callbacks, checkpoint=None, **options):
    trainer = quiet(folder, *callbacks, **options)
    loader = DataLoader(somebody.Blobs(24), batch_size=8, sampler=Seeded())
    trainer.fit(model, loader, somebody.loader(8), ckpt_path=checkpoint)
    return trainer


def quiet(folder, *callbacks, **options):
    keeps = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    defaults = {"max_epochs": EPOCHS, "enable_checkpointing": keeps, "logger": False}
    return somebody.quiet(folder, *callbacks, **{**defaults, **options})


def every_epoch(folder):
    return ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)


SCHEDULERS = {
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: warm_cosine(step, EPOCHS * STEPS)),
    "onecycle": lambda optimizer: OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=EPOCHS * STEPS
    ),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, EPOCHS * STEPS),
    "sequence": lambda optimizer: SequentialLR(
        optimizer,
        [LinearLR(optimizer, 0.1, total_iters=4), CosineAnnealingLR(optimizer, EPOCHS * STEPS - 4)],
        [4],
    ),
}


def reported(schedule):
    return [(epoch, [*table.values()]) for epoch, table in schedule]
