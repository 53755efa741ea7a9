"""Fine-tuning as tables of patterns: which parts of a network learn, how fast, and from which epoch on."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, Literal, NamedTuple, get_args

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.optim import Optimizer

from fulgurite.models.weights import ends
from fulgurite.probes.borrow import borrowed
from fulgurite.probes.record import bare, layers_of, nearest, record

Table = Mapping[str, float | None]
"""Pattern to factor of the learning rate; None freezes.

A pattern is a regular expression that fits the beginning of a parameter's name: "layer1" fits whatever lies
in `layer1`. The first pattern that fits a name counts.
"""
Schedule = Sequence[tuple[int, Table]]
"""Tables, each with the epoch from which it counts; the first one's is 0."""
Strategy = Literal["linear", "last", "layerwise", "gradual", "full", "scratch"]

_LAYERS = nn.Conv2d | nn.Linear


def pace(
    network: nn.Module, lr: float, table: Table | Schedule, *, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: `lr` times the factor of the first pattern that fits a name.

    Every parameter is in one from the first step, a frozen one too, so that the number of groups never
    changes; `Finetuning` sees to it that frozen ones do not move. A pattern has two: weights, and what weight
    decay spares (norms and biases: one number per channel). Under a schedule, a group is what goes the same
    way in all tables.

    Beside what an optimiser reads, a group holds its `name`; whether it is `frozen`; its `phase`, the number
    of the table that it goes by; and the `factor` in its learning rate. Frozen, that is the factor with which
    it will learn, or 0 if it never will.

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
    parameters = [own for name, own in _named(network).items() if table[fits[name]] is None]
    frozen = {id(parameter) for parameter in parameters}
    modules = []
    for path, module in layers_of(network).items():
        own = [id(parameter) for parameter in module.parameters()]
        pattern = _first(table, f"{path}.")
        if frozen.issuperset(own) if own else pattern is not None and table[pattern] is None:
            modules.append(module)
    return parameters, modules


class Finetuning(pl.Callback):
    """Keeps still what a table freezes, weights and normalisation statistics; follows a schedule of tables.

    A LightningModule makes one of its network and brings it along:

        def configure_optimizers(self):
            return torch.optim.AdamW(self.finetuning.groups(1e-3, weight_decay=0.01))

        def configure_callbacks(self):
            return [self.finetuning]

        def train(self, mode=True):
            super().train(mode)
            self.finetuning.hold()
            return self

    A checkpoint holds the number of the table in force, in the optimiser's groups; what learns and what is in
    eval mode follows from it. Where the next table has another factor for a group, its learning rate is
    multiplied at the turn, in the optimiser and in the schedulers.

    On one device, what is frozen needs no gradient, so that the backward pass ends above it. Under DDP it has
    one and loses it before each step. For DDP notes once, as it wraps the module, whose gradients it will
    average: what thaws later would learn something else in each process, and what it waits for in vain stops
    the run.

    Args:
        network: what the tables are about; other parameters of the module are left alone.
        table: what learns how fast; or a schedule of that.

    Raises:
        ValueError: a parameter fits no pattern, a pattern gets no parameter, or nothing would learn.
    """

    def __init__(self, network: nn.Module, table: Table | Schedule):
        self.network, self.schedule, self.phase = bare(network), _checked(table), 0
        self._groups = {group.name: group for group in _grouped(self.network, self.schedule)}
        self._held = frozen_by(self.network, self.schedule[0][1])[1]

    def groups(self, lr: float, *, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """The optimiser's groups, see `pace`."""
        return pace(self.network, lr, self.schedule, weight_decay=weight_decay)

    def hold(self) -> None:
        """Put frozen modules back in eval mode, after a `train()`."""
        for module in self._held:
            module.training = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Everything needs a gradient as DDP wraps the module, whatever an earlier training has left."""
        if stage != "fit":
            return
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            kind = type(trainer.strategy).__name__
            raise ValueError(f'fine-tuning runs on one device or with strategy="ddp", not with {kind}')
        self.network.requires_grad_(True)
        self._release(self._held)

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
        self._turn(trainer, max(phases))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Go over to the table of this epoch."""
        self._turn(trainer, sum(epoch <= trainer.current_epoch for epoch, _ in self.schedule) - 1)

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Whoever has called `train()` on a part of the network in the meantime."""
        self.hold()

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        optimizer: Optimizer,
    ) -> None:
        """Neither momentum nor weight decay moves what has no gradient."""
        for group in _groups_of([optimizer]):
            if group["frozen"]:
                for parameter in group["params"]:
                    parameter.grad = None

    def _turn(self, trainer: pl.Trainer, phase: int) -> None:
        before = self._held
        parameters, self._held = frozen_by(self.network, self.schedule[phase][1])
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
                raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from None
            if factor is not None and not 0 < factor < math.inf:
                raise ValueError(f"factor {factor} for {pattern!r}; wanted one above 0, or None to freeze")
        if all(factor is None for factor in part.values()):
            raise ValueError("nothing would learn: no pattern has a factor; give the head one, such as 1.0")
    return schedule


def _named(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name.replace("_orig_mod.", ""): own for name, own in bare(network).named_parameters()}


def _first(table: Table, name: str) -> str | None:
    return next((pattern for pattern in table if re.match(pattern, name)), None)


def _fits(network: nn.Module, table: Table) -> dict[str, str]:
    """The pattern of each parameter, by name."""
    fits = {name: _first(table, name) for name in _named(network)}
    if lost := [name for name, pattern in fits.items() if pattern is None]:
        part = lost[0].partition(".")[0]
        raise ValueError(f"no pattern fits {_several(lost)}; add {part!r}, or '' at the end for all the rest")
    for pattern in table:
        if pattern not in fits.values():
            taken = [name for name in fits if re.match(pattern, name)]
            remedy = (
                f"{fits[taken[0]]!r} takes {_several(taken)} before it; put {pattern!r} first"
                if taken
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
        """That of the phase; while frozen, the next one, or else the last, or 0."""
        later = [own for own in self.paces[phase:] if own is not None]
        sooner = [own for own in self.paces[:phase] if own is not None]
        return [*later[:1], *sooner[-1:], 0.0][0]


def _grouped(network: nn.Module, schedule: Schedule) -> list[_Group]:
    """The groups in the order of the tables' patterns."""
    tables = [table for _, table in schedule]
    fits = [_fits(network, table) for table in tables]
    members: dict[tuple[tuple[str, ...], bool], list[nn.Parameter]] = {}
    for name, parameter in _named(network).items():
        spared = parameter.dim() == 0 or parameter.numel() == len(parameter)
        members.setdefault((tuple(own[name] for own in fits), spared), []).append(parameter)
    order = [[*table].index for table in tables]
    keys = sorted(members, key=lambda key: ([at(own) for at, own in zip(order, key[0], strict=True)], key[1]))
    titles = {key: " & ".join(dict.fromkeys(_title(pattern) for pattern in key[0])) for key in keys}
    groups = []
    for key in keys:
        patterns, spared = key
        alike = {other[0] for other in keys if titles[other] == titles[key]}
        title = titles[key] if len(alike) == 1 else " & ".join(patterns)
        paces = [table[pattern] for table, pattern in zip(tables, patterns, strict=True)]
        groups.append(_Group(title + " spared" * spared, members[key], spared, paces))
    return groups


def _title(pattern: str) -> str:
    """A pattern without what only a regular expression needs, and only the ends of a long list."""
    parts = re.sub(r"(\\\.|\$)(?=\||$)|\\", "", pattern).split("|")
    if len(parts) <= 3 or "(" in pattern:
        return "|".join(parts) or "the rest"
    return f"{parts[0]}..{parts[-1]}"


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


def _several(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class Stage(NamedTuple):
    """A part of a network that works at one scale, and the pattern that fits its parameters."""

    name: str
    pattern: str


def schedule_of(
    strategy: str,
    network: nn.Module,
    *,
    stages: int = 1,
    decay: float = 0.4,
    every: int = 1,
    shape: Sequence[int] | None = None,
) -> Schedule:
    """The tables of a strategy, for any network.

    - "linear": only the head learns.
    - "last": the head and the last `stages` stages before it.
    - "layerwise": all learn, each stage at `decay` times the rate of the next (Howard & Ruder 2018,
      arxiv.org/abs/1801.06146, take 1 / 2.6).
    - "gradual": so too, but the head alone at first, and one stage more after every so many epochs (`every`).
    - "full": all learn alike. "scratch" is the same, for a network with fresh weights.

    Raises:
        ValueError: an unknown strategy, or figures that do not suit the network.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"no strategy {strategy!r}; {nearest(strategy, get_args(Strategy))}")
    if not 0 < decay <= 1 or every < 1:
        raise ValueError(f"decay={decay}, every={every}; wanted a decay from 0 to 1, and 1 or more epochs")
    patterns = [stage.pattern for stage in stages_of(network, shape=shape)]
    head = len(patterns) - 1
    if strategy == "last" and not 1 <= stages <= head:
        raise ValueError(f"stages={stages}; this {type(network).__name__} has {head} before its head")
    # the first stage that learns, in each phase
    firsts = {"linear": [head], "last": [head - stages], "gradual": range(head, -1, -1)}.get(strategy, [0])
    ratio = decay if strategy in ("layerwise", "gradual") else 1.0
    return [
        (
            phase * every,
            {
                pattern: ratio ** (head - depth) if depth >= first else None
                for depth, pattern in enumerate(patterns)
            },
        )
        for phase, first in enumerate(firsts)
    ]


def stages_of(network: nn.Module, *, shape: Sequence[int] | None = None) -> list[Stage]:
    """The stages of a network by depth, from the stem to the head; every parameter is in exactly one.

    A stage is layers, or whole blocks of them, that follow one another without halving the area of their
    maps. A lone convolution ahead of the first block of its scale is a stage of its own. The head is the last
    layer (as timm says, elsewhere by definition), with all that a plain pass leaves out: auxiliary heads.

    The network is run once, without computing anything, on an image of `shape`: channels, height and width.
    Without it, that is what timm says, or 224 pixels square.

    Raises:
        ValueError: the network does not end in a layer, or cannot take such an image.
    """
    network = bare(network)
    names = _tensors(network)
    there = {path for name in names for path in _around(name)}
    heads = [head for head in ends(network)[1] if head in there]
    if not heads:
        raise ValueError(
            f"this {type(network).__name__} has no head: its last layer is no convolution or linear one"
        )
    parts = _Parts(network, _areas(network, _shape(network) if shape is None else shape), heads, there)
    stages, area, lone = [list[str]()], 0, True
    for _, path in sorted(parts.units, key=itemgetter(0)):
        if own := parts.areas(path):
            after_stem = len(stages) == 1 and lone and len(own) > 1
            if area and (2 * _put_out(own) <= area or after_stem):
                stages.append([])
                area = 0
            area, lone = area or _put_out(own), lone and len(own) == 1
        stages[-1].append(path)
    stages.append([*heads, *parts.unused])
    patterns = [_covering({*paths}, names) for paths in stages if paths]
    return [Stage(_title(pattern), pattern) for pattern in patterns]


def _tensors(network: nn.Module) -> list[str]:
    """What a table is about: the names of parameters, and of normalisation statistics."""
    layers = layers_of(network).items()
    statistics = [
        path for path, part in layers if isinstance(getattr(part, "running_mean", None), torch.Tensor)
    ]
    return [*_named(network), *(f"{path}.running_mean" for path in statistics)]


def _around(name: str) -> list[str]:
    """The name and whatever it lies in, from the network ("") inwards."""
    parts = name.split(".")
    return [*dict.fromkeys(["", *(".".join(parts[:depth]) for depth in range(1, len(parts) + 1))])]


def _shape(network: nn.Module) -> Sequence[int]:
    config = getattr(network, "pretrained_cfg", None) or {}
    channels, *sides = config.get("input_size") or (3, 224, 224)
    (stem, *_), _ = ends(network)
    seen = getattr(network.get_submodule(stem), "in_channels", channels)
    normalise = dict(network.named_buffers()).get("normalise.mean")
    if normalise is not None:
        seen = len(normalise)
    elif config and seen > 4:  # a stem that folds space into channels
        seen = channels
    return [seen, *sides]


def _areas(network: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """How many places each convolution or linear layer puts out, in the order of their calls."""
    layers = {path: part for path, part in layers_of(network).items() if isinstance(part, _LAYERS)}
    # on this device there are shapes and no values
    state = {name: own.to("meta") for name, own in [*network.named_parameters(), *network.named_buffers()]}
    image = torch.empty(1, *shape, device="meta")
    try:
        with borrowed(network) as same, record(same, [*layers]) as seen, torch.no_grad():
            torch.func.functional_call(same, state, (image,))
    except (RuntimeError, AssertionError) as error:
        said, *_ = str(error).split("\n")
        raise ValueError(
            f"this {type(network).__name__} cannot take an image of {' x '.join(map(str, shape))} ({said}); "
            "say which it takes: shape=(channels, height, width)"
        ) from error
    return {
        path: math.prod(out.shape[2:] if isinstance(layers[path], nn.Conv2d) else out.shape[1:-1])
        for path, out in seen.items()
    }


class _Parts:
    """A network taken apart: `units` are what works at one scale, each with the place of its first call."""

    def __init__(
        self, network: nn.Module, areas: Mapping[str, int], heads: Sequence[str], there: Collection[str]
    ):
        self.layers, self.sizes, self.heads, self.there = layers_of(network), [*areas.values()], heads, there
        self.inside, self.calls = defaultdict[str, list[str]](list), defaultdict[str, list[int]](list)
        for path in self.layers:
            self.inside[path.rpartition(".")[0]].extend([path] * bool(path))
        for place, name in enumerate(areas):
            for path in _around(name):
                self.calls[path].append(place)
        self.opened = {path for head in heads for path in _around(head)}
        self.units: list[tuple[int, str]] = []
        self.unused: list[str] = []
        self._visit("")

    def areas(self, path: str) -> list[int]:
        return [self.sizes[place] for place in self.calls[path]]

    def _visit(self, path: str) -> None:
        # what is never called itself (a norm, a parameter on its own) belongs to what is defined before it
        before = self.units[-1][0] if self.units else 0
        if path in self.heads:
            return
        if path in self.opened or self._is_mixed(path):
            own = [name for name, _ in self.layers[path].named_parameters(recurse=False)]
            self.units += [(before, f"{path}.{name}".lstrip(".")) for name in own]
            for child in self.inside[path]:
                self._visit(child)
        elif self.calls[path]:
            self.units.append((self.calls[path][0], path))
        elif any(isinstance(inner, _LAYERS) for inner in self.layers[path].modules()):
            self.unused.append(path)
        elif path in self.there:
            self.units.append((before, path))

    def _is_mixed(self, path: str) -> bool:
        """Whether it is a loop over parts of several scales, or nearly the whole network."""
        areas = [_put_out(own) for child in self.inside[path] if (own := self.areas(child))]
        several = bool(areas) and max(areas) >= 2 * min(areas)
        loop = isinstance(self.layers[path], nn.Sequential | nn.ModuleList | nn.ModuleDict)
        return several and (loop or len(self.calls[path]) > 0.75 * len(self.sizes))


def _put_out(areas: Sequence[int]) -> int:
    """The area of the maps at the end; single places on the way are squeeze-and-excitation's."""
    return next((area for area in reversed(areas) if area > 1), 1)


def _covering(paths: Collection[str], names: Sequence[str]) -> str:
    """The shortest pattern that fits, of these names, those within the paths and no others."""
    mine = [name for name in names if any(path in paths for path in _around(name))]
    own, all_ = (Counter(path for name in some for path in _around(name) if path) for some in (mine, names))
    outermost = [next(path for path in _around(name) if own[path] == all_[path] > 0) for name in mine]
    return "|".join(re.escape(path) + ("$" if path in names else r"\.") for path in dict.fromkeys(outermost))
