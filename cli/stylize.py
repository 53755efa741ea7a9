"""Command: photographs in the style that a network was trained for, in one pass each."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fulgurite.cli.image_names import file_name, names_of
from fulgurite.cli.image_options import SIDE, Parser
from fulgurite.cli.inputs import files_of
from fulgurite.data.crops import uncropped
from fulgurite.data.decoding import read_image
from fulgurite.data.image_files import printable
from fulgurite.models.stylizer_networks import LEAST, stylizer_of
from fulgurite.models.weights import read
from fulgurite.probes.counted import counted
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.render import picture, write

ABOUT = """Photographs in the style that `fulgurite fit stylize` trained a network for, in one pass each.

Each keeps its size and proportions, or its long side is resized to --size. The results go into a folder, as
PNG files of the photographs' names. A network of `--kind texture` makes, for each photograph, a texture of
its size, another for each --seed."""


def run(verb: str, words: Sequence[str]) -> int:
    """Write a picture for each photograph; 1 if some of a folder could not be read.

    Raises:
        ValueError: a wrong option, weights of another network, or a file that cannot be read.
    """
    args = _parse(verb, words)
    files = files_of(args.images)
    network = stylizer_of(read(args.weights)).to(args.device)
    if not 0 <= args.seed < 2**31:
        raise ValueError(f"--seed {args.seed}; wanted a number from 0 to {2**31 - 1}")
    outs = [args.out / f"{file_name(name)}.png" for name in names_of(files)]
    if len(set(outs)) < len(outs):
        twice = next(out for out in outs if outs.count(out) > 1)
        raise ValueError(f"several results would be called {printable(twice)}; wanted one folder at a time")
    own = {file.resolve() for file in files}
    if lost := next((out for out in outs if out.resolve() in own), None):
        raise ValueError(f"{printable(lost)} would be overwritten; wanted another folder as --out")
    done, left_out = 0, 0
    torch.manual_seed(args.seed)
    for file, out in progress_bar(list(zip(files, outs, strict=True)), "stylize", unit="image"):
        try:
            image = uncropped(args.size)(read_image(file, channels=3))[None]
            if min(image.shape[2:]) < LEAST:
                side = min(image.shape[2:])
                raise ValueError(f"{printable(file)} has a side of {side} px; wanted at least {LEAST}")
        except ValueError as error:
            if file in args.images:
                raise
            left_out += 1
            print(f"note: left out: {error}", file=sys.stderr)
            continue
        with torch.inference_mode():
            made = network(image.to(args.device))
        args.out.mkdir(parents=True, exist_ok=True)
        write(picture(made[0]), out)
        done += 1
    print(f"{printable(args.out)}: {counted(done, 'image')}")
    return int(left_out > 0)


def _parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(verb, ABOUT)
    parser.add_argument("images", nargs="+", type=Path, help="files, or folders of files")
    parser.add_argument("--weights", type=Path, required=True, help="a checkpoint of fit stylize")
    parser.add_argument("--out", type=Path, default=Path("stylized"), help="a folder; %(default)s")
    parser.add_argument("--size", type=int, help="the long side in pixels; as it is without it")
    parser.add_argument("--seed", type=int, default=0, help="of a texture's noise; default %(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(list(words))
    if args.size is not None and not LEAST <= args.size <= SIDE:
        raise ValueError(f"--size {args.size}; wanted a number of pixels, from {LEAST} to {SIDE}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {printable(args.out)} is a file; wanted a folder")
    return args
