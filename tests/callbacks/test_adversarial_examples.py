"""Adversarial examples as pictures: images, captions, and the attack."""

from functools import partial

import pytest
import torch
from attack_callbacks import Linear, looked, pixels, sample, small_network

from fulgurite.callbacks import adversarial_examples
from fulgurite.callbacks.adversarial_examples import AdversarialExamples
from fulgurite.callbacks.framework import image_strips
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.render_attack import row
from fulgurite.probes.attacks.threat import L1, Linf
from fulgurite.probes.render import captioned


def test_a_strip_shows_the_adversarial_image(monkeypatch):
    given, rows = sample(5), []
    monkeypatch.setattr(
        adversarial_examples, "row", lambda *reported, **how: rows.append(reported) or row(*reported, **how)
    )
    looked(AdversarialExamples(Linf(0.02)), given)
    moved = pgd(Linear(), given.images, given.labels, Linf(0.02), steps=20)
    assert len(rows) == 5
    for place, (image, attacked, _, _) in enumerate(rows):
        assert torch.equal(image, given.images[place])
        torch.testing.assert_close(attacked, moved[place])


def test_a_missing_threat_is_named():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'threat'"):
        AdversarialExamples()


def captions(monkeypatch, probe, given) -> list[tuple[str, str]]:
    reported: list[tuple[str, str]] = []
    monkeypatch.setattr(
        adversarial_examples,
        "row",
        lambda a, b, *words, **how: reported.append(words) or row(a, b, *words, **how),
    )
    looked(probe, given)
    return reported


def test_the_captions_say_what_was_predicted_and_what_became_of_it(monkeypatch):
    given = sample(6)
    label, other = int(given.labels[0]), 1 - int(given.labels[0])
    fooled = captions(monkeypatch, AdversarialExamples(Linf(0.4)), given[[0]])
    assert fooled == [
        (f"class {label}: {_chance(given, 0)}\ntrue class {label}", f"class {other}: 100%\nfooled")
    ]
    stands = captions(monkeypatch, AdversarialExamples(Linf(0.0)), given[[0]])
    assert stands[0][1].endswith(f"class {label}: {_chance(given, 0)}\nrobust")
    swapped = Sample(given.pixels, 1 - given.labels, given.classes, given.device)
    wrong = captions(monkeypatch, AdversarialExamples(Linf(0.0)), swapped[[0]])
    assert wrong[0][0].endswith(f"\ntrue class {other}")
    assert wrong[0][1].endswith("\nwrong before")


def test_the_sheet_names_its_images(monkeypatch):
    names: list[str] = []
    monkeypatch.setattr(
        image_strips, "captioned", lambda pixels, *lines: names.extend(lines) or captioned(pixels, *lines)
    )
    looked(AdversarialExamples(Linf(0.0)), sample(3))
    assert names[:3] == ["image 0", "image 1", "image 2"]
    assert names[3].startswith("PGD-20 within")


def _chance(given: Sample, place: int) -> str:
    with torch.no_grad():
        return f"{Linear()(given.images)[place].softmax(0).max():.0%}"


def test_without_labels_what_is_predicted_is_attacked(monkeypatch):
    reported = captions(monkeypatch, AdversarialExamples(Linf(0.4)), sample(3, labels=False))
    assert all(after.endswith("fooled") for _, after in reported)


def test_under_l1_where_pgd_gets_nowhere_it_is_apgd():
    usual, sparse = AdversarialExamples(Linf(0.02)), AdversarialExamples(L1(1.5))
    assert (usual.attack_name, sparse.attack_name) == ("PGD-20", "APGD-20")
    assert (usual.attack.func, sparse.attack.func) == (pgd, apgd)
    looked(sparse, sample(2))
    assert AdversarialExamples(Linf(0.02), attack=fgsm).attack_name == "fgsm"


def test_another_attack_can_be_chosen():
    one, other = (
        pixels(looked(AdversarialExamples(Linf(0.02), attack=attack), sample(2), small_network()))[""]
        for attack in (None, partial(fgsm, start="image"))
    )
    assert not torch.equal(one, other)
