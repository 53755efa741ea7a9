"""Pages of the site that are made of the code: the reference, the notebooks, README and changelog."""

import ast
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jupytext

import fulgurite

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOMS = ("probes", "callbacks", "models", "data", "recipes", "cli")
TEXTS = {"README.md": "readme", "CHANGELOG.md": "changelog", "CONTRIBUTING.md": "contributing"}
PUBLIC = {name for names in fulgurite.PUBLIC.values() for name in names}


def write(docs: Path) -> None:
    """Write them all into `docs/generated`; one that has not changed keeps its date, for Sphinx."""
    root, pages = docs.parent, {}
    for name, page in TEXTS.items():
        pages[f"{page}.md"] = (root / name).read_text()
    for script in sorted((docs / "notebooks").glob("*.py")):
        pages[f"notebooks/{script.stem}.md"] = notebook_page(script)
        pages[f"notebooks/{script.stem}.ipynb"] = jupytext.writes(jupytext.read(script), fmt="ipynb")
    pages |= public_pages((docs / "python.md").read_text())
    pages |= room_pages(root)
    here = docs / "generated"
    for name, text in pages.items():
        file = here / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
    for file in here.rglob("*.*"):
        if str(file.relative_to(here)) not in pages:
            file.unlink()


def notebook_page(script: Path) -> str:
    """The cells of a script in percent format, each with the picture and the text that it gave."""
    title, *cells = jupytext.read(script).cells
    heading, _, rest = title.source.partition("\n")
    word = f"{{download}}`as a notebook <{script.stem}.ipynb>`"
    parts = [heading, f"From `docs/notebooks/{script.name}`; {word}.", rest.strip()]
    for number, cell in enumerate(cells, 1):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        found = sorted((script.parent / "shown").glob(f"{script.stem}_{number:02}*"))
        for file in found:
            text = file.suffix == ".txt"
            parts.append(f"```text\n{file.read_text().rstrip()}\n```" if text else f"![](shown/{file.name})")
    return "\n\n".join(parts) + "\n"


def public_pages(table: str) -> dict[str, str]:
    """For each heading of docs/python.md a page with all public names below it, and a list of these."""
    pages, seen = {}, {getattr(fulgurite, name) for name in PUBLIC}
    for section in table.split("\n## ")[1:]:
        heading = section.partition("\n")[0]
        names = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        page = f"# {heading}\n\n" + documented("fulgurite", [getattr(fulgurite, name) for name in names])
        if others := classes_in([getattr(fulgurite, name) for name in names], seen):
            page += "\n## What these take and return\n\n"
            page += "\n".join(documented(other.__module__, [other]) for other in others)
        slug = re.sub(r"\W+", "_", heading.lower())
        pages[f"api/{slug}.md"] = page
    listed = "\n".join(name.removesuffix(".md") for name in pages)
    text = (
        "# Public names in full\n\n`import fulgurite as fg`; [a line for each](../python.md) is on a page.\n"
    )
    return {**pages, "api.md": f"{text}\n```{{toctree}}\n{listed}\n```\n"}


def classes_in(objects: Sequence[Any], seen: set[Any]) -> list[type]:
    """Our own classes that their signatures name, and the signatures of these in turn; less those seen."""
    found, waiting = [], list(objects)
    while waiting:
        one = waiting.pop(0)
        members = [own for name, own in vars(one).items() if name[0] != "_"] if shows_members(one) else []
        made = [vars(one).get("__init__")] if isinstance(one, type) else []
        hints = [getattr(each, "__annotations__", {}) for each in (one, *members, *made)]
        hints += [member.fget.__annotations__ for member in members if isinstance(member, property)]
        for hint in [own for each in hints for own in each.values()]:
            for own in _parts(hint, one.__module__):
                if own not in seen and own.__module__.startswith("fulgurite.") and own.__name__[0] != "_":
                    seen.add(own)
                    found.append(own)
                    waiting.append(own)
    return found


def _parts(hint: Any, module: str) -> Iterator[type]:
    if isinstance(hint, str):
        named = [getattr(sys.modules[module], word, None) for word in re.findall(r"\w+", hint)]
        yield from (own for own in named if isinstance(own, type))
    elif isinstance(hint, type) and not get_args(hint):
        yield hint
    for part in hint if isinstance(hint, list) else get_args(hint):
        yield from _parts(part, module)


def shows_members(found: Any) -> bool:
    """Whether a class is documented with its methods; those of a probe are the same for all."""
    return isinstance(found, type) and (
        ".callbacks." not in found.__module__ or "framework" in found.__module__
    )


def documented(module: str, objects: Sequence[Any]) -> str:
    """The directives that document these objects of a module."""
    lines = []
    for found in objects:
        kind = "class" if isinstance(found, type) else "function"
        lines.append(f".. auto{kind}:: {module}::{found.__name__}")
        if shows_members(found):
            lines.append("   :members:")
        lines.append("")
    return "```{eval-rst}\n" + "\n".join(lines) + "```\n"


def room_pages(root: Path) -> dict[str, str]:
    """A page for each folder of modules: what each module is, and a line for each of its names."""
    pages = {}
    for room in ROOMS:
        folders = [
            root / room,
            *(one for one in sorted((root / room).rglob("*")) if (one / "__init__.py").exists()),
        ]
        for folder in folders:
            package = ".".join(folder.relative_to(root).parts)
            modules = [file for file in sorted(folder.glob("*.py")) if file.stem != "__init__"]
            pages[f"rooms/{package}.md"] = f"# {package}\n\n" + "\n".join(
                module_section(f"{package}.{file.stem}", file) for file in modules
            )
    listed = "\n".join(name.removesuffix(".md") for name in pages)
    text = "# All modules\n\nWhat each module is, and a line for each name in it; public ones are links.\n"
    return {**pages, "rooms.md": f"{text}\n```{{toctree}}\n{listed}\n```\n"}


def module_section(module: str, file: Path) -> str:
    """What a module is, and a line for each of its functions and classes."""
    tree = ast.parse(file.read_text())
    rows = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            line = (ast.get_docstring(node) or "").partition("\n")[0].replace("|", r"\|")
            known = node.name in fulgurite.PUBLIC.get(module, ())
            rows.append(f"| {public_link(node.name) if known else f'`{node.name}`'} | {line} |")
    table = "\n".join(["| name | what it is or gives |", "|---|---|", *rows, ""]) if rows else ""
    target = f"```{{eval-rst}}\n.. py:module:: fulgurite.{module}\n```"
    return f"## {module}\n\n{target}\n\n{ast.get_docstring(tree)}\n\n{table}"


def public_link(name: str) -> str:
    """A link to where a public name is documented."""
    return f"{{py:obj}}`{name} <fulgurite.{name}>`"


LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def resolve_links(app: "Sphinx", page: str, source: list[str]) -> None:
    """Links to files, as they are followed in a checkout, lead to pages of the site."""
    docs = Path(app.srcdir)
    base = docs.parent if page.removeprefix("generated/") in TEXTS.values() else docs
    if page.startswith("generated/notebooks/"):
        base = docs / "notebooks"
    here = (docs / page).parent
    programs = re.split(r"(```.*?```)", source[0], flags=re.DOTALL)
    for number in range(0, len(programs), 2):
        programs[number] = LINK.sub(lambda link: resolved(link, base, here, docs), programs[number])
        if page == "python":
            row = r"^\| `(\w+)` \|(.*)\| `([\w.]+)` \|$"
            programs[number] = re.sub(
                row,
                lambda cells: (
                    f"| {public_link(cells[1])} |{cells[2]}| {{py:mod}}`{cells[3]} <fulgurite.{cells[3]}>` |"
                ),
                programs[number],
                flags=re.MULTILINE,
            )
        if page != "generated/changelog":  # which has names that are gone
            programs[number] = NAMED.sub(named, programs[number])
    source[0] = "".join(programs)


NAMED = re.compile(r"(^\| )?(?<![`\[])`(fg\.)?(\w+)`(?![`\]])", re.MULTILINE)


def named(code: re.Match) -> str:
    """A public name in code as a link: a class, a function with its `fg.`, or one that a table is about."""
    first, prefix, name = code.groups("")
    if name in PUBLIC and (first or prefix or name[0].isupper()):
        return f"{first}{{py:obj}}`{prefix}{name} <fulgurite.{name}>`"
    return code[0]


def resolved(link: re.Match, base: Path, here: Path, docs: Path) -> str:
    """One link, for the page that it is on; one to what is not there stays, and fails the build."""
    sign, text, target, anchor = link.groups()
    file = (base / target).resolve()
    if not file.exists():
        return link[0]
    place = file.relative_to(docs.parent)
    page = None
    if sign or (file.suffix == ".md" and file.parent == docs):
        page = file
    elif str(place) in TEXTS:
        page = docs / "generated" / f"{TEXTS[str(place)]}.md"
    elif file.parent == docs / "notebooks":
        page = docs / "generated" / "notebooks" / f"{file.stem}.md"
    elif file.is_dir() and place.parts[0] in ROOMS:
        page = docs / "generated" / "rooms" / f"{'.'.join(place.parts)}.md"
    if page:
        return f"{sign}[{text}]({os.path.relpath(page, here)}{anchor or ''})"
    if place.parts[0] in ROOMS:
        words = " ".join(text.replace("`", "").split())
        return f"{{py:mod}}`{words} <fulgurite.{'.'.join(place.with_suffix('').parts)}>`"
    return text
