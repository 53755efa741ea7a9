"""Reliability diagram: accuracy by confidence, the gap between them, and images in each bin."""

from collections.abc import Mapping

from fulgurite.probes.counted import counted
from fulgurite.probes.drawing import Drawing
from fulgurite.probes.render import RGB, grid, stacked
from fulgurite.probes.representation.calibration import Calibration
from fulgurite.probes.style import LINE, colour, theme

_SIDE, _COUNTS, _LEFT = 240, 50, 52


def reliability_diagram(measured: Mapping[str, Calibration]) -> RGB:
    """A panel for each, by name, with its expected calibration error and number of images.

    Blue bars are accuracies; from there to the mean confidence is red where the network is overconfident,
    green where it is underconfident, as the legend says. Below, how many images are in each bin.
    """
    panels = [_panel(name, found) for name, found in measured.items()]
    gaps = [(own.confidence - own.accuracy)[own.counts > 0] for own in measured.values()]
    over, under = (any(bool((sign * gap > 0).any()) for gap in gaps) for sign in (1, -1))
    return stacked([grid(panels, columns=len(measured), gap=10), _legend(over=over, under=under)], gap=2)


def _legend(*, over: bool, under: bool) -> RGB:
    """What bars, frames and the line are, each next to a sample of it."""
    frames = {
        "gap: confidence above accuracy (overconfident)": theme().error if over else "",
        "gap: confidence below accuracy (underconfident)": theme().fine if under else "",
    }
    shown = {words: ink for words, ink in frames.items() if ink}
    paper = Drawing(310, (2 + len(shown)) * LINE + 4)
    for row, (words, ink) in enumerate(shown.items(), 1):
        box = _box(6, row * LINE + 4, 18, row * LINE + 13)
        paper.line([*box, box[0]], ink, 2)
        paper.text((26, row * LINE + 1), words)
    paper.area(_box(6, 4, 18, 13), colour(0))
    paper.text((26, 1), "accuracy: share of correct predictions")
    last = (1 + len(shown)) * LINE
    paper.line([(6, last + 13), (18, last + 4)], theme().ink)
    paper.text((26, last + 1), "accuracy equal to confidence (calibrated)")
    return paper.pixels()


def _panel(name: str, found: Calibration) -> RGB:
    above, between = 2 * LINE + 8, LINE + 6
    paper = Drawing(_LEFT + _SIDE + 16, above + _SIDE + between + _COUNTS + 2 * LINE + 6)
    paper.text((4, 0), name)
    paper.text((4, LINE), f"ECE {found.error:.4f}, {counted(int(found.counts.sum()), 'image')}")
    bins, base, bottom = len(found.counts), above + _SIDE, above + _SIDE + between + _COUNTS
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = base - tick * _SIDE
        paper.line([(_LEFT, y), (_LEFT + _SIDE, y)], theme().faint)
        paper.text((_LEFT - 5, y), f"{tick:g}", anchor="rm")
        paper.text((_LEFT + tick * _SIDE, bottom + 3), f"{tick:g}", anchor="mt")
    most = max(1, int(found.counts.max()))
    for place in found.counts.nonzero().flatten().tolist():
        left, right = (_LEFT + (place + end) * _SIDE / bins for end in (0, 1))
        left, right = left + 1, right - 1
        correct, sure = float(found.accuracy[place]), float(found.confidence[place])
        paper.area(_box(left, base - correct * _SIDE, right, base), colour(0))
        gap = _box(left + 1, base - correct * _SIDE, right - 1, base - sure * _SIDE)
        paper.line([*gap, gap[0]], theme().error if sure > correct else theme().fine, 2)
        share = int(found.counts[place]) / most
        paper.area(_box(left, bottom - max(1.0, share * _COUNTS), right, bottom), colour(0))
    paper.line([(_LEFT, base), (_LEFT + _SIDE, above)], theme().ink)
    paper.line([(_LEFT, bottom), (_LEFT + _SIDE, bottom)], theme().faint)
    paper.text((LINE / 2 + 2, above + _SIDE / 2), "accuracy", anchor="mm", upright=True)
    paper.text((_LEFT, base + 3), f"images in each bin, {most} in the fullest")
    paper.text((LINE / 2 + 2, bottom - _COUNTS / 2), "images", anchor="mm", upright=True)
    paper.text(
        (_LEFT + _SIDE / 2, bottom + LINE + 4), "confidence (probability of the prediction)", anchor="mt"
    )
    return paper.pixels()


def _box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
