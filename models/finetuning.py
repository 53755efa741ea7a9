"""Fine-tuning schedules: learning rates and frozen parts by patterns of parameter names and by epoch."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.optim import Optimizer

from fulgurite.models.stages import parameters_of, title_of
from fulgurite.probes.record import bare, layers_of, nearest

Table = Mapping[str, float | None]
"""Pattern to factor of the learning rate; None freezes.

A pattern is a regular expression that matches the beginning of a parameter's name: "layer1" matches all
parameters in `layer1`. The first pattern that matches a name counts.
"""
Schedule = Sequence[tuple[int, Table]]
"""Tables, each with the epoch from which it counts; the first one's is 0."""


def pace(
    network: nn.Module, lr: float, table: Table | Schedule, *, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: `lr` times the factor of the first pattern that fits a name.

    Every parameter is in a group from the first step, also a frozen one, so that the number of groups never
    changes; `Finetuning` keeps frozen ones unchanged. A pattern has two groups: with weight decay, and
    without (norms and biases: one number per channel). Under a schedule, a group has the parameters that
    match the same patterns in all tables.

    Besides the keys of the optimiser, a group has its `name`; whether it is `frozen`; its `phase`, the number
    of the current table; and the `factor` of its learning rate. For a frozen group, that is the factor it
    will have later, or 0 if it stays frozen.

    Raises:
        ValueError: a parameter fits no pattern, a pattern gets no parameter, or nothing would learn.
    """
    return [
        {
            "params": group.parameters,
            "name": group.name,
            "lr": lr * group.factor(0),
            "weight_decay": 0.0 if group.spared else weight_decay,
            "factor": group.factor(0),
            "frozen": group.paces[0] is None,
            "phase": 0,
        }
        for group in _grouped(network, _checked(table))
    ]


def frozen_by(network: nn.Module, table: Table) -> tuple[list[nn.Parameter], list[nn.Module]]:
    """The parameters that a table freezes, and the modules that it keeps in eval mode.

    Those are modules all of whose parameters are frozen; and among those without any (dropout, norms without
    weights) such as lie where a frozen pattern fits.
    """
    fits = _fits(network, table)
    parameters = [own for name, own in parameters_of(network).items() if table[fits[name]] is None]
    frozen = {id(parameter) for parameter in parameters}
    modules = []
    for path, module in layers_of(network).items():
        own = [id(parameter) for parameter in module.parameters()]
        pattern = _first(table, f"{path}.")
        if frozen.issuperset(own) if own else pattern is not None and table[pattern] is None:
            modules.append(module)
    return parameters, modules


class Finetuning(pl.Callback):
    """Freezes weights and normalisation statistics by a table; follows a schedule of tables.

    A LightningModule creates one for its network and returns it:

        def configure_optimizers(self):
            return torch.optim.AdamW(self.finetuning.groups(1e-3, weight_decay=0.01))

        def configure_callbacks(self):
            return [self.finetuning]

        def train(self, mode=True):
            super().train(mode)
            self.finetuning.hold()
            return self

    A checkpoint holds the number of the table in force, in the optimiser's groups; it determines what learns
    and what is in eval mode. Where the next table has another factor for a group, its learning rate is
    rescaled at the change, in the optimiser and in the schedulers.

    On one device, frozen parameters require no gradient, so that the backward pass ends above them. Under DDP
    they have one, which is removed before each step. DDP fixes which gradients it averages when it wraps the
    module: parameters that are unfrozen later would otherwise diverge between processes, and DDP would wait
    for missing gradients.

    Args:
        network: the tables apply to it; other parameters of the module are not changed.
        table: factors by pattern; or a schedule of tables.

    Raises:
        ValueError: a parameter fits no pattern, a pattern gets no parameter, or nothing would learn.
    """

    def __init__(self, network: nn.Module, table: Table | Schedule):
        self.network, self.schedule, self.phase = bare(network), _checked(table), 0
        self._groups = {group.name: group for group in _grouped(self.network, self.schedule)}
        self._frozen_modules = frozen_by(self.network, self.schedule[0][1])[1]

    def groups(self, lr: float, *, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """The optimiser's groups, see `pace`."""
        return pace(self.network, lr, self.schedule, weight_decay=weight_decay)

    def hold(self) -> None:
        """Put frozen modules back in eval mode, after a `train()`."""
        for module in self._frozen_modules:
            module.training = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """All parameters require a gradient when DDP wraps the module, even after an earlier training."""
        if stage != "fit":
            return
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            kind = type(trainer.strategy).__name__
            raise ValueError(f'fine-tuning runs on one device or with strategy="ddp", not with {kind}')
        self.network.requires_grad_(True)
        self._release(self._frozen_modules)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Freeze by the first table, or by the one that was in force when a checkpoint was written."""
        groups = _groups_of(trainer.optimizers)
        names, phases = [group["name"] for group in groups], {group["phase"] for group in groups}
        if sorted(names) != sorted(self._groups) or not phases.issubset(range(len(self.schedule))):
            raise ValueError(
                f"the optimiser's groups ({', '.join(names) or 'none with a phase'}) are not the tables' "
                f"({', '.join(self._groups)}); make it of `Finetuning.groups`, and resume a run with the "
                "strategy that it began with"
            )
        self._enter_phase(trainer, max(phases))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Switch to the table of this epoch."""
        self._enter_phase(trainer, sum(epoch <= trainer.current_epoch for epoch, _ in self.schedule) - 1)

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Restore eval mode, in case `train()` was called on a part of the network."""
        self.hold()

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        optimizer: Optimizer,
    ) -> None:
        """Without a gradient, neither momentum nor weight decay changes a parameter."""
        for group in _groups_of([optimizer]):
            if group["frozen"]:
                for parameter in group["params"]:
                    parameter.grad = None

    def _enter_phase(self, trainer: pl.Trainer, phase: int) -> None:
        before = self._frozen_modules
        parameters, self._frozen_modules = frozen_by(self.network, self.schedule[phase][1])
        self.phase = phase
        self._release(before)
        self.hold()
        self.network.requires_grad_(True)
        if isinstance(trainer.strategy, SingleDeviceStrategy):
            for parameter in parameters:
                parameter.requires_grad_(False)
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        for group in _groups_of(trainer.optimizers):
            own = self._groups[group["name"]]
            group["phase"], group["frozen"] = phase, own.paces[phase] is None
            _rescale(group, own.factor(phase), schedulers)

    def _release(self, modules: Sequence[nn.Module]) -> None:
        for module in modules:
            module.training = self.network.training


def _checked(table: Table | Schedule) -> Schedule:
    schedule = [(0, table)] if isinstance(table, Mapping) else list(table)
    epochs = [epoch for epoch, _ in schedule]
    if not epochs or epochs[0] != 0 or any(later <= sooner for sooner, later in pairwise(epochs)):
        raise ValueError(f"a schedule goes from epoch 0 to later and later ones, not by {epochs}")
    for _, part in schedule:
        for pattern, factor in part.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from None
            if factor is not None and not 0 < factor < math.inf:
                raise ValueError(f"factor {factor} for {pattern!r}; wanted one above 0, or None to freeze")
        if all(factor is None for factor in part.values()):
            raise ValueError("nothing would learn: no pattern has a factor; give the head one, such as 1.0")
    return schedule


def _first(table: Table, name: str) -> str | None:
    return next((pattern for pattern in table if re.match(pattern, name)), None)


def _fits(network: nn.Module, table: Table) -> dict[str, str]:
    """The pattern of each parameter, by name."""
    fits = {name: _first(table, name) for name in parameters_of(network)}
    if lost := [name for name, pattern in fits.items() if pattern is None]:
        part = lost[0].partition(".")[0]
        raise ValueError(f"no pattern fits {_listed(lost)}; add {part!r}, or '' at the end for all the rest")
    for pattern in table:
        if pattern not in fits.values():
            matching = [name for name in fits if re.match(pattern, name)]
            remedy = (
                f"{fits[matching[0]]!r} takes {_listed(matching)} before it; put {pattern!r} first"
                if matching
                else nearest(pattern, [*layers_of(network), *fits])
            )
            raise ValueError(f"pattern {pattern!r} gets no parameter; {remedy}")
    return {name: pattern for name, pattern in fits.items() if pattern is not None}


class _Group(NamedTuple):
    name: str
    parameters: list[nn.Parameter]
    spared: bool
    paces: Sequence[float | None]

    def factor(self, phase: int) -> float:
        """The factor of the phase; while frozen, the next one, or else the last, or 0."""
        later = [own for own in self.paces[phase:] if own is not None]
        sooner = [own for own in self.paces[:phase] if own is not None]
        return [*later[:1], *sooner[-1:], 0.0][0]


def _grouped(network: nn.Module, schedule: Schedule) -> list[_Group]:
    """The groups in the order of the tables' patterns."""
    tables = [table for _, table in schedule]
    fits = [_fits(network, table) for table in tables]
    members: dict[tuple[tuple[str, ...], bool], list[nn.Parameter]] = {}
    for name, parameter in parameters_of(network).items():
        spared = parameter.dim() == 0 or parameter.numel() == len(parameter)
        members.setdefault((tuple(own[name] for own in fits), spared), []).append(parameter)
    order = [[*table].index for table in tables]
    keys = sorted(members, key=lambda key: ([at(own) for at, own in zip(order, key[0], strict=True)], key[1]))
    titles = {key: " & ".join(dict.fromkeys(title_of(pattern) for pattern in key[0])) for key in keys}
    groups = []
    for key in keys:
        patterns, spared = key
        same_title = {other[0] for other in keys if titles[other] == titles[key]}
        title = titles[key] if len(same_title) == 1 else " & ".join(patterns)
        paces = [table[pattern] for table, pattern in zip(tables, patterns, strict=True)]
        groups.append(_Group(title + " spared" * spared, members[key], spared, paces))
    return groups


def _rescale(group: dict[str, Any], factor: float, schedulers: Sequence[Any]) -> None:
    if factor == group["factor"]:
        return
    if not (group["factor"] and factor):
        raise ValueError(
            f"{group['name']!r} has the factor {factor}, and {group['factor']} in the run that is resumed; "
            "resume it with the strategy that it began with"
        )
    ratio, group["factor"] = factor / group["factor"], factor
    for key in group.keys() & {"lr", "initial_lr", "max_lr", "min_lr"}:
        group[key] = group[key] * ratio
    for scheduler in _all(schedulers):
        for place, other in enumerate(scheduler.optimizer.param_groups):
            for rates in [getattr(scheduler, key, None) for key in ("base_lrs", "max_lrs")]:
                if other is group and rates:
                    rates[place] = rates[place] * ratio


def _all(schedulers: Sequence[Any]) -> Iterator[Any]:
    """Those within others too."""
    for scheduler in schedulers:
        yield scheduler
        yield from _all(getattr(scheduler, "_schedulers", []))


def _groups_of(optimizers: Sequence[Optimizer]) -> list[dict[str, Any]]:
    return [group for optimizer in optimizers for group in optimizer.param_groups if "phase" in group]


def _listed(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
