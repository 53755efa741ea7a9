"""The network of a run with its weights, and how files become the images that it takes."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli.known_recipes import recipe_of
from fulgurite.data.arrays import ARRAYS, ArrayReader, Loader
from fulgurite.data.crops import FRAMINGS
from fulgurite.data.decoding import UnreadableImageError, read_image
from fulgurite.data.image_files import ENDINGS
from fulgurite.models.dotted_path_networks import own_function
from fulgurite.models.networks import build, check_takes
from fulgurite.models.weights import load
from fulgurite.models.weights import read as read_weights
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.record import record
from fulgurite.recipes import run as runs
from fulgurite.recipes.analysis import trained
from fulgurite.recipes.recipe import Recipe, weights_follow
from fulgurite.recipes.run import Run


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, and how image files become its inputs."""

    network: nn.Module
    classes: tuple[str, ...]
    channels: int
    frame: Callable[[Any], Tensor]
    score_layer: str = ""
    layer: str | None = None  # the layer for CAM maps; the last one by default
    white: int | None = None  # of images of more than 8 bits
    loader: Loader | None = None
    composite: str | None = None
    takes: Mapping[str, Any] = field(default_factory=dict)  # see `Recipe.takes`
    temperature: float | None = None  # by which the logits are divided, where one was fitted

    @property
    def reader(self) -> ArrayReader | None:
        """The reader of arrays, where images are arrays."""
        arrays = self.loader or self.channels not in (1, 3)
        return ArrayReader(self.channels, self.white, self.loader) if arrays else None

    @property
    def endings(self) -> tuple[str, ...]:
        """Suffixes of images in folders."""
        return ENDINGS if self.reader is None else ARRAYS if self.loader is None else ("",)

    def image(self, file: Path) -> Float[Tensor, "c h w"] | str:
        """The image in a file, cropped as the run's validation images were; or the error."""
        try:
            if self.reader:
                return self.frame(self.reader(file)).clamp(0, 1)
            return self.frame(read_image(file, channels=self.channels, white=self.white))
        except UnreadableImageError as error:
            return error.reason


def restored(folder: Path, checkpoint: Path) -> TrainedNetwork:
    """The network of a run with its weights; runs without a recorded image format need their data for it.

    Raises:
        ValueError: the weights do not fit, or the data are needed and are not there.
    """
    run = runs.read(folder)
    name = name_of_network(folder, run)
    state = read_weights(checkpoint)
    recipe = None
    if not (run.images and name and run.recipe != "stages"):
        with weights_follow("normalise.mean" in state, download=False):
            recipe = _recipe(run)
    takes = run.images if recipe is None else recipe.takes()
    if not takes:
        raise ValueError(f"the data of recipe {run.recipe!r} do not state the image format of its network")
    classes, channels, frame, scale = input_format(takes)
    network = (
        build(str(name), classes=len(classes), channels=channels, **scale)
        if recipe is None
        else recipe.network
    )
    if isinstance(size := takes.get("size"), int):
        check_takes(network, channels, size)
    load(network, state, source=str(checkpoint))
    white = takes.get("white") if isinstance(takes.get("white"), int) else None
    score_layer = run.knobs.get("score_layer") or ""
    return TrainedNetwork(
        placed(network), classes, channels, frame, score_layer, white=white, takes=takes, **arrays_of(run)
    )


def best_stage(folder: Path, run: Run, *, explained: bool) -> TrainedNetwork:
    """The network up to its best stage, and the classifier that a run of `stages` fitted to it.

    Raises:
        ValueError: maps are asked for, which need a whole network.
    """
    from fulgurite.recipes.stages import best_of  # a recipe; only such runs need it

    network = best_of(folder, run)
    if explained and not network.whole:
        raise ValueError(
            f"--explain looks at a whole network, and this classifier is of {network.stage}, an earlier "
            "stage; leave it out"
        )
    print(f"by the linear classifier of {network.stage}; its scores are made probabilities", file=sys.stderr)
    classes, channels, frame, _ = input_format(run.images)
    # the network's own classifier runs after the stage, and would hide its maps from a search
    side = run.images["size"]
    with frozen_eval(network) as own, record(own, [f"network.{network.stage}"]) as outputs, torch.no_grad():
        own(torch.zeros(1, channels, side, side))
    ((layer, out),) = outputs.items()
    layer = layer if out.dim() == 4 and out.shape[2:].numel() > 1 else None
    return TrainedNetwork(
        placed(network), classes, channels, frame, layer=layer, takes=run.images, **arrays_of(run)
    )


def input_format(
    takes: Mapping[str, Any],
) -> tuple[tuple[str, ...], int, Callable[[Any], Tensor], dict[str, Any]]:
    """Classes, channels, framing, and what the network normalises by."""
    try:
        frame = FRAMINGS[takes["framing"]](takes["size"])
        scale = {name: takes[name] for name in ("mean", "std")}
        return tuple(takes["classes"]), takes["channels"], frame, scale
    except (KeyError, TypeError) as error:
        raise ValueError(f"the run's record of its network's image format is damaged: {error}") from None


def placed(network: nn.Module) -> nn.Module:
    """In eval mode, on the GPU if there is one."""
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def arrays_of(run: Run) -> dict[str, Any]:
    """The loader of a run, which is imported only if it is trusted, and the composite of its pictures."""
    loader, composite = (run.knobs.get(name) for name in ("loader", "composite"))
    return {
        "loader": own_function(loader, "loader", typed=False) if isinstance(loader, str) else None,
        "composite": composite if isinstance(composite, str) else None,
    }


def name_of_network(folder: Path, run: Run) -> str | None:
    """The name to build a run's network by; None where its recipe has its own network."""
    if run.recipe != "finetune":
        name = run.knobs.get("network")
        return name if isinstance(name, str) else None
    from fulgurite.recipes.finetune import network_of  # a recipe; only this verb needs it

    return network_of(folder)


def _recipe(run: Run) -> Recipe:
    recipe = recipe_of(run.recipe)
    return trained(recipe(**runs.knobs(recipe, run)))
