"""Decoding of image files to 8-bit grey or colour, from any mode of known formats."""

import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fulgurite.data.image_files import printable

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read, by Pillow's names: those of photographs and data sets that every Pillow can
decode. Pillow recognises many more, by their first bytes, whatever the suffix. Each is a parser exposed to
untrusted files, and one of them, EPS, runs a program (Ghostscript) on the file.
"""


class UnreadableImageError(ValueError):
    """A file that cannot be read as an image; `reason` says why, in a line without the file's name.

    `lasting` says whether the file itself is at fault, and not the disk, the network or a lack of memory.
    """

    message = "cannot be read as an image"
    """By this attribute, a DataLoader rebuilds the error of a worker process from `message=`."""

    def __init__(self, file: Path = Path(), reason: str = "", *, lasting: bool = True, message: str = ""):
        if message:  # which ends with the type and the text of the error in the loading process
            text = message.strip().splitlines()[-1].partition("Error: ")[2]
        else:
            text = f"{printable(file)} {self.message}: {reason}"
        super().__init__(text)
        self.file, self.reason, self.lasting = file, reason, lasting

    def __reduce__(self):
        return _unreadable, (self.file, self.reason, self.lasting, str(self))


def _unreadable(file: Path, reason: str, lasting: bool, text: str) -> UnreadableImageError:
    error = UnreadableImageError(file, reason, lasting=lasting)
    error.args = (text,)
    return error


@contextmanager
def opened(file: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """The file as Pillow opens it, not decoded yet; errors in the block are reported as errors of the file.

    With its `content`, nothing is read: the file is one in an archive. FIFOs and devices are not opened: they
    could wait for ever.

    Raises:
        UnreadableImageError: it is not a regular file, has another format than `FORMATS` or more pixels than
            Pillow considers safe (179 million), or is damaged.
    """
    try:
        if content is None and not stat.S_ISREG(file.stat().st_mode):
            raise ValueError("it is not a regular file")
        with warnings.catch_warnings():
            # from 89 million pixels on Pillow warns without the file's name; from 179 million on it refuses
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file if content is None else io.BytesIO(content), formats=FORMATS)
        with image:
            if 0 in image.size:
                raise ValueError("it has no pixels")
            yield image
    # broken files make decoders raise anything: OSError, SyntaxError, struct.error, zlib.error ...
    except Exception as error:
        elsewhere = isinstance(error, MemoryError) or (isinstance(error, OSError) and bool(error.errno))
        raise UnreadableImageError(file, _reason(error), lasting=not elsewhere) from error


def read_image(
    file: Path, *, channels: int, content: bytes | None = None, white: int | None = None
) -> Image.Image:
    """The image in a file or in its `content`, the first one of several, as `upright` gives it.

    Raises:
        UnreadableImageError: it cannot be read; see `opened` and `upright`.
    """
    with opened(file, content) as image:
        return upright(image, channels=channels, white=white)


def upright(image: Image.Image, *, channels: int, white: int | None = None) -> Image.Image:
    """The image as its camera was held, in grey (1 channel) or colour (3), transparency laid on white.

    Grey of 16 bits is scaled from 0 to 65535, of 12 bits from 0 to 4095; where a file does not state its bit
    depth, from 0 to `white`, if that is given. Integers of 32 bits are read as 16 bits, floating point as [0,
    1].

    Raises:
        ValueError: pixels lie outside this range, or are not finite; or integers of 32 bits look like 8 bits.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scaled(image, white)
    elif image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode == "LAB":  # which Pillow converts to grey only through RGB
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _scaled(image: Image.Image, white: int | None) -> Image.Image:
    """Grey in 8 bits."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))[0] if image.mode.startswith("I;16") else 16
    top, kind = (1, "floating point") if image.mode == "F" else (2**bits - 1, "whole numbers")
    if white is not None and bits == 16 and image.mode.startswith("I;16"):
        top = white
    values = np.asarray(image if image.mode in ("F", "I") else image.convert("I"))
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are NaN or infinite")
    grey = np.rint(values * (255 / top))
    if grey.min() < 0 or grey.max() > 255:
        what_would_do = "give a larger white" if top == white else "scale them first"
        raise ValueError(
            f"its pixels go from {values.min():g} to {values.max():g}; "
            f"wanted 0 to {top} for {kind}, so {what_would_do}"
        )
    if image.mode == "I" and 0 < values.max() <= 255:
        raise ValueError(
            f"its 32-bit pixels go to {values.max()} alone, where white is {top}; save them in 8 or 16 bits"
        )
    if tags.get(262) == 0:  # white is zero; Pillow inverts only 8 bits
        grey = 255 - grey
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey.astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"Pillow finds no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image in it"
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(message.split())) or type(error).__name__
