"""A page of HTML with text, tables and pictures, in a folder of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.render import RGB, write

FILE = "index.html"
STYLE = """
body { background: #18181c; color: #e1e1e6; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2em auto; max-width: 1100px; padding: 0 1em; }
h1 { font-size: 1.5em; }
h2 { font-size: 1.15em; margin: 2em 0 .3em; border-top: 1px solid #424248; padding-top: 1em; }
p { max-width: 46em; color: #b4b4bc; }
.picture { max-width: none; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: .5em 0; }
td, th { padding: .15em .9em .15em 0; text-align: left; vertical-align: top; }
th { color: #b4b4bc; font-weight: normal; border-bottom: 1px solid #424248; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
"""


@dataclass
class Section:
    """A part of a page, under a heading: text, then a table, then pictures by the names of their files.

    Animations are the bytes of GIF files, also by their names.
    """

    heading: str
    text: str = ""
    table: Sequence[Sequence[str]] = ()
    pictures: dict[str, RGB] = field(default_factory=dict)
    animations: dict[str, bytes] = field(default_factory=dict)


def write_page(folder: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page, its pictures as PNG and its animations; the first row of a table is its head."""
    folder.mkdir(exist_ok=True)
    for section in sections:
        for name, pixels in section.pictures.items():
            write(pixels, folder / f"{name}.png")
        for name, file in section.animations.items():
            write_atomic(folder / f"{name}.gif", file)
    body = "\n".join(_section(section) for section in sections)
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
    write_atomic(folder / FILE, page)


def _section(section: Section) -> str:
    lines = [f"<h2>{escape(section.heading)}</h2>"]
    if section.text:
        lines.append(f"<p>{escape(section.text)}</p>")
    if section.table:
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in section.table[1:]]
        head = "".join(f"<th>{escape(cell)}</th>" for cell in section.table[0])
        lines.append("<table>\n" + "\n".join(f"<tr>{row}</tr>" for row in [head, *rows]) + "\n</table>")
    alt = escape(section.heading)
    lines += [
        f'<p class="picture"><img src="{quote(name)}.png" alt="{alt}"></p>' for name in section.pictures
    ]
    if section.animations:
        moving = [f'<img src="{quote(name)}.gif" alt="{alt}">' for name in section.animations]
        lines.append(f'<p class="picture">{" ".join(moving)}</p>')
    return "\n".join(lines)
