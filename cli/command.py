"""The command: fulgurite, python -m fulgurite and python train.py."""

import importlib
import sys
from collections.abc import Sequence

from fulgurite import __version__, cli
from fulgurite.cli import known_probes, known_recipes
from fulgurite.cli.errors import exit_status
from fulgurite.probes.nearest_names import nearest

VERBS = {
    "fit": ("fit", "train: fit RECIPE [--knob VALUE] [--trainer.X VALUE], or go on: fit RECIPE --resume RUN"),
    "validate": ("evaluate", "loss and accuracy on the validation images: validate RUN"),
    "test": (
        "evaluate",
        "loss, accuracy, calibration and robustness on the test images: test RUN [--radius 8/255]",
    ),
    "probe": (
        "evaluate",
        "run all probes of a run on what it has learnt, and write the pictures as PNG: probe RUN",
    ),
    "predict": ("predict", "classify files and folders to CSV: predict RUN PATH... [--explain]"),
    "export": (
        "export",
        "the network as a file for other programs: export RUN --to onnx|pt2|safetensors",
    ),
    "table": (
        "layer_table",
        "layers of a network, their shapes and costs: table --network NAME [--receptive_fields]",
    ),
    "filters": (
        "filters",
        "filters of a convolution of one or several networks, as a picture: filters --network NAME ...",
    ),
    "shortcuts": (
        "shortcuts",
        "components of class scores, to find shortcuts, and error slices: shortcuts FOLDER --network NAME",
    ),
    "stylize": (
        "stylize",
        "photographs in a style, in one pass each: stylize PHOTOGRAPH... --weights CHECKPOINT [--out FOLDER]",
    ),
    "shape_bias": (
        "shape_bias",
        "predictions by shape or by texture, on cue-conflict images: shape_bias FOLDER --network NAME",
    ),
    "cue_conflict": (
        "shape_bias",
        "make such images by style transfer: cue_conflict --shapes FOLDER --textures FOLDER --network NAME",
    ),
    "transfer-matrix": (
        "transfer_matrix",
        "whether attacks on one network fool others: transfer-matrix FOLDER --network NAME --network NAME",
    ),
    "compare": (
        "compare_runs",
        "a page on two runs, or on two checkpoints: compare RUN_A RUN_B [--out FOLDER]; images: see below",
    ),
    "stitch": (
        "stitch",
        "which layers of two networks can replace each other: stitch RUN_A RUN_B [--layers LAYER,LAYER]",
    ),
    "universal": (
        "universal",
        "one perturbation that fools a network on most images, and others: universal FOLDER --network NAME",
    ),
    "equivariance": (
        "equivariance",
        "what flips, rotations and shifts do to each layer, and linear maps undo: equivariance RUN",
    ),
    "transferability": (
        "transferability",
        "how transferable each stage is, from one half of the classes to the other: transferability DATA",
    ),
    "advise": (
        "advise",
        "which way to fine-tune on your images: advise folder --path DATA --network NAME; or which network: "
        "--networks A,B,C",
    ),
}
"""For each verb: its module in this package, which is imported when it is used, and a line of help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; an invalid argument gives one line and exit status 2.

    Status 1 means that work was done in part: images could not be read, or not all methods of `compare` suit
    the network. A signal that ends it gives 128 and its number, and a line on how to resume.

    With FULGURITE_TRACEBACK set in the environment, it is a traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status(lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"fulgurite {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb == "fit" and (not rest or rest[0] in ("-h", "--help")):
        print(known_recipes.listed(verb))
        return 0
    if verb in VERBS:
        return importlib.import_module(f"{cli.__name__}.{VERBS[verb][0]}").run(verb, rest)
    if known_probes.family_of(verb) is None:
        raise ValueError(f"no command {verb!r}; {nearest(verb, [*VERBS, *known_probes.first_lines()])}")
    from fulgurite.cli import image_probes  # which takes seconds

    return image_probes.run(verb, rest)


def _help() -> str:
    parts = {
        "": {name: line for name, (_, line) in VERBS.items()},
        "\nrecipes, for fit:\n": known_recipes.first_lines(),
        "\nprobes of image files, PROBE IMAGE... --network NAME [--target CLASS] [--out PICTURE]:\n": (
            known_probes.first_lines()
        ),
    }
    return (
        "Train a CNN and watch what it learns, live on TensorBoard; look into any network.\n\n"
        + "".join(
            title + "".join(f"  {name:21}{line}\n" for name, line in lines.items())
            for title, lines in parts.items()
        )
        + "\nfit RECIPE --help and PROBE --help list the options."
    )
