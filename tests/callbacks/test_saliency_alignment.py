"""Alignment of input gradients with images."""

import pytest
from attack_callbacks import Linear, looked, numbers, sample
from drawn_words import words

from fulgurite.callbacks.framework.film import Strip
from fulgurite.callbacks.saliency_alignment import SaliencyAlignment
from fulgurite.probes.attribution.alignment import alignment
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.style import LINE


def test_the_means_are_those_of_the_images_and_of_each_class():
    given = sample()
    seen, each = numbers(looked(SaliencyAlignment(), given)), alignment(Linear(), given.images)
    assert seen["alignment"] == pytest.approx(float(each.length.mean()))
    assert seen["cosine"] == pytest.approx(float(each.cosine.mean()))
    for label in (0, 1):
        own = each.length[given.labels == label]
        assert seen[f"alignment of class {label}"] == pytest.approx(float(own.mean()))


def test_without_labels_classes_are_those_predicted():
    labelled, bare = (numbers(looked(SaliencyAlignment(), sample(labels=labels))) for labels in (True, False))
    assert labelled == bare


@pytest.mark.parametrize(("count", "shown", "strips"), [(150, 8, 8), (150, 1, 1), (3, 8, 3), (65, 65, 65)])
def test_the_number_of_images_shown_does_not_depend_on_chunks(count, shown, strips):
    given, probe = sample(count), SaliencyAlignment(shown=shown)
    with frozen_eval(Linear()) as own:
        seen = probe.observe(own, given, probe.subjects(own, given))
    assert sum(len(one.strips) for one in seen.values()) == strips


def test_a_film_has_a_row_for_each_image_with_its_gradients_at_their_size():
    given, probe = sample(70), SaliencyAlignment(shown=2)
    probe.sample = given
    with frozen_eval(Linear()) as own:
        seen = probe.observe(own, given, probe.subjects(own, given))
    for label in ("start", "1"):
        probe.film.add(label, probe.frames(seen, {}))
    strip = probe.film.strip()
    assert isinstance(strip, Strip)
    assert list(strip.images) == ["image 00", "image 35"]
    assert {shown.shape for _, look in strip.looks for shown in look.values()} == {(3, 96 + 2 * LINE, 96)}
    assert "each gradient has its own scale" in " ".join(words(strip.pixels))
