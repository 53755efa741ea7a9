"""Command: export the network of a run to ONNX, torch.export or safetensors, with a card."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from fulgurite import __version__
from fulgurite.callbacks.framework.sample import fetch
from fulgurite.cli.image_options import Parser
from fulgurite.cli.known_recipes import recipe_of
from fulgurite.cli.lightning_messages import hush
from fulgurite.cli.outputs import check_writable_text
from fulgurite.cli.trained_network import TrainedNetwork, name_of_network, restored
from fulgurite.data.image_files import files_below, only_images, printable
from fulgurite.models.export import TOLERANCE, Format, exported, largest_difference
from fulgurite.models.weights import read as read_weights
from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.counted import counted
from fulgurite.recipes import plain_values
from fulgurite.recipes import run as runs
from fulgurite.recipes.analysis import trained
from fulgurite.recipes.export_card import markdown
from fulgurite.recipes.recipe import weights_follow
from fulgurite.recipes.run import Run

CHECKED = 16
ABOUT = """Write the network of a run to a file that other programs read, with its normalisation inside.

It maps any number of images in [0, 1] to logits. Before anything is written, it is run on real images, the
run's validation images or those of --check, and its logits are compared with those of the network. Its card
(classes, size, metrics, recipe, command) is in its metadata, and next to it as Markdown (export.onnx.md).
predict FILE PATH... classifies images with .onnx and .safetensors files. ONNX needs pip install .[onnx]."""


def run(verb: str, words: Sequence[str]) -> int:
    """Export, check and write the file and its card.

    Raises:
        ValueError: a network that cannot be exported, or a file with other logits.
    """
    hush()
    parser = Parser(verb, ABOUT)
    parser.add_argument("run", metavar="RUN", help="the folder of a run")
    parser.add_argument("--to", choices=get_args(Format), default="onnx", help="onnx without it")
    parser.add_argument("--out", type=Path, help="the file; export.onnx in the run's folder without it")
    parser.add_argument("--checkpoint", default="best", help='"best" on validation, "last", or a file')
    parser.add_argument("--check", type=Path, help="images, or a folder of them, to compare the logits on")
    args = parser.parse_args(list(words))
    folder = Path(args.run)
    trained_run = runs.read(folder)
    plain_values.check_inside(folder)
    out = args.out or folder / f"export.{args.to}"
    card_file = out.with_name(f"{out.name}.md")
    if out.suffix != f".{args.to}":
        raise ValueError(f"--out {out}; wanted a name that ends in .{args.to}")
    for file in (out, card_file):
        check_writable_text(file)
    checkpoint = runs.checkpoint(folder, args.checkpoint)
    asked = restored(folder, checkpoint)
    asked.network.cpu()
    images = _images(trained_run, asked, checkpoint, args.check)
    card = _card(folder, trained_run, asked, checkpoint)
    content = exported(asked.network, images, args.to, card)
    difference = largest_difference(content, args.to, asked.network, images)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the file's logits differ by {difference:.2g} of the largest on "
            f"{counted(len(images), 'image')}, more than {TOLERANCE:g}; nothing was written"
        )
    write_atomic(out, content)
    write_atomic(card_file, markdown(card, out.name, args.to))
    print(
        f"{printable(out)}: {len(content) / 1e6:.3g} MB; its logits on "
        f"{counted(len(images), 'image')} differ by {difference:.1g} of the largest at most; "
        f"card in {printable(card_file)}"
    )
    return 0


def _images(
    run: Run, asked: TrainedNetwork, checkpoint: Path, check: Path | None
) -> Float[Tensor, "n c h w"]:
    """Two or more images, of the network's size."""
    if check is not None:
        if not check.exists():
            raise ValueError(f"--check {check}: there is no such file or folder")
        files = only_images(files_below(check), check, asked.endings) if check.is_dir() else [check]
        if not files:
            raise ValueError(f"--check {check}: there are no images in it")
        read = [asked.image(file) for file in files[:CHECKED]]
        images = [image for image in read if isinstance(image, Tensor)]
        if not images:
            raise ValueError(f"--check {check}: none of {counted(len(read), 'image')} can be read")
    else:
        build = recipe_of(run.recipe)
        try:
            with weights_follow("normalise.mean" in read_weights(checkpoint), download=False):
                recipe = trained(build(**runs.knobs(build, run)))
            recipe.data.setup("validate")
            loader = recipe.data.val_dataloader()
        except (ValueError, OSError) as error:
            raise ValueError(
                f"the run's validation images are not there ({error}); name other ones to compare on: "
                "--check FOLDER"
            ) from None
        images = list(fetch(loader, CHECKED, classes=asked.classes, device=torch.device("cpu")).images)
    return torch.stack(images * (1 + (len(images) == 1)))


def _card(folder: Path, run: Run, asked: TrainedNetwork, checkpoint: Path) -> dict[str, Any]:
    found = runs.tested(folder, checkpoint)
    knobs = {name: value for name, value in run.knobs.items() if value is not None}
    words = [word for name, value in knobs.items() for word in (f"--{name}", _typed(value))]
    return {
        "fulgurite": __version__,
        "network": name_of_network(folder, run),
        "checkpoint": checkpoint.name,
        "images": dict(run.images) or asked.takes,
        "metrics": found.get("metrics", {}),
        "calibration": found.get("calibration", {}),
        "command": shlex.join(["fulgurite", "fit", run.recipe, *words]),
        "run": asdict(run),
    }


def _typed(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
