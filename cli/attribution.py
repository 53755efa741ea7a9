"""Command: attribution maps of image files."""

import argparse
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli.image_options import check_sides, like, parser_of, value
from fulgurite.cli.inputs import (
    check_fits,
    class_of,
    files_of,
    images_of,
    in_parts,
    network_of,
    write_picture,
)
from fulgurite.probes.attribution.methods import METHODS, attribute, knobs_of, method_of
from fulgurite.probes.attribution.render_maps import comparison, row, sized
from fulgurite.probes.attribution.segment import cut_out, grabcut
from fulgurite.probes.objectives import Objective, channel, class_score, log_probability, probability, unit
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, picture

USUAL = [
    *("input_x_gradient", "smoothgrad", "integrated_gradients", "deconvnet", "guided_backprop"),
    *("grad_cam", "guided_grad_cam", "layer_cam", "occlusion", "lime"),
]
SHEETS = {
    "compare": "Several methods side by side: a sheet of images x methods.",
    "segment": "The object cut out by GrabCut, seeded from the saliency: mask and cut-out.",
}
PROBES = SHEETS | {name: inspect.getdoc(method) or "" for name, method in METHODS.items()}
ABOUT = "\n\nTargets are answered from the same passes; the class predicted, if none is named."
SCORES = {"score": class_score, "probability": probability, "log_probability": log_probability}
Question = tuple[int | None, Objective]  # the class asked about, if it is one


def asked_of(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """What the words ask of an attribution method or sheet; its own knobs in `knobs`.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    knobs = _knobs(probe)
    parser = parser_of(probe, PROBES[probe] + ABOUT, side=224 if probe in METHODS else 144)
    parser.add_argument(
        "--target", action="append", help="a class by name or number; may be given several times"
    )
    parser.add_argument("--of", choices=SCORES, default="score", help="what is asked of the class")
    parser.add_argument("--score_layer", default="", help="where scores are read, if not at the output")
    parser.add_argument(
        "--channel", action="append", metavar="LAYER:INDEX", help="ask about a channel instead of a class"
    )
    parser.add_argument(
        "--unit", action="append", metavar="LAYER:INDEX[:ROW:COLUMN]", help="or about one unit of it"
    )
    parser.add_argument("--look", choices=("auto", "signed", "heat", "over"), default="auto", help="of maps")
    if probe == "compare":
        usual = (
            f"names with commas, or all; without it {','.join(USUAL)}, less what the network is not made for"
        )
        parser.add_argument("--methods", help=usual)
    for name, knob in knobs.items():
        parser.add_argument(f"--{name}", default=knob.default, type=value, help="default %(default)s")
    asked = parser.parse_args(list(words))
    check_sides(asked)
    named = getattr(asked, "methods", None)
    asked.usual = probe == "compare" and named is None
    asked.methods = _methods(probe, named)
    if asked.methods == ["all"]:
        asked.methods = [name for name in METHODS if name != "backward_rules"]  # which is guided_backprop
        asked.usual = True
    for name in asked.methods:
        method_of(name)
    asked.knobs = {
        name: like(knob.default, getattr(asked, name), name, knob.annotation) for name, knob in knobs.items()
    }
    return asked


def answer(asked: argparse.Namespace) -> None:
    """Write the picture: a row for each image and question."""
    files = files_of(asked.images)
    network, names, size, channels = network_of(asked)
    questions = _questions(asked, network, names)
    extra = ["mask", "cut-out"] * (asked.probe == "segment")
    columns = 1 + len(asked.methods) + len(extra)
    check_fits(asked, len(files), size, rows=len(files) * max(1, len(questions)), columns=columns)
    called, images = images_of(files, asked.images, size, channels)
    rows: dict[str, Sequence[RGB]] = {}
    for start, part in in_parts(images, asked.device):
        for place, what, tiles in _rows(asked, network, names, part, questions):
            rows[f"{called[start + place]} {what}".rstrip()] = tiles
    pixels = comparison(rows, asked.methods, *extra, look=asked.look)
    write_picture(pixels, asked.out, f"{len(rows)} rows")


def _methods(probe: str, named: str | None) -> list[str]:
    if probe != "compare":
        return ["saliency" if probe == "segment" else probe]
    return USUAL.copy() if named is None else [name.strip() for name in named.split(",")]


def _knobs(probe: str) -> dict[str, inspect.Parameter]:
    """What can be chosen of a probe."""
    functions = (
        METHODS.values() if probe == "compare" else [grabcut if probe == "segment" else method_of(probe)]
    )
    known = {name: knob for function in functions for name, knob in knobs_of(function).items()}
    return {name: knob for name, knob in known.items() if name != "progress"}


def _rows(
    asked: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    images: Float[Tensor, "n c h w"],
    questions: Mapping[str, Question],
) -> Iterator[tuple[int, str, list[RGB]]]:
    """For each image and question: the image's place, what else the row is called, and its tiles."""
    chances = predict(network, images).softmax(1)
    guesses = chances.argmax(1)
    questions = questions or {"": (None, SCORES[asked.of](guesses, layer=asked.score_layer))}
    maps = _maps(asked, network, images, [objective for _, objective in questions.values()])
    for k, (what, (number, _)) in enumerate(questions.items()):
        for place, image in enumerate(images):
            told = int(guesses[place]) if number is None else number
            own = {name: values[k, place] for name, values in maps.items()}
            # what a channel or a unit is asked about is no class
            caption = f"{names[told]}: {chances[place, told]:.0%}" if what in ("", names[told]) else what
            tiles = row(image, own, caption, look=asked.look, side=asked.side)
            if asked.probe == "segment":
                mask = grabcut(image[None], own["saliency"][None], **asked.knobs)
                found = sized(picture(mask[0].float()), asked.side)
                tiles.append(found if mask.any() else captioned(found, "no object found"))
                tiles.append(sized(picture(cut_out(image[None], mask)[0]), asked.side))
            yield place, what if len(questions) > 1 or number is None else "", tiles


def _maps(
    asked: argparse.Namespace,
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objectives: Sequence[Objective],
) -> dict[str, Float[Tensor, "k n _ h w"]]:
    """The maps of each method; the usual ones give way where the network is not made for them."""
    knobs = {} if asked.probe == "segment" else asked.knobs
    maps = {}
    for name in list(asked.methods):
        try:
            maps[name] = attribute(name, network, images, objectives, **knobs, progress=name)
        except ValueError as error:
            if not asked.usual:
                raise
            asked.methods.remove(name)
            print(f"note: without {name}: {error}", file=sys.stderr)
    if not maps:
        raise ValueError("the network is made for none of the usual methods; name others by --methods")
    return maps


def _questions(asked: argparse.Namespace, network: nn.Module, names: Sequence[str]) -> dict[str, Question]:
    """What is asked of every image alike; nothing, if it is the class predicted."""
    for layer in (asked.score_layer, asked.knobs.get("layer") or ""):
        layer_of(network, layer)
    found: dict[str, Question] = {}
    for target in asked.target or ():
        number = class_of(target, names)
        found[names[number]] = number, SCORES[asked.of](number, layer=asked.score_layer)
    for option, make, most in (("channel", channel, 1), ("unit", unit, 3)):
        for words in getattr(asked, option) or ():
            layer, *numbers = words.split(":")
            layer_of(network, layer)
            if not (1 <= len(numbers) <= most and len(numbers) != 2 and all(n.isdecimal() for n in numbers)):
                wanted = "LAYER:INDEX" + "[:ROW:COLUMN]" * (most > 1)
                raise ValueError(f"--{option} {words}; wanted {wanted}, such as layer3:17")
            places = dict(zip(("row", "column"), map(int, numbers[1:]), strict=False))
            found[f"{option} {words}"] = None, make(layer, int(numbers[0]), **places)
    return found
