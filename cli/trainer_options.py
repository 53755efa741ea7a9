"""Options of Lightning's Trainer that can be typed: plain values, within bounds, and known names."""

import inspect
import math
import os
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities import rank_zero_info

from fulgurite.cli.orphaned_processes import end_with_launcher
from fulgurite.cli.start_errors import Started
from fulgurite.probes.record import nearest

OWNED = ("logger", "callbacks", "default_root_dir")
"""Options that only the recipe sets."""
PROCESSES = max(64, os.cpu_count() or 1)
"""The most processes on one machine: more are a typing error that would crash it."""
LARGEST = 2**31 - 1


def known(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options, each known to Lightning, of its kind, and within bounds.

    Nothing is imported by name: accelerators, strategies and profilers are looked up in lists.

    Raises:
        ValueError: an unknown option, one that the recipe sets, or an invalid value.
    """
    parameters = inspect.signature(pl.Trainer).parameters
    names = [f"--trainer.{name}" for name in parameters if name not in OWNED]
    for name, value in (options or {}).items():
        if name in OWNED:
            raise ValueError(f"--trainer.{name} belongs to the recipe; change it there, in Python")
        if name not in parameters:
            raise ValueError(f"no option --trainer.{name}; {nearest(f'--trainer.{name}', names)}")
        kinds = _plain(parameters[name].annotation)
        if not kinds:
            raise ValueError(f"--trainer.{name} takes objects of Python; make the Trainer in Python for it")
        suits, wanted = _BOUNDS.get(name, (lambda _: True, ""))
        if not any(_is_of(value, kind) for kind in kinds) or not (value is None or suits(value)):
            wanted = wanted or " or ".join(map(_named, kinds))
            raise ValueError(f"--trainer.{name} {'null' if value is None else value}; wanted {wanted}")
    return dict(options or {})


def use_matrix_units(accelerator: str) -> None:
    """Let float32 products on a GPU with tensor cores run in TF32, with a note.

    Convolutions do so by default, and Lightning would warn.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        capable = torch.cuda.get_device_capability() >= (8, 0)
        if capable and torch.get_float32_matmul_precision() == "highest":
            torch.set_float32_matmul_precision("high")
            rank_zero_info('float32 products run in TF32: torch.set_float32_matmul_precision("high")')


def make_trainer(**args: Any) -> pl.Trainer:
    """Lightning's Trainer.

    Raises:
        ValueError: it rejects these options, by any error; or it would wait for other nodes, which are not
            started.
    """
    try:
        watch = [] if args.get("barebones") else [Started()]
        trainer = pl.Trainer(**{**args, "callbacks": [*args.get("callbacks", ()), *watch]})
    except Exception as error:
        message = str(error) or type(error).__name__
        raise ValueError(f"Lightning's Trainer refuses: {message}") from error
    environment = getattr(trainer.strategy, "cluster_environment", None)
    alone = isinstance(environment, LightningEnvironment) and "NODE_RANK" not in os.environ
    if trainer.num_nodes > 1 and alone and "GROUP_RANK" not in os.environ:
        raise ValueError(
            f"--trainer.num_nodes {trainer.num_nodes} would wait for other machines forever: start the "
            "command on each by torchrun or SLURM, or with MASTER_ADDR, MASTER_PORT and NODE_RANK in its "
            "environment"
        )
    end_with_launcher()
    return trainer


def _plain(annotation: Any) -> list[Any]:
    """The types of a parameter that can be typed on the command line."""
    if annotation in (str, int, float, bool, NoneType, list[int]):
        return [annotation]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) not in (Union, UnionType):
        return []
    kinds = [kind for member in get_args(annotation) for kind in _plain(member)]
    return [] if kinds == [NoneType] else kinds


def _is_of(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == list[int]:
        return isinstance(value, list) and all(_is_of(part, int) for part in value)
    return isinstance(value, kind) if isinstance(kind, type) else type(value) is type(kind) and value == kind


def _named(kind: Any) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    return names.get(kind) or ("a list of whole numbers" if kind == list[int] else str(kind))


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and least <= value <= LARGEST


def _at_least(least: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: _whole(value, least), f"a whole number of at least {least}"


def _is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def _names(*names: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: str(value).lower() in names, f"one of {', '.join(names)}"


def _few(devices: Any) -> bool:
    if isinstance(devices, list):
        return 0 < len(devices) <= PROCESSES and all(_whole(place, 0) for place in devices)
    text = str(devices).strip()
    if text in ("auto", "-1"):
        return True
    if "," in text:
        return all(place.strip().isdecimal() for place in text.strip(",").split(","))
    return text.isdecimal() and len(text) < 10 and 1 <= int(text) <= PROCESSES


_BATCHES = (
    lambda value: _whole(value, 0) or _is_share(value),
    "a number of batches, or a share of all of them from 0.0 to 1.0",
)
_BOUNDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "accelerator": _names("auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators())),
    "strategy": _names("auto", *StrategyRegistry.available_strategies()),
    "profiler": _names("simple", "advanced", "pytorch", "xla"),
    "gradient_clip_algorithm": _names("norm", "value"),
    "devices": (_few, f"auto, -1 for all, a list of their numbers, or how many, up to {PROCESSES}"),
    **dict.fromkeys(("num_nodes", "accumulate_grad_batches", "check_val_every_n_epoch"), _at_least(1)),
    **dict.fromkeys(("fast_dev_run", "min_epochs", "min_steps", "log_every_n_steps"), _at_least(0)),
    "reload_dataloaders_every_n_epochs": _at_least(0),
    **dict.fromkeys(("max_epochs", "max_steps", "num_sanity_val_steps"), _at_least(-1)),
    **dict.fromkeys([f"limit_{part}_batches" for part in ("train", "val", "test", "predict")], _BATCHES),
    "overfit_batches": _BATCHES,
    "val_check_interval": (
        lambda value: isinstance(value, str) or _whole(value, 1) or (_is_share(value) and value > 0),
        "a number of batches, a share of an epoch above 0.0 and up to 1.0, or a time as DD:HH:MM:SS",
    ),
    "gradient_clip_val": (
        lambda value: isinstance(value, int | float) and 0 <= value < math.inf,
        "a number of at least 0",
    ),
}
