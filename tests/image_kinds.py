"""Image files of every kind: good ones, damaged ones, bombs, and files that are not images at all.

The good ones are `PICTURE`, black to the left and of grey 200 to the right, unless they are too small for it.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, PngImagePlugin

SHADES = np.zeros((30, 40), np.uint8)
SHADES[:, 20:] = 200
PICTURE = Image.fromarray(SHADES)


def saved(image: Image.Image, form: str, **how) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, form, **how)  # saving leaves things behind on an image
    return file.getvalue()


def of(form: str, mode: str = "RGB", **how) -> bytes:
    return saved(PICTURE.convert(mode), form, **how)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def pixels(image: np.ndarray) -> bytes:
    """The data of a PNG, unfiltered."""
    return chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in image)))


def tiff(width: int, height: int, data: bytes, *, order: str = "<", **tags: int) -> bytes:
    """A TIFF of one strip; tags by name, some of which are given beforehand."""
    numbers = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262}
    numbers |= {"offset": 273, "samples": 277, "rows": 278, "length": 279, "kind": 339}
    wanted = {"width": width, "height": height, "bits": 8, "compression": 1, "photometric": 1, "offset": 8}
    wanted |= {"samples": 1, "rows": height, "length": len(data), **tags}
    entries = sorted((numbers[name], value) for name, value in wanted.items())
    directory = struct.pack(f"{order}H", len(entries))
    directory += b"".join(struct.pack(f"{order}HHII", number, 4, 1, value) for number, value in entries)
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HI", 42, 8 + len(data)) + data + directory + bytes(4)


def twelve_bits() -> bytes:
    values = (SHADES.astype(np.uint32) * 4095 // 255).ravel()
    pairs = (values[::2] << 12) | values[1::2]
    data = b"".join(int(pair).to_bytes(3, "big") for pair in pairs)
    return tiff(40, 30, data, bits=12)


def turned(orientation: int, image: Image.Image, form: str = "JPEG", **how) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return saved(image, form, exif=exif, **how)


def strip(width: int, height: int) -> bytes:
    return saved(Image.new("L", (width, height), 200), "PNG")


def with_text(image: Image.Image, megabytes: int) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", "0" * (megabytes << 20), zip=True)
    return saved(image, "PNG", pnginfo=info)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", of("PNG"))
    return file.getvalue()


def numbers(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def floats(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values.astype(np.float32)), "TIFF")


def whole(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values.astype(np.int32)), "TIFF")


def spoilt(value: float) -> np.ndarray:
    values = SHADES / 255
    values[3, 3] = value
    return values


def cut(file: bytes, part: float = 0.5) -> bytes:
    return file[: int(len(file) * part)]


def bitten(file: bytes, at: float = 0.5) -> bytes:
    """The file with one byte changed."""
    place = int(len(file) * at)
    return file[:place] + bytes([file[place] ^ 0xFF]) + file[place + 1 :]


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))


def frames(form: str, **how) -> bytes:
    """Three of them, the first one the picture."""
    others = [Image.new("L", (40, 30), shade) for shade in (90, 20)]
    return saved(PICTURE, form, save_all=True, append_images=others, **how)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 40 30
%%EndComments
(canary) (w) file closefile
showpage
%%EOF
"""

GOOD: dict[str, Callable[[], bytes]] = {
    "png_grey.png": lambda: of("PNG", "L"),
    "png_colour.png": lambda: of("PNG"),
    "png_palette.png": lambda: of("PNG", "P"),
    "png_one_bit.png": lambda: of("PNG", "1"),
    "png_grey_alpha.png": lambda: of("PNG", "LA"),
    "png_alpha.png": lambda: of("PNG", "RGBA"),
    "png_sixteen_bits.png": lambda: saved(Image.fromarray(SHADES.astype(np.uint16) * 257), "PNG"),
    "png_sixteen_bit_colour.png": lambda: png(
        40, 30, pixels((SHADES.astype(">u2") * 257).repeat(3, 1)), depth=16, colour=2
    ),
    "png_animated.png": lambda: frames("PNG"),
    "png_turned.png": lambda: turned(3, PICTURE.rotate(180), "PNG"),
    "png_small_text.png": lambda: with_text(PICTURE, 0),
    "png_damaged_icc.png": lambda: of("PNG", icc_profile=b"no profile"),
    "jpeg_grey.jpg": lambda: of("JPEG", "L", quality=100),
    "jpeg_colour.jpeg": lambda: of("JPEG", quality=100),
    "jpeg_cmyk.jpg": lambda: of("JPEG", "CMYK", quality=100),
    "jpeg_progressive.jpg": lambda: of("JPEG", quality=100, progressive=True),
    "jpeg_turned.jpg": lambda: turned(3, PICTURE.rotate(180), quality=100),
    "jpeg_on_its_side.jpg": lambda: turned(6, PICTURE.rotate(90, expand=True), quality=100),
    "jpeg_turned_by_99.jpg": lambda: turned(99, PICTURE, quality=100),
    "jpeg_damaged_exif.jpg": lambda: of("JPEG", quality=100, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "jpeg_with_a_tail.jpg": lambda: of("JPEG", quality=100) + b"\0tail" * 99,
    "jpeg_of_a_pair.jpg": lambda: frames("MPO", quality=100),
    "jpeg_called.png": lambda: of("JPEG", quality=100),
    "gif.gif": lambda: of("GIF", "L"),
    "gif_animated.gif": lambda: frames("GIF"),
    "webp.webp": lambda: of("WEBP", lossless=True),
    "webp_alpha.webp": lambda: of("WEBP", "RGBA", lossless=True),
    "webp_animated.webp": lambda: frames("WEBP", lossless=True),
    "bmp.bmp": lambda: of("BMP"),
    "bmp_palette.bmp": lambda: of("BMP", "P"),
    "ppm.ppm": lambda: of("PPM"),
    "pgm_text.pgm": lambda: b"P2 40 30 255 " + " ".join(map(str, SHADES.ravel().tolist())).encode(),
    "pgm_sixteen_bits.pgm": lambda: b"P5 40 30 65535\n" + (SHADES.astype(">u2") * 257).tobytes(),
    "pfm.ppm": lambda: saved(Image.fromarray((SHADES / 255).astype(np.float32)), "PPM"),
    "tiff_colour.tif": lambda: of("TIFF"),
    "tiff_grey_alpha.tif": lambda: of("TIFF", "LA"),
    "tiff_palette_alpha.tif": lambda: of("TIFF", "PA"),
    "tiff_lzw.tiff": lambda: of("TIFF", compression="tiff_lzw"),
    "tiff_jpeg.tif": lambda: of("TIFF", compression="jpeg", quality=100),
    "tiff_fax.tif": lambda: of("TIFF", "1", compression="group4"),
    "tiff_cmyk.tif": lambda: of("TIFF", "CMYK"),
    "tiff_ycbcr.tif": lambda: of("TIFF", "YCbCr"),
    "tiff_lab.tif": lambda: of("TIFF", "LAB"),
    "tiff_twelve_bits.tif": twelve_bits,
    "tiff_sixteen_bits.tif": lambda: saved(Image.fromarray(SHADES.astype(np.uint16) * 257), "TIFF"),
    "tiff_sixteen_bits_big.tif": lambda: tiff(
        40, 30, (SHADES.astype(">u2") * 257).tobytes(), order=">", bits=16
    ),
    "tiff_sixteen_bits_white_is_0.tif": lambda: tiff(
        40, 30, (65535 - SHADES.astype("<u2") * 257).tobytes(), bits=16, photometric=0
    ),
    "tiff_thirty_two_bits.tif": lambda: whole(SHADES.astype(np.int32) * 257),
    "tiff_floats.tif": lambda: floats(SHADES / 255),
    "tiff_floats_big.tif": lambda: tiff(
        40, 30, (SHADES / 255).astype(">f4").tobytes(), order=">", bits=32, kind=3
    ),
    "tiff_pages.tif": lambda: frames("TIFF"),
}
SMALL: dict[str, Callable[[], bytes]] = {
    "one_pixel.png": lambda: strip(1, 1),
    "tall.png": lambda: strip(1, 10_000),
    "wide.png": lambda: strip(60_000, 1),
}
"""Of grey 200 alone."""
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.png": (lambda: b"", "finds no"),
    "text.jpg": (lambda: b"no image", "finds no"),
    "script.png": (lambda: b"#!/bin/sh\ntouch canary\n", "finds no"),
    "page.webp": (lambda: b"<html><script>1</script></html>", "finds no"),
    "svg.png": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "finds no"),
    "pdf.jpg": (lambda: saved(PICTURE, "PDF"), "finds no"),
    "eps.jpg": (lambda: EPS, "finds no"),
    "eps_in_dos.tif": (
        lambda: struct.pack("<4sIIIIII", b"\xc5\xd0\xd3\xc6", 30, len(EPS), 0, 0, 0, 0) + bytes(2) + EPS,
        "finds no",
    ),
    "heic.jpg": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "finds no"),
    "avif.jpg": (lambda: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(99), "finds no"),
    "jpeg_2000.jpg": (lambda: of("JPEG2000"), "finds no"),
    "icon.png": (lambda: of("ICO"), "finds no"),
    "targa.png": (lambda: of("TGA"), "finds no"),
    "fits.tif": (lambda: b"SIMPLE  =                    T".ljust(2880), "finds no"),
    "dicom.jpg": (lambda: bytes(128) + b"DICM\x02\0\0\0UL\x04\0", "finds no"),
    "windows_metafile.gif": (lambda: b"\xd7\xcd\xc6\x9a" + bytes(80), "finds no"),
    "array.png": (lambda: numbers(SHADES), "finds no"),
    "pickle.png": (lambda: pickle.dumps(print), "finds no"),
    "archive.jpg": (zipped, "finds no"),
    "jpeg_cut.jpg": (lambda: cut(saved(noise(), "JPEG")), "truncated"),
    "jpeg_progressive_cut.jpg": (lambda: cut(saved(noise(), "JPEG", progressive=True)), "truncated"),
    "png_cut.png": (lambda: cut(saved(noise(), "PNG")), "truncated"),
    "png_bitten.png": (lambda: bitten(saved(noise(), "PNG")), ""),
    "png_bitten_header.png": (lambda: bitten(of("PNG"), at=20 / len(of("PNG"))), "finds no"),
    "png_without_pixels.png": (lambda: png(40, 30), ""),
    "png_of_no_width.png": (lambda: png(0, 30, pixels(SHADES)), ""),
    "png_of_rubbish.png": (lambda: png(40, 30, chunk(b"IDAT", b"rubbish")), ""),
    "png_text_bomb.png": (lambda: with_text(PICTURE, 100), "too large"),
    "png_icc_bomb.png": (
        lambda: png(40, 30, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(100 << 20))), pixels(SHADES)),
        "too large",
    ),
    "png_bomb.png": (lambda: png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(1 << 20)))), "bomb"),
    "gif_cut.gif": (lambda: cut(saved(noise().convert("L"), "GIF")), "truncated"),
    "gif_bomb.gif": (
        lambda: b"GIF89a\xff\xff\xff\xff\0\0\0," + bytes(4) + b"\xff\xff\xff\xff\0\x02\0;",
        "bomb",
    ),
    "webp_cut.webp": (lambda: cut(saved(noise(), "WEBP")), ""),
    "bmp_cut.bmp": (lambda: cut(saved(noise(), "BMP")), "truncated"),
    "bmp_bomb.bmp": (
        lambda: b"BM" + struct.pack("<IIIIiiHHIIIIII", 0, 0, 54, 40, 99_999, 99_999, 1, 24, 0, 0, 0, 0, 0, 0),
        "bomb",
    ),
    "ppm_bomb.ppm": (lambda: b"P6 99999 99999 255\n" + bytes(99), "bomb"),
    "ppm_cut.ppm": (lambda: cut(of("PPM")), "truncated"),
    "ppm_of_endless_numbers.ppm": (lambda: b"P2 " + b"9" * 99_999, ""),
    "tiff_cut.tif": (lambda: cut(of("TIFF")), ""),
    "tiff_bomb.tif": (lambda: tiff(90_000, 90_000, b"x", length=1), "bomb"),
    "tiff_far_away.tif": (lambda: tiff(40, 30, SHADES.tobytes(), offset=0xFFFFFFF0), "truncated"),
    "tiff_in_circles.tif": (lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0", ""),
    "tiff_nan.tif": (lambda: floats(spoilt(float("nan"))), "NaN or infinite"),
    "tiff_infinite.tif": (lambda: floats(spoilt(float("inf"))), "NaN or infinite"),
    "tiff_floats_to_255.tif": (lambda: floats(SHADES), "go from 0 to 200; wanted 0 to 1"),
    "tiff_floats_below_0.tif": (lambda: floats(SHADES / 255 - 0.5), "go from -0.5"),
    "tiff_all_thirty_two_bits.tif": (lambda: whole(SHADES.astype(np.int64) << 23), "wanted 0 to 65535"),
    "tiff_32_bits_like_8.tif": (lambda: whole(SHADES.astype(np.int32)), "where white is 65535"),
    "tiff_below_0.tif": (lambda: whole(SHADES.astype(np.int32) - 300), "go from -300"),
    "tiff_doubles.tif": (
        lambda: tiff(40, 30, (SHADES / 255).astype("<f8").tobytes(), bits=64, kind=3),
        "finds no",
    ),
}
"""What is in the file, and part of the reason why it cannot be read."""
