"""Where commands write: pictures, texts and folders, checked before anything is computed."""

import argparse
from pathlib import Path

from fulgurite.data.image_files import printable
from fulgurite.probes import atomic
from fulgurite.probes.composites import shown_composites
from fulgurite.probes.render import RGB, SUFFIXES, noted, titled, write


def check_writable(out: Path) -> None:
    """Check that a picture can be written there, by starting to.

    Raises:
        ValueError: it cannot, or it would be no PNG, JPEG, SVG or PDF.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out {out}; wanted a name that ends in .png or .jpg, .svg or .pdf")
    check_writable_text(out)


def check_picture(args: argparse.Namespace) -> None:
    """Check that a command's picture can be written, and replaces no file that the command reads.

    Raises:
        ValueError: it cannot, or would.
    """
    for name, given in vars(args).items():
        files = given if isinstance(given, list) else [given]
        if name != "out" and any(isinstance(file, Path) and _is_same(file, args.out) for file in files):
            raise ValueError(f"--out {printable(args.out)} is a file that is read; wanted another name")
    check_writable(args.out)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of them does not exist
        return False


def check_writable_text(out: Path) -> None:
    """Check that a file can be written there, by starting to.

    Raises:
        ValueError: it cannot.
    """
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    try:
        atomic.check_writable(out)
    except OSError:
        raise ValueError(f"--out {out}: nothing can be written there") from None


def check_folder(folder: Path | None, option: str) -> None:
    """Check that a folder, if one is given, can be written to or created.

    Raises:
        ValueError: it is a file, or lies in no folder.
    """
    if folder is not None and ((folder.exists() and not folder.is_dir()) or not folder.parent.is_dir()):
        raise ValueError(f"--{option} {printable(folder)} is not a folder; wanted one, or a new one's name")


def write_picture(pixels: RGB, out: Path, summary: str, *, title: str = "") -> None:
    """Write the picture under its title, and print its path, its size, and a `summary`.

    Below it stands which channels of images of many are shown.
    """
    pixels = titled(noted(pixels, *shown_composites()), title)
    write(pixels, out)
    print(f"{printable(out)}: {pixels.shape[2]} x {pixels.shape[1]}, {summary}")


def title_of(args: argparse.Namespace, what: str = "") -> str:
    """The title of a command's picture: what it shows (by default the probe's name) and the network."""
    named = args.network if isinstance(args.network, list) else [args.network]
    return f"{what or args.probe.replace('_', ' ')}: {', '.join(str(name) for name in named)}"
