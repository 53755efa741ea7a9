"""Drawings as files of vectors: SVG and PDF, with text as text; pictures in them stay pixels."""

import base64
import io
import zlib
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from PIL import Image

from fulgurite.probes.drawing import RGB, Dot, Drawing, Line, Part, Text, drawing_of, font, length
from fulgurite.probes.style import Colour, rgb

# of Helvetica, in thousandths of its size, from the blank to the tilde
_WIDTHS = (
    *(278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278),
    *(556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556),
    *(1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778),
    *(667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556),
    *(333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556),
    *(556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584),
)


def as_svg(pixels: RGB) -> str:
    """The picture as an SVG file."""
    drawing = _drawing(pixels)
    size = f'width="{drawing.width}" height="{drawing.height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {drawing.width} {drawing.height}" '
        f'font-family="Helvetica, Arial, sans-serif">\n{"".join(_svg(drawing))}</svg>\n'
    )


def as_pdf(pixels: RGB) -> bytes:
    """The picture as a PDF file of one page, a point for each pixel."""
    drawing = _drawing(pixels)
    images = list[RGB]()
    content = f"1 0 0 -1 0 {drawing.height} cm\n{''.join(_pdf(drawing, images))}".encode("cp1252", "replace")
    names = " ".join(f"/I{place} {6 + place} 0 R" for place in range(len(images)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {drawing.width} {drawing.height}] /Contents 5 0 R "
        f"/Resources << /Font << /F 4 0 R >> /XObject << {names} >> >> >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        _stream(b"", content),
        *(_image(own) for own in images),
    ]
    file, places = bytearray(b"%PDF-1.4\n"), list[int]()
    for number, body in enumerate(objects, 1):
        places.append(len(file))
        file += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = len(file)
    file += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    file += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    file += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(file)


def _drawing(pixels: RGB) -> Drawing:
    if (drawing := drawing_of(pixels)) is not None:
        return drawing
    whole = Drawing(pixels.shape[2], pixels.shape[1])
    whole.put((0, 0), pixels)
    return whole


def _baseline(mark: Text) -> float:
    """How far below `mark.at` the baseline is."""
    ascent = font(mark.size).getmetrics()[0] if hasattr(font(mark.size), "getmetrics") else mark.size  # pyright: ignore[reportAttributeAccessIssue]
    return {"a": ascent, "t": 0.75 * mark.size, "m": 0.36 * mark.size}[mark.anchor[1]]


def _start(mark: Text) -> float:
    """How far left of `mark.at` the text begins."""
    return {"l": 0.0, "m": 0.5, "r": 1.0}[mark.anchor[0]] * length(mark.words, mark.size)


def _svg(drawing: Drawing) -> Iterator[str]:
    paper = _hex(drawing.background)
    yield f'<rect width="{drawing.width}" height="{drawing.height}" fill="{paper}"/>\n'
    for mark in _in_order(drawing):
        if isinstance(mark, Line):
            points = " ".join(f"{x:.2f},{y:.2f}" for x, y in mark.points)
            how = f'fill="{_hex(mark.colour)}"'
            if not mark.filled:
                how = f'fill="none" stroke="{_hex(mark.colour)}" stroke-width="{mark.width:g}"'
            yield f'<{"polygon" if mark.filled else "polyline"} points="{points}" {how}/>\n'
        elif isinstance(mark, Dot):
            x, y = mark.at
            yield f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{mark.radius:g}" fill="{_hex(mark.colour)}"/>\n'
        elif isinstance(mark, Text):
            yield _svg_text(mark)
        else:
            yield f'<g transform="translate({mark.at[0]},{mark.at[1]})">\n'
            yield from [_svg_image(mark)] if mark.drawing is None else _svg(mark.drawing)
            yield "</g>\n"


def _svg_text(mark: Text) -> str:
    (x, y), wide = mark.at, length(mark.words, mark.size)
    left, base = (x - _start(mark), y + _baseline(mark))
    turn = ""
    if mark.upright:
        left, base = x - wide / 2, y + 0.36 * mark.size
        turn = f' transform="rotate(-90 {x:.2f} {y:.2f})"'
    return (
        f'<text x="{left:.2f}" y="{base:.2f}" font-size="{mark.size}" fill="{_hex(mark.colour)}" '
        f'xml:space="preserve" textLength="{wide:.1f}" lengthAdjust="spacingAndGlyphs"{turn}>'
        f"{escape(mark.words)}</text>\n"
    )


def _svg_image(mark: Part) -> str:
    file = io.BytesIO()
    Image.fromarray(mark.pixels.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    data, (high, wide) = base64.b64encode(file.getvalue()).decode(), mark.pixels.shape[1:]
    return f'<image width="{wide}" height="{high}" href="data:image/png;base64,{data}"/>\n'


def _pdf(drawing: Drawing, images: list[RGB]) -> Iterator[str]:
    yield f"{_fill(drawing.background)} 0 0 {drawing.width} {drawing.height} re f\n"
    for mark in _in_order(drawing):
        if isinstance(mark, Line):
            yield _pdf_path(mark)
        elif isinstance(mark, Dot):
            yield _pdf_dot(mark)
        elif isinstance(mark, Text):
            yield _pdf_text(mark)
        else:
            yield f"q 1 0 0 1 {mark.at[0]} {mark.at[1]} cm\n"
            if mark.drawing is None:
                high, wide = mark.pixels.shape[1:]
                # images stand on their lower edge, and the page is turned over
                yield f"{wide} 0 0 {-high} 0 {high} cm /I{len(images)} Do\n"
                images.append(mark.pixels)
            else:
                yield from _pdf(mark.drawing, images)
            yield "Q\n"


def _pdf_path(mark: Line) -> str:
    (x, y), *rest = mark.points
    path = f"{x:.2f} {y:.2f} m " + " ".join(f"{x:.2f} {y:.2f} l" for x, y in rest)
    if mark.filled:
        return f"{_fill(mark.colour)} {path} f\n"
    return f"{_fill(mark.colour).replace('rg', 'RG')} {mark.width:g} w {path} S\n"


def _pdf_dot(mark: Dot) -> str:
    (x, y), r = mark.at, mark.radius
    k = 0.5523 * r  # of a quarter of a circle, as a curve of the third degree
    quarters = [((-1, 0), (0, -1)), ((0, -1), (1, 0)), ((1, 0), (0, 1)), ((0, 1), (-1, 0))]
    path = f"{x - r:.2f} {y:.2f} m"
    for (ax, ay), (bx, by) in quarters:
        places = (r * ax + k * bx, r * ay + k * by, r * bx + k * ax, r * by + k * ay, r * bx, r * by)
        path += " " + " ".join(f"{p + (y if n % 2 else x):.2f}" for n, p in enumerate(places)) + " c"
    return f"{_fill(mark.colour)} {path} f\n"


def _pdf_text(mark: Text) -> str:
    words = mark.words.encode("cp1252", "replace")
    own = sum(_WIDTHS[byte - 32] if 32 <= byte < 127 else 556 for byte in words) * mark.size / 1000
    wide = length(mark.words, mark.size)
    stretch = 100 * wide / own if own else 100
    shown = words.decode("cp1252", "replace").translate({40: "\\(", 41: "\\)", 92: "\\\\"})
    x, y = mark.at
    place = f"1 0 0 -1 {x - _start(mark):.2f} {y + _baseline(mark):.2f}"
    if mark.upright:
        place = f"0 -1 -1 0 {x + 0.36 * mark.size:.2f} {y + wide / 2:.2f}"
    return f"BT {_fill(mark.colour)} /F {mark.size} Tf {stretch:.1f} Tz {place} Tm ({shown}) Tj ET\n"


def _stream(head: bytes, content: bytes) -> bytes:
    packed = zlib.compress(content)
    how = f" /Filter /FlateDecode /Length {len(packed)} >>\nstream\n".encode()
    return b"<< " + head + how + packed + b"\nendstream"


def _image(pixels: RGB) -> bytes:
    high, wide = pixels.shape[1:]
    head = f"/Type /XObject /Subtype /Image /Width {wide} /Height {high} /ColorSpace /DeviceRGB "
    head += "/BitsPerComponent 8"
    return _stream(head.encode(), pixels.permute(1, 2, 0).contiguous().numpy().tobytes())


def _in_order(drawing: Drawing) -> Sequence[Line | Dot | Text | Part]:
    """As pixels have them: lines and dots, pictures, text."""
    return sorted(drawing.marks, key=lambda mark: isinstance(mark, Part) + 2 * isinstance(mark, Text))


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{part:02x}" for part in rgb(colour))


def _fill(colour: Colour) -> str:
    return " ".join(f"{part / 255:.4g}" for part in rgb(colour)) + " rg"
