"""Runs the notebooks and keeps what their cells show, for the documentation's site.

python docs/run_notebooks.py [NOTEBOOK ...]      all of them without a name; WEIGHTS=FILE: SqueezeNet's
"""

import ast
import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

import jupytext
from PIL import Image

HERE = Path(__file__).parent
LARGE = 160_000  # bytes
KEPT = HERE / "notebooks" / "shown"


def main(*names: str) -> None:
    """Run them in a folder of their own, one after the other."""
    scripts = [HERE / "notebooks" / f"{name}.py" for name in names] or sorted(
        (HERE / "notebooks").glob("*.py")
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for script in sorted(scripts, key=lambda script: script.stem, reverse=True):
            run(script)


def run(script: Path) -> None:
    """Run a notebook's cells, and keep the text and the picture of each."""
    KEPT.mkdir(exist_ok=True)
    for file in KEPT.glob(f"{script.stem}_*"):
        file.unlink()
    room: dict = {"__name__": "__main__"}
    for number, cell in enumerate(jupytext.read(script).cells):
        if cell.cell_type != "code":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            shown = value_of(cell.source, room)
        if printed.getvalue():
            (KEPT / f"{script.stem}_{number:02}.txt").write_text(printed.getvalue())
        if shown is not None and hasattr(shown, "save"):
            keep(shown.convert("RGB"), KEPT / f"{script.stem}_{number:02}")


def keep(picture: Image.Image, file: Path) -> None:
    """Write a picture as PNG, or as JPEG where that would be large, as of photographs."""
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True)
    if small.tell() < LARGE:
        file.with_suffix(".png").write_bytes(small.getvalue())
    else:
        picture.save(file.with_suffix(".jpg"), quality=88)


def value_of(program: str, room: dict) -> object:
    """What the last line of a cell gives, as a notebook shows it."""
    body = ast.parse(program).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), room)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), room) if last else None


if __name__ == "__main__":
    main(*sys.argv[1:])
