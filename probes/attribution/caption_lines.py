"""Captions below narrow pictures: in several lines rather than cut, each label next to its number."""

from fulgurite.probes.drawing import length
from fulgurite.probes.render import broken, cut

LINES, OF_A_LABEL = 4, 3
"""At most, of a caption, and of a label in it."""


def caption_lines(caption: str, width: int) -> list[str]:
    """A caption such as "pred a: 97% + b: 81%" in lines of at most `width` pixels.

    Lines end before a "+" where they can. Of more labels than fit it says how many there are; of a very long
    name the number after it stays.
    """
    lines: list[str] = []
    begun: list[int] = []  # in each line
    for place, label in enumerate(caption.split(" + ")):
        own = f"+ {label}" if place else label
        if lines and begun[-1] and length(f"{lines[-1]} {own}") <= width:
            lines[-1] += f" {own}"
            begun[-1] += 1
            continue
        parts = broken(own, width)
        if len(parts) > OF_A_LABEL:
            rest = " ".join(parts[OF_A_LABEL - 1 :])
            parts = [*parts[: OF_A_LABEL - 1], _kept_number(rest, width)]
        lines += parts
        begun += [1, *[0] * (len(parts) - 1)]
    if len(lines) <= LINES:
        return lines
    kept = max(line for line in range(1, LINES) if begun[line])
    return [*lines[:kept], f"+ {sum(begun[kept:])} more"]


def _kept_number(line: str, width: int) -> str:
    """The line cut to the width, in its name where a number follows a colon."""
    name, colon, number = line.rpartition(": ")
    if not colon or length(line) <= width:
        return cut(line, width)
    return cut(name, width - int(length(colon + number))) + colon + number
