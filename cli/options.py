"""Command-line options of recipes and of Lightning's Trainer."""

import inspect
import json
import math
import re
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from typing import Literal, get_args, get_origin

import jsonargparse

from fulgurite.cli import trainer_options
from fulgurite.cli.image_options import about_of, check_least
from fulgurite.probes.record import nearest
from fulgurite.probes.style import ThemeName
from fulgurite.recipes.run import Run, knobs

_Simple = bool | int | float | str | None
_Plain = bool | int | float | list[_Simple] | None | str
_PLACES = {"run": "the folder of a run", "paths": "images or folders of images"}


def for_fit(name: str, recipe: Callable, words: Sequence[str], run: Run | None) -> jsonargparse.Namespace:
    """The recipe's `knobs`, the `trainer`'s options and the `folder`, on top of those of a resumed run.

    Raises:
        ValueError: an unknown knob or option, or a value of the wrong kind.
    """
    parser = _parser(f"fit {name}", about_of(recipe))
    parser.add_function_arguments(recipe, as_group=False)
    where = "of the run; the next free one in runs/ without it"
    parser.add_argument("--folder", type=str | None, default=None, help=where)
    parser.add_argument("--resume", type=str | None, default=None, help="the folder of a run to go on with")
    dry = "show data, network, parameter groups, probes and cost, and train nothing"
    parser.add_argument("--dry-run", action="store_true", help=dry)
    _theme(parser)
    if run is not None:
        knobs(recipe, run)  # each known
        parser.set_defaults({**run.knobs, "trainer": dict(run.trainer), "theme": run.theme})
    args = vars(parsed(parser, words))
    chosen = {knob: args[knob] for knob in inspect.signature(recipe).parameters}
    return jsonargparse.Namespace(
        knobs=chosen,
        trainer=trainer_options.known(args["trainer"]),
        folder=args["folder"],
        dry_run=args["dry_run"],
        theme=args["theme"],
    )


def for_look(verb: str, about: str, words: Sequence[str]) -> jsonargparse.Namespace:
    """The `run`, the `checkpoint` and the `trainer`'s options.

    Raises:
        ValueError: as for `for_fit`.
    """
    parser = _parser(verb, about)
    parser.add_argument("run", type=str, help="the folder of a run")
    parser.add_argument("--checkpoint", default="best", help='"best" on validation, "last", or a file')
    _theme_of_run(parser)
    if verb == "test":
        _robustness(parser)
        _views(parser)
        tables = "also list misclassified images, labels that are probably wrong, and near-duplicates as CSV"
        parser.add_argument("--mistakes", action="store_true", help=tables)
        page = "also write a page on hardest and easiest classes and images, confusions, object size, texture"
        parser.add_argument("--difficulty", action="store_true", help=page)
    args = parsed(parser, words)
    args.trainer = trainer_options.known(args.trainer)
    return args


def _views(parser: jsonargparse.ArgumentParser) -> None:
    views = "average probabilities over this many mirrored and cropped views of each image, 1 to 12"
    parser.add_argument("--tta", type=int | None, default=None, help=views)


def for_predict(about: str, words: Sequence[str]) -> jsonargparse.Namespace:
    """The `run`, the `paths` to classify, and where and how.

    Raises:
        ValueError: as for `for_fit`.
    """
    parser = _parser("predict", about, trained=False)
    parser.add_argument(
        "run", type=str, help="the folder of a run, or a file of export: .onnx or .safetensors"
    )
    parser.add_argument("paths", type=str, nargs="+", help="images, and folders that are searched for them")
    parser.add_argument("--checkpoint", default="best", help='"best" on validation, "last", or a file')
    parser.add_argument("--top", type=int, default=5, help="how many classes to print for each image")
    where = "a file that ends in .csv, or - for the screen; predictions.csv in the run's folder without it"
    parser.add_argument("--out", type=str | None, default=None, help=where)
    parser.add_argument("--batch_size", type=int, default=32, help="images at a time")
    _views(parser)
    divided = (
        "logits are divided by it; without it, as fitted to the run's validation images; 1 changes nothing"
    )
    parser.add_argument("--temperature", type=float | None, default=None, help=divided)
    _theme_of_run(parser)
    sheets = "also explain: a sheet of attribution maps for each image, in a folder next to the file"
    parser.add_argument("--explain", action="store_true", help=sheets)
    whose = (
        "with --explain: of this many of the run's training images, spread evenly, raised and lowered "
        "each prediction most (TRAK); 500 cost a forward and a backward pass each"
    )
    parser.add_argument("--training_images", type=int | None, default=None, help=whose)
    args = parsed(parser, words)
    check_least(vars(args), ("top", "batch_size"))
    if args.temperature is not None and not 0 < args.temperature < math.inf:
        raise ValueError(f"--temperature {args.temperature}; wanted a finite number above 0")
    return args


def _theme(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--theme", type=ThemeName, default="dark", help="of pictures: light for papers")


def _theme_of_run(parser: jsonargparse.ArgumentParser) -> None:
    words = "of pictures: light for papers; that of the run without it"
    parser.add_argument("--theme", type=ThemeName | None, default=None, help=words)


def _robustness(parser: jsonargparse.ArgumentParser) -> None:
    """Options of the robustness report."""
    threat = "attack the test images within such a radius; the run's own threat without it, if it had one"
    parser.add_argument("--radius", type=str | None, default=None, help=f"{threat}: 0.1 or 8/255")
    parser.add_argument(
        "--threat",
        type=Literal["linf", "l2", "l1"] | None,
        default=None,
        help="the norm of the radius; linf by default",
    )
    many = "how many test images to attack, 256 without it; 0 for none"
    parser.add_argument("--images", type=int | None, default=None, help=many)
    whole = "false leaves out AutoAttack's ensemble"
    parser.add_argument("--ensemble", type=bool | None, default=None, help=whole)
    parser.add_argument(
        "--minimal",
        type=Literal["deepfool", "ddn", "fmn", "cw", "szegedy", "fab"] | None,
        default=None,
        help="look for the nearest adversarial image of each test image by this attack; in --threat, or l2",
    )
    smooth = "certify the test images by randomised smoothing, under noise of this standard deviation: 0.25"
    parser.add_argument("--smooth", type=float | None, default=None, help=smooth)
    kinds = "accuracy under 15 kinds of noise, blur, weather and compression, each at five strengths"
    parser.add_argument("--corruptions", action="store_true", help=kinds)
    draws = "noisy copies of each image that a certificate rests on; 10000 without it"
    parser.add_argument("--draws", type=int | None, default=None, help=draws)


def _parser(what: str, about: str, *, trained: bool = True) -> jsonargparse.ArgumentParser:
    name = f"fulgurite {what}"
    parser = jsonargparse.ArgumentParser(
        prog=name, description=about, exit_on_error=False, allow_abbrev=False
    )
    trainer = "--trainer.X VALUE: any argument of Lightning's Trainer, such as --trainer.devices 2"
    if trained:
        parser.add_argument("--trainer", type=dict[str, _Plain], default={}, help=trainer)
    return parser


def parsed(parser: jsonargparse.ArgumentParser, words: Sequence[str]) -> jsonargparse.Namespace:
    """Parse the words.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    try:
        return parser.parse_args(_in_brackets(parser, words))
    except jsonargparse.ArgumentError as error:
        message = " ".join(str(error).split())
    if wrong := re.search(r"(?:[Uu]nrecognized arguments:|Option) '?(--?[\w.-]+)", message):
        options = [
            option
            for action in parser._actions
            for option in action.option_strings
            if action.help != SUPPRESS
        ]
        raise ValueError(f"no option {wrong[1]}; {nearest(wrong[1], options)}")
    if wrong := re.search(r"arguments are required: ([\w, ]+)", message):
        missing = [
            f"--{name} VALUE" if f"--{name}" in parser._option_string_actions else _PLACES.get(name, name)
            for name in wrong[1].split(", ")
        ]
        raise ValueError(f"missing: {', '.join(missing)}; {parser.prog} --help shows help")
    raise ValueError(re.sub(r'^Parser key "([\w.]+)": (.*)$', _wanted, message))


def _in_brackets(parser: jsonargparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words, with lists that are written with commas, A,B, as the parser reads them."""
    lists = {
        option
        for action in parser._actions
        for option in action.option_strings
        if list in {get_origin(kind) for kind in _kinds(getattr(action, "_typehint", None))}
    }
    found, is_value = list[str](), False
    for word in words:
        option, equals, value = word.partition("=")
        if is_value:
            found.append(_bracketed(word))
        else:
            found.append(f"{option}={_bracketed(value)}" if equals and option in lists else word)
        is_value = not is_value and word in lists
    return found


def _kinds(kind: object) -> tuple[object, ...]:
    return (kind, *get_args(kind)) if get_origin(kind) is not list else (kind,)


def _bracketed(value: str) -> str:
    if value.startswith(("[", "{")) or value in ("null", "None"):
        return value
    return json.dumps([part.strip() for part in value.split(",")])


def _wanted(refused: re.Match[str]) -> str:
    """What an option wanted instead of the value, in words."""
    name, message = refused[1], refused[2]
    kinds = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[([^\]]*)\])", message)
    value = re.search(r".*(?:Got|Given) value: (.*)$", message)
    words = {"int": "a whole number", "float": "a finite number", "str": "text", "bool": "true or false"}
    wanted = [words.get(kind, kind) or names.replace("'", "") for kind, names in kinds if kind != "NoneType"]
    if not wanted or value is None:
        return f"--{name}: {message}"
    got = value[1]
    if got.startswith("[") and got.endswith("]"):
        got = ",".join(re.findall(r"[^\[\]'\", ]+", got))
        wanted = [f"names with commas, of {' or '.join(wanted)}"]
    return f"--{name}: wanted {' or '.join(wanted)}; got {got}"
