"""The network of an exported file, and how files become the images that it takes."""

from pathlib import Path

from torch import nn

from fulgurite.cli.trained_network import TrainedNetwork, arrays_of, input_format, placed
from fulgurite.models.export import OnnxNetwork, read_card
from fulgurite.models.networks import build, check_takes
from fulgurite.models.weights import load
from fulgurite.recipes import plain_values
from fulgurite.recipes import run as runs
from fulgurite.recipes.calibration_report import noted_temperature


def is_exported(place: Path) -> bool:
    """Whether a name is one of a file that `export` writes."""
    return place.suffix in (".onnx", ".pt2", ".safetensors") and not place.is_dir()


def from_file(file: Path, *, explained: bool) -> TrainedNetwork:
    """The network of a file that `export` has written; nothing that its card names is imported or run.

    Raises:
        ValueError: no such file, another program's, a damaged card, or maps of an ONNX network are asked for.
    """
    card, content = read_card(file)
    try:
        run = runs.checked(card.get("run"))
        plain_values.check_images(card.get("images", {}))
        temperature = noted_temperature(card.get("calibration"))
    except ValueError as error:
        raise ValueError(f"the card of {file} is damaged: {error}") from None
    takes = card.get("images")
    if not takes:
        raise ValueError(f"the card of {file} does not state the image format of its network")
    classes, channels, frame, scale = input_format(takes)
    network: nn.Module
    if isinstance(content, OnnxNetwork):
        if explained:
            raise ValueError(
                f"--explain follows gradients through layers, and {file} has none; wanted the run's folder, "
                "or a .safetensors file"
            )
        network = content
    else:
        name = card.get("network")
        if not isinstance(name, str):
            raise ValueError(
                f"the card of {file} names no network that could be built; wanted the run's folder, or a "
                "file of export --to onnx"
            )
        network = build(name, classes=len(classes), channels=channels, **scale)
        check_takes(network, channels, takes["size"])
        load(network, content, source=str(file))
        network = placed(network)
    white = takes.get("white") if isinstance(takes.get("white"), int) else None
    score_layer = run.knobs.get("score_layer") or ""
    return TrainedNetwork(
        network,
        classes,
        channels,
        frame,
        score_layer,
        white=white,
        takes=takes,
        temperature=temperature,
        **arrays_of(run),
    )
