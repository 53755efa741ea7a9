"""Reliability diagram: accuracy by confidence, the gap between them, and images in each bin."""

from collections.abc import Mapping

from PIL import Image, ImageDraw

from fulgurite.probes.render import BACKGROUND, INK, LINE, RGB, font, from_pil, grid
from fulgurite.probes.representation.calibration import Calibration

_SIDE, _COUNTS, _LEFT, _FAINT = 240, 50, 34, (66, 66, 72)
_RIGHT, _OVER, _UNDER = (76, 155, 232), (225, 87, 89), (89, 193, 90)


def reliability_diagram(measured: Mapping[str, Calibration]) -> RGB:
    """A panel for each, by name, with its expected calibration error and number of images.

    Blue bars are accuracies; from there to the mean confidence is red where the network is surer than it is
    right, green where it is less sure. Below, how many images are in each bin, of the fullest one.
    """
    return grid([_panel(name, found) for name, found in measured.items()], columns=len(measured), gap=10)


def _panel(name: str, found: Calibration) -> RGB:
    above, between = 2 * LINE + 8, LINE + 6
    height = above + _SIDE + between + _COUNTS + 2 * LINE + 6
    paper = Image.new("RGB", (_LEFT + _SIDE + 16, height), BACKGROUND)
    pen = ImageDraw.Draw(paper)
    pen.text((4, 0), name, INK, font=font())
    summary = f"ECE {found.error:.4f}, {int(found.counts.sum())} images"
    pen.text((4, LINE), summary, INK, font=font())
    bins, base, bottom = len(found.counts), above + _SIDE, above + _SIDE + between + _COUNTS
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = base - tick * _SIDE
        pen.line([(_LEFT, y), (_LEFT + _SIDE, y)], _FAINT)
        pen.text((_LEFT - 5, y), f"{tick:g}", INK, font=font(), anchor="rm")
        pen.text((_LEFT + tick * _SIDE, bottom + 3), f"{tick:g}", INK, font=font(), anchor="mt")
    most = max(1, int(found.counts.max()))
    for place in found.counts.nonzero().flatten().tolist():
        left, right = (_LEFT + (place + end) * _SIDE / bins for end in (0, 1))
        correct, sure = float(found.accuracy[place]), float(found.confidence[place])
        pen.rectangle([left + 1, base - correct * _SIDE, right - 1, base], _RIGHT)
        low, high = sorted((base - correct * _SIDE, base - sure * _SIDE))
        pen.rectangle([left + 1, low, right - 1, high], outline=_OVER if sure > correct else _UNDER, width=2)
        share = int(found.counts[place]) / most
        pen.rectangle([left + 1, bottom - max(1.0, share * _COUNTS), right - 1, bottom], _RIGHT)
    pen.line([(_LEFT, base), (_LEFT + _SIDE, above)], INK)
    pen.line([(_LEFT, bottom), (_LEFT + _SIDE, bottom)], _FAINT)
    pen.text((_LEFT, base + 3), f"images in a bin, up to {most}", INK, font=font())
    pen.text((_LEFT + _SIDE / 2, bottom + LINE + 4), "confidence", INK, font=font(), anchor="mt")
    return from_pil(paper)
