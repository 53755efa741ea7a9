"""The shortcut finder against a shortcut that was planted."""

import pytest
import torch
from documentation import DOCS

from benchmarks.shortcut import first_by_cue, measured, trained
from fulgurite.models.networks import build


@pytest.mark.slow
def test_the_planted_cue_is_the_first_component_where_it_was_planted():
    assert sum(first_by_cue(trained(0.95, 0, 15, 2000)[0], 0)) >= 5  # of 6 classes


@pytest.mark.figures
def test_a_network_trained_without_a_shortcut_depends_on_no_cue():
    assert sum(first_by_cue(trained(0.0, 0, 15, 2000)[0], 0)) <= 1


def test_an_untrained_network_depends_on_no_cue():
    torch.manual_seed(0)
    assert sum(first_by_cue(build("all_conv", classes=6).eval(), 0, images=240, held_out=120)) <= 1


ROWS = {
    "accuracy with shortcut": "accuracy on validation images (with the shortcut, where there is one)",
    "accuracy without shortcut": "accuracy on test images, without a shortcut",
    "occlusion: pointing": "occlusion: pointing game",
    "occlusion: on the shape": "occlusion: share of the attribution on the shape",
    "grad_cam: pointing": "Grad-CAM: pointing game",
    "grad_cam: on the shape": "Grad-CAM: share on the shape",
    "guided_backprop: pointing": "guided backpropagation: pointing game",
    "guided_backprop: on the shape": "guided backpropagation: share on the shape",
    "input_x_gradient: pointing": "input x gradient: pointing game",
    "input_x_gradient: on the shape": "input x gradient: share on the shape",
}
"""What is measured, and its row in the documentation."""


def documented() -> dict[str, list[tuple[float, float]]]:
    """Mean and spread of each row in the documentation, without the shortcut and with it."""
    lines = (DOCS / "shortcut.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if " ± " in line and "|" in line
    ]
    reported = {row[0]: [tuple(map(float, cell.split(" ± "))) for cell in row[1:] if cell] for row in rows}
    return {name: reported[title] for name, title in ROWS.items()}


def test_by_the_documentation_the_falls_are_beyond_the_spread_of_seeds():
    found = documented()
    assert found["occlusion: pointing"][0][0] >= 0.9
    fallen = [name for name in found if name.endswith("on the shape") or name == "accuracy without shortcut"]
    assert len(fallen) == 5
    for name in fallen:
        (without, apart), (planted, also) = found[name]
        assert without - planted > 2 * max(apart, also)


@pytest.mark.figures
@pytest.mark.parametrize("shortcut", [0.0, 0.95])
def test_a_network_is_as_the_documentation_says(shortcut: float):
    """One of its three seeds, on another number of threads: within three times their spread, or a margin."""
    found = measured(*trained(shortcut, 0, 25, 2000), 100)
    for name, reported in documented().items():
        mean, spread = reported[shortcut > 0]
        margin = 0.08 if name.endswith("pointing") else 0.03  # of 100 images, and the largest value jumps
        assert found[name] == pytest.approx(mean, abs=max(3 * spread, margin)), name
