"""Docstrings as reStructuredText: they are plain text with names in backticks and bare addresses."""

import re

import fulgurite

SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Yields", "Example", "Examples", "Note")
LINKED = {
    name
    for module, names in fulgurite.PUBLIC.items()
    for name in names
    if module != "probes.objectives" or name[0].isupper()  # words that arguments have for names, too
}
CODE = re.compile(r"(``[^`]+``|`[^`]+`)")


def to_rest(app, what: str, name: str, found: object, options: object, lines: list[str]) -> None:  # noqa: ARG001
    """Change the lines in place, before napoleon reads their sections."""
    lines[:] = [line.expandtabs() for line in rest(lines)]


def rest(lines: list[str]) -> list[str]:
    """The same text, in which nothing but names, sections and indented programs means anything."""
    changed, program = [], 0
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if program and line.strip() and indent < program:
            program = 0
        following = next((later for later in lines[number + 1 :] if later.strip()), "")
        deeper = len(following) - len(following.lstrip())
        opens = line.endswith(":") and lines[number + 1 : number + 2] != [following] and deeper > indent
        if not program and opens and line.strip(" :") not in SECTIONS:
            program = deeper
            changed.append(escaped(line) + ":")
        else:
            changed.append(line if program else escaped(line))
    return changed


def escaped(line: str) -> str:
    """A line outside of programs: names stay code, addresses become links, other signs mean nothing."""
    parts = CODE.split(line)
    return "".join(_linked(part) if number % 2 else _plain(part) for number, part in enumerate(parts))


def _linked(code: str) -> str:
    name = code.strip("`")
    return f":py:obj:`{name} <fulgurite.{name}>`" if name in LINKED else code


def _plain(text: str) -> str:
    text = re.sub(r"(?<![\w/])(\*{1,2})(?=\w)", lambda stars: "".join(rf"\{star}" for star in stars[1]), text)
    text = re.sub(r"(?<=\w)_(?=[\W]|$)|\|", lambda sign: rf"\{sign[0]}", text)
    return re.sub(
        r"(?<![\w/.])((?:arxiv\.org/abs|doi\.org|openreview\.net|distill\.pub|ieeexplore\.ieee\.org)/[\w./()?=-]*[\w)])",
        r"https://\1",
        text,
    )
