"""A sequence of attacks: each runs on what is still correct, and the worst image is kept."""

import math
from functools import partial

import pytest
import torch
from brightness import IMAGES, LABELS, Brightness, Darken, levels
from torch.testing import assert_close

from fulgurite.probes.attacks.ensembles import FEW_CLASSES, ensemble
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.robustness.evaluate import curve, evaluate


def test_each_attack_gets_only_images_that_are_still_correct():
    little, more = Darken(0.05), Darken(0.15)
    report = evaluate(Brightness(), IMAGES, LABELS, Linf(0.2), {"little": little, "more": more})
    assert_close(little.attacked, [0.35, 0.45, 0.6, 0.9])
    assert_close(more.attacked, [0.45, 0.6, 0.9])
    assert [stage.name for stage in report.stages] == ["clean", "little", "more"]
    assert [stage.standing.tolist() for stage in report.stages] == [
        [False, True, True, True, True],
        [False, False, True, True, True],
        [False, False, False, True, True],
    ]
    assert [report.accuracy(name) for name in ("clean", "little", "more")] == pytest.approx([0.8, 0.6, 0.4])
    assert [report.gain(place) for place in range(3)] == pytest.approx([0.2, 0.2, 0.2])
    assert report.per_class() == {1: 0.25, 2: 1.0}


def test_the_worst_image_of_each_is_returned():
    attacks = {"more": Darken(0.05), "less": Darken(0.01)}
    report = evaluate(Brightness(), IMAGES, LABELS, Linf(0.2), attacks)
    assert torch.equal(report.images[0], IMAGES[0]), "a wrong image was touched"
    # the first that fell is kept; of those that stand, the nearest to falling
    assert_close(report.images[:, 0, 0, 0], torch.tensor([0.1, 0.3, 0.4, 0.6, 0.85]))
    assert report.answers.tolist() == [0, 0, 1, 1, 2]
    logits = Brightness()(report.images)
    assert_close(report.confidence, logits.softmax(1).amax(1))


def test_fooled_images_cost_no_more_passes():
    network, counted = Brightness(), []
    images, labels = levels(*torch.linspace(0.35, 0.65, 40).tolist()), torch.ones(40, dtype=torch.long)
    fall = int((images[:, 0, 0, 0] < 1 / 3 + 0.2).sum())
    for first in (0.0, 0.2):
        network.seen = 0
        attacks = {"first": Darken(first), "PGD": partial(pgd, steps=10)}
        report = evaluate(network, images, labels, Linf(0.2), attacks)
        # less those that stand at the end, and are asked for their gradient
        counted.append(network.seen - report.without_gradient[1])
    assert 0 < fall < 40
    assert counted[0] - counted[1] == fall * (10 + 1)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (Darken(0.3), "'bad' moved 4 of 4 images out of reach: by 0.3"),
        (lambda network, images, *_: images * torch.nan, "'bad' moved 4 of 4 images out of reach"),
        (lambda network, images, *_: images + 0.15, "'bad' moved 1 of 4 images out of the bounds"),
        (lambda network, images, *_: images[:1], r"'bad' returned \(1, 1, 4, 4\); wanted"),
        (lambda network, images, *_: None, "'bad' returned NoneType; wanted"),
    ],
)
def test_an_attack_that_cheats_is_named(attack, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Brightness(), IMAGES, LABELS, Linf(0.2), {"good": Darken(0), "bad": attack})


def test_a_curve_never_attacks_again_what_fell():
    class Toward(Darken):
        def __call__(self, network, images, labels, threat):
            self.by = threat.epsilon
            return super().__call__(network, images, labels, threat)

    attack = Toward(None)
    found = curve(Brightness(), IMAGES, LABELS, Linf(1), [0, 0.3, 0.05, 0.15, 0.05], attack)
    assert found.radii == (0, 0.05, 0.15, 0.3)
    assert_close(attack.attacked, [0.35, 0.45, 0.6, 0.9, 0.45, 0.6, 0.9, 0.6, 0.9])
    assert found.accuracies() == pytest.approx([0.8, 0.6, 0.4, 0.0])
    assert_close(found.misclassified_at(), torch.tensor([0, 0.05, 0.15, 0.3, 0.3]))


def test_what_never_falls_falls_at_infinity():
    found = curve(Brightness(), IMAGES, LABELS, Linf(1), [0, 0.05], Darken(0.05))
    assert found.misclassified_at().tolist() == pytest.approx([0, 0.05, math.inf, math.inf, math.inf])


def test_without_four_classes_the_margin_takes_over_and_it_is_reported():
    images, labels = IMAGES[1:4], LABELS[1:4]  # all within 0.2 of a limit
    with pytest.warns(UserWarning, match="at least 4 classes") as printed:
        report = evaluate(Brightness(), images, labels, Linf(0.2))
    assert len(printed) == 1
    assert report.notes == (FEW_CLASSES,)
    assert report.accuracy("APGD-T (margin)") == 0
    with pytest.warns(UserWarning, match="at least 4 classes"):
        targeted = ensemble(Linf(0.2), 2)["APGD-T (margin)"]
    alone = evaluate(Brightness(), IMAGES, LABELS, Linf(0.2), {"APGD-T (margin)": targeted})
    assert alone.stages[-1].standing.tolist() == [False, False, False, False, True]
    assert alone.notes == (FEW_CLASSES,)
