"""Exponential moving average of a network's weights, with BatchNorm statistics of its own."""

from collections import deque
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from fulgurite.probes.record import bare

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
MOST_IMAGES = 512  # that BatchNorm statistics are measured on


class WeightAverage(pl.Callback):
    """Keeps a moving average of the weights, and validates, saves and tests the network with it.

    After each step the average is `decay` of itself and the rest of the weights; less in the first steps, so
    that it forgets the initial weights. From the last batch of an epoch to the first of the next, and during
    validation, the network has the averaged weights: metrics, probes, checkpoints and the test use them.
    Training continues with the raw weights, bit for bit as without the average; a checkpoint holds both, so
    that a resumed run ends as one that was not interrupted.

    The statistics of BatchNorm are not averaged: they are measured with the averaged weights, on the last
    training images of the epoch, adversarial ones included. Several processes each measure on their own
    images, and take the mean.

    Against robust overfitting: Rebuffi et al. 2021, arxiv.org/abs/2103.01946; with statistics measured again,
    Izmailov et al. 2018, arxiv.org/abs/1803.05407.

    Args:
        decay: the share of the average that stays at each step, at least 0 and below 1.
    """

    def __init__(self, decay: float = 0.995):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}; wanted the share of the average that stays, from 0 to below 1")
        self.decay, self.steps, self.shown = decay, 0, False
        self._other = dict[str, Tensor]()  # the average during training; else the weights that learn
        self._seen, self._counted = deque[Tensor](), 0
        self._norms, self._hook = list[str](), None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the images that the network is trained on, if it has BatchNorm."""
        network = _network(pl_module)
        if any(isinstance(part, BatchNorm) for part in bare(network).modules()):
            self._hook = network.register_forward_pre_hook(self._remember)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Statistics are of this epoch's images, as in a run that begins with it."""
        self._seen.clear()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Train on with the weights themselves."""
        network = bare(_network(pl_module))
        if self.shown:
            self._exchange(network)
        if not self._other:
            self._other = {name: own.clone() for name, own in _tensors(network).items()}
        self._norms = [
            path
            for path, part in network.named_modules()
            if isinstance(part, BatchNorm) and part.training and part.track_running_stats
        ]
        self._counted = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average towards the weights, where a step was made; show it after the last batch."""
        if trainer.global_step > self._counted:
            self._follow(bare(_network(pl_module)))
        if trainer.is_last_batch:
            self._show(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._show(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the average, also where the last batch was not known to be the last."""
        self._show(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The network keeps the average."""
        self._forget()

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        exception: BaseException,
    ) -> None:
        """Watch no more."""
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """The weights that are not in the network: the raw ones, at the end of an epoch."""
        return {"steps": self.steps, "shown": self.shown, "other": dict(self._other)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.shown = state_dict["steps"], state_dict["shown"]
        self._other = dict(state_dict["other"])

    def _remember(self, network: nn.Module, inputs: tuple) -> None:
        learning = any(parameter.requires_grad for parameter in network.parameters())  # else it is attacked
        if network.training and learning and torch.is_grad_enabled() and isinstance(inputs[0], Tensor):
            self._seen.append(inputs[0].detach())
            while sum(map(len, self._seen)) - len(self._seen[0]) >= MOST_IMAGES:
                self._seen.popleft()

    @torch.no_grad()
    def _follow(self, network: nn.Module) -> None:
        # in the first steps it keeps less of itself: it would be an average of random weights
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        learnt = {name for name, own in network.named_parameters() if own.is_floating_point()}
        for name, own in _tensors(network).items():
            average = self._other[name] = self._other[name].to(own.device)
            if name in learnt:
                average.lerp_(own, 1 - kept)
            else:
                average.copy_(own)

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.shown or not self._other:
            return
        network = bare(_network(pl_module))
        self._exchange(network)
        parts = dict(network.named_modules())
        norms = [part for path in self._norms if isinstance(part := parts[path], BatchNorm)]
        if norms and self._seen:
            _measure(network, norms, list(self._seen))
            for norm in norms:
                for statistic in (norm.running_mean, norm.running_var):
                    assert statistic is not None
                    mean = trainer.strategy.reduce(statistic, reduce_op="mean")
                    assert isinstance(mean, Tensor)
                    statistic.copy_(mean)

    @torch.no_grad()
    def _exchange(self, network: nn.Module) -> None:
        self.shown = not self.shown
        for name, own in _tensors(network).items():
            before = own.clone()
            own.copy_(self._other[name])
            self._other[name] = before

    def _forget(self) -> None:
        self._seen.clear()
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


@torch.no_grad()
def _measure(network: nn.Module, norms: list[BatchNorm], batches: list[Tensor]) -> None:
    """Running statistics as the mean over batches; all else in eval mode.

    `SyncBatchNorm` too counts this process's own images: it would wait for as many batches of the others.
    """
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    try:
        for module in modes:
            module.training = False
        for norm in norms:
            norm.training, norm.momentum = True, None
            norm.reset_running_stats()
            if isinstance(norm, nn.SyncBatchNorm):
                norm.forward = partial(nn.BatchNorm2d.forward, norm)  # pyright: ignore[reportArgumentType]
        for images in batches:
            if len(images) > 1:
                network(images)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if isinstance(norm, nn.SyncBatchNorm):
                del norm.forward


def _network(pl_module: pl.LightningModule) -> nn.Module:
    return getattr(pl_module, "network_to_probe", pl_module)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that are saved, by name, detached."""
    return {name: value.detach() for name, value in network.state_dict().items() if isinstance(value, Tensor)}
