"""The network of a run for commands on image files: its weights, size, framing, classes and normalisation."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fulgurite.cli.image_options import lines_of
from fulgurite.data.crops import FRAMINGS
from fulgurite.models.networks import check_takes
from fulgurite.probes.counted import counted
from fulgurite.probes.style import ThemeName
from fulgurite.recipes import plain_values
from fulgurite.recipes import run as runs


def is_run(name: str) -> bool:
    """Whether this is the folder of a run."""
    return (Path(name) / runs.FILE).is_file()


def theme_of_run(folder: Path) -> ThemeName:
    """The theme of the pictures of a run; dark where this is none.

    Raises:
        ValueError: the run is damaged.
    """
    return runs.read(folder).theme if is_run(str(folder)) else "dark"


def composite_of_runs(names: str | Sequence[str]) -> str | None:
    """How images of 2, 4 or more channels are shown in the first of these runs that says so.

    Raises:
        ValueError: a run is damaged.
    """
    for name in [names] if isinstance(names, str) else names:
        if is_run(name) and isinstance(own := runs.read(Path(name)).knobs.get("composite"), str):
            return own
    return None


def network_of_run(args: argparse.Namespace) -> tuple[nn.Module, Sequence[str], int, int]:
    """The best network of the run that `args.network` is, its classes' names, and its image format.

    The crop is kept in `args.framing`, how images are read in `args.white` and `args.loader`; the layer of
    its scores in `args.score_layer`, if that is empty.

    Raises:
        ValueError: options that the run determines are given as well, or its network cannot be restored.
    """
    # training and its libraries are needed here only
    from fulgurite.cli.trained_network import restored

    folder = Path(args.network)
    # set earlier by another run, not by the user
    own = ("weights", "mean", "std", *(() if "framing" in vars(args) else ("white",)))
    for name in own:
        if vars(args).get(name) is not None:
            raise ValueError(f"--{name} and --network {folder}, a run, which has its own; leave --{name} out")
    plain_values.check_inside(folder)
    found = restored(folder, runs.checkpoint(folder, "best"))
    size, framing = found.takes.get("size"), found.takes.get("framing")
    if not (isinstance(size, int) and isinstance(framing, str) and framing in FRAMINGS):
        raise ValueError(f"{folder} does not state the image format of its network; wanted size and framing")
    size = args.size or size
    args.margin, args.framing = 1.0, FRAMINGS[framing]
    args.white, args.loader = found.white, found.loader
    if vars(args).get("score_layer") == "":
        args.score_layer = found.score_layer
    names = lines_of(args.classes) if args.classes else found.classes
    if len(names) != len(found.classes):
        wanted = counted(len(found.classes), "class")
        raise ValueError(f"--classes {args.classes}: {counted(len(names), 'name')} for {wanted}")
    check_takes(found.network, found.channels, size)
    return on_device(found.network, args.device), names, size, found.channels


def run_alone(
    folder: str, *, weights: Path | None = None, size: int | None = None
) -> tuple[nn.Module, Sequence[str], int, int]:
    """As `network_of_run`, for a command without images.

    Raises:
        ValueError: weights are given as well, or its network cannot be restored.
    """
    none = dict.fromkeys(("mean", "std", "classes"))
    return network_of_run(
        argparse.Namespace(network=folder, weights=weights, size=size, device="cpu", **none)
    )


def on_device(network: nn.Module, device: str) -> nn.Module:
    """The network in eval mode, on a device.

    Raises:
        ValueError: there is no such device, or it holds no numbers.
    """
    try:
        # some devices hold tensors without values
        torch.ones(1, device=device).item()
        return network.eval().to(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from None
