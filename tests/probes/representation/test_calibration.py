"""Calibration error and temperature scaling: by hand, of known temperatures, and of a real network."""

import pytest
import torch
import torch.nn.functional as F
from drawn_words import words
from scipy.optimize import minimize_scalar

from benchmarks.calibration import measured, pooled
from fulgurite.probes.representation.calibration import calibration, fitted_temperature, scaled_by_halves
from fulgurite.probes.representation.render_calibration import reliability_diagram
from fulgurite.probes.style import rgb, theme
from fulgurite.recipes.calibration_report import AFTER, BEFORE, noted_temperature


def test_calibration_error_is_counted_by_hand_and_full_confidence_is_in_the_last_bin():
    probabilities = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.7, 0.3], [0.6, 0.4]])
    found = calibration(probabilities, torch.tensor([0, 0, 0, 1]), bins=4)
    assert found.counts.tolist() == [0, 0, 2, 2]
    assert found.confidence[2:].tolist() == pytest.approx([0.65, 1])
    assert found.accuracy[2:].tolist() == [0.5, 0.5]
    assert found.error == pytest.approx((2 * 0.15 + 2 * 0.5) / 4)


def drawn(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are too large by this factor, and labels by the probabilities without it."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, labels


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_the_fitted_temperature_is_the_one_that_the_labels_were_drawn_by(scale: float):
    logits, labels = drawn(scale)
    temperature = fitted_temperature(logits, labels)
    assert temperature == pytest.approx(scale, rel=0.03)
    loss = lambda t: float(F.cross_entropy(logits.double() / t, labels))  # noqa: E731
    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert temperature == pytest.approx(best.x, rel=1e-5)
    scaled = calibration((logits / temperature).softmax(1), labels).error
    assert scaled < 0.012
    assert scale == 1 or calibration(logits.softmax(1), labels).error > 5 * scaled


def test_each_half_is_scaled_by_the_temperature_of_the_other():
    logits, labels = drawn(3.0)
    logits[::2] *= 2
    scaled = scaled_by_halves(logits, labels)
    assert torch.allclose(logits[::2] / scaled[::2], torch.tensor(3.0, dtype=torch.float64), rtol=0.05)
    assert torch.allclose(logits[1::2] / scaled[1::2], torch.tensor(6.0, dtype=torch.float64), rtol=0.05)


@pytest.mark.parametrize(
    ("logits", "labels", "complaint"),
    [
        (torch.eye(3), torch.arange(3), "all of 3 images are classified correctly; a temperature can only"),
        (torch.eye(3), torch.tensor([1, 2, 0]), "a network that is better than chance"),
        (torch.eye(3) / 0, torch.arange(3), "logits with NaN or infinity for 3 of 3 images"),
        (torch.ones(0, 3), torch.ones(0).long(), r"logits \(0, 3\) .* of at least one image"),
        (torch.eye(3), torch.tensor([0, 1, 3]), "labels from 0 to 3; there are 3 classes"),
    ],
)
def test_where_no_temperature_is_the_best_that_is_reported(logits, labels, complaint):
    with pytest.raises(ValueError, match=complaint):
        fitted_temperature(logits, labels)


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "complaint"),
    [
        (torch.eye(3), torch.arange(3), 0, "bins=0; wanted at least 1"),
        (torch.eye(3), torch.arange(3) + 1, 15, "labels from 1 to 3; there are 3 classes"),
        (torch.eye(3), torch.arange(3) - 1, 15, "labels from -1 to 1; there are 3 classes"),
        (5 * torch.eye(3), torch.arange(3), 15, "probabilities from 0 to 5; wanted all from 0 to 1"),
        (torch.eye(3) / 0, torch.arange(3), 15, "probabilities from nan to nan"),
    ],
)
def test_what_has_no_calibration_is_reported(probabilities, labels, bins, complaint):
    with pytest.raises(ValueError, match=complaint):
        calibration(probabilities, labels, bins=bins)


def test_the_diagram_is_red_where_the_network_is_too_sure_and_green_where_it_is_not_sure_enough():
    sure, wary = torch.tensor([[0.9, 0.1]] * 10), torch.tensor([[0.6, 0.4]] * 10)
    labels = torch.tensor([0] * 7 + [1] * 3)
    red, green = (torch.tensor(rgb(own)) for own in (theme().error, theme().fine))
    for probabilities, colour, other, gap in (
        (sure, red, green, "gap: confidence above accuracy (overconfident)"),
        (wary, green, red, "gap: confidence below accuracy (underconfident)"),
    ):
        drawing = reliability_diagram({"": calibration(probabilities, labels)})
        found = words(drawing)
        assert {"accuracy", "images", "accuracy: share of correct predictions", gap} <= {*found}
        assert "accuracy equal to confidence (calibrated)" in found
        assert sum(line.startswith("gap: ") for line in found) == 1
        assert (drawing == colour[:, None, None]).all(0).sum() > 20
        assert not (drawing == other[:, None, None]).all(0).any()


@pytest.mark.slow
def test_temperature_scaling_calibrates_over_trained_networks_of_digits():
    found = pooled([measured(seed, steps=150) for seed in range(2)])
    before, after = (calibration(own, found.labels).error for own in (found.before, found.after))
    assert found.temperature > 1.5
    assert after < min(0.02, 0.8 * before)


@pytest.mark.parametrize(("after", "temperature"), [(0.02, 0.5), (0.2, None)])
def test_a_temperature_that_makes_the_error_larger_is_not_taken(after, temperature):
    found = {"temperature": 0.5, BEFORE: {"expected calibration error": 0.1}}
    assert noted_temperature({**found, AFTER: {"expected calibration error": after}}) == temperature
    assert noted_temperature(found) == 0.5
