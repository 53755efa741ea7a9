"""Where commands write: pictures, texts and folders, checked before anything is computed."""

from pathlib import Path

from fulgurite.data.image_files import printable
from fulgurite.probes import atomic
from fulgurite.probes.render import RGB, write


def check_writable(out: Path) -> None:
    """See that a picture can be written there, by beginning to.

    Raises:
        ValueError: it cannot, or it would be no PNG or JPEG.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out {out}; wanted a name that ends in .png or .jpg")
    check_writable_text(out)


def check_writable_text(out: Path) -> None:
    """See that a file can be written there, by beginning to.

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
    """See that a folder can be written to, or made, if there is to be one.

    Raises:
        ValueError: it is a file, or lies in no folder.
    """
    if folder is not None and ((folder.exists() and not folder.is_dir()) or not folder.parent.is_dir()):
        raise ValueError(f"--{option} {printable(folder)} is no folder; wanted one, or a new one's name")


def write_picture(pixels: RGB, out: Path, summary: str) -> None:
    """Write the picture, and say where it is, how large, and a `summary`."""
    write(pixels, out)
    print(f"{printable(out)}: {pixels.shape[2]} x {pixels.shape[1]}, {summary}")
