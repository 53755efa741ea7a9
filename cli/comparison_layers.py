"""Sections of a report on two runs: similarity of layers by CKA, and stitching."""

from fulgurite.callbacks.framework.sample import Sample, SampleData
from fulgurite.cli.comparison import Comparison
from fulgurite.cli.html_page import Section
from fulgurite.cli.stitch import stitching_plot
from fulgurite.probes.matrix_plot import matrix_plot
from fulgurite.probes.render import grid
from fulgurite.probes.representation.layer_cka import layer_cka
from fulgurite.probes.representation.stitching import FITTED, stitching
from fulgurite.probes.untrained import untrained


def cka(two: Comparison) -> Section:
    """CKA of all stages of one run with all of the other's, and of an untrained network's with these."""
    data, (one, other) = SampleData(two.test), (run.network for run in two.runs)
    found, control = layer_cka(one, other, data), layer_cka(untrained(one), other, data)
    plots = [
        matrix_plot(own.matrix, own.rows, own.columns, title=title)
        for own, title in (
            (found, "rows the first, columns the second"),
            (control, "rows the first, untrained"),
        )
    ]
    two.found["CKA"] = {
        "rows": found.rows,
        "columns": found.columns,
        "matrix": found.matrix.tolist(),
        "untrained": control.matrix.tolist(),
        "images": found.count,
    }
    text = (
        f"Linear CKA of what the stages of {two.titles[0]} (rows) and of {two.titles[1]} (columns) output "
        f"for {found.count} images, unbiased: 1 if features are the same turned and scaled, 0 if unrelated. "
        "To the right the same with an untrained copy of the first, as a control."
    )
    return Section("Similarity of layers", text, pictures={"cka": grid(plots, columns=2, gap=16)})


def stitched(two: Comparison, fit: Sample, epochs: int) -> Section:
    """The stitching curve."""
    front, back = (run.network for run in two.runs)
    found = stitching(front, back, SampleData(fit), SampleData(two.test), epochs=epochs)
    two.found["stitching"] = {
        "layers": found.layers,
        "accuracy": {kind: found.accuracies(kind) for kind in found.stitched},
        "untrained front": {kind: found.accuracies(kind, control=True) for kind in found.control},
        "back network": found.back.accuracy,
    }
    gaps = found.gaps(FITTED)
    text = (
        f"The accuracy of {two.titles[1]} when its layers up to one are replaced by those of {two.titles[0]} "
        f"and a linear map of channels, fitted to {len(fit)} training images. What is above the untrained "
        f"front, by least squares {min(gaps):.1%} to {max(gaps):.1%}, is what the two have learnt alike."
    )
    return Section("Stitching", text, pictures={"stitching": stitching_plot(found)})
