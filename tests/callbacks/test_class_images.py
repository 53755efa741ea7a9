"""Class images at each epoch: methods, and those of a reference network."""

from pathlib import Path

import pytest
import somebody
import torch
from drawn_words import words_of

from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.framework.film import Strip
from fulgurite.probes.style import LINE
from fulgurite.probes.synthesis.class_image_methods import METHODS
from fulgurite.recipes import robust_digits

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


def test_the_images_of_the_first_look_stay_above_those_of_today(tmp_path: Path):
    probe = ClassImages(steps=3, reference="start", reference_name="then", **SCALE)
    torch.manual_seed(0)
    somebody.quiet(tmp_path, probe).fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    shown = somebody.images(tmp_path)
    # below the title, which says the epoch
    looks = [shown[key][:, 20:] for key in sorted(shown) if key[0] == "ClassImages"]
    assert len(looks) == 3
    middle = looks[0].shape[1] // 2
    above, below = [image[:, :middle] for image in looks], [image[:, middle + 1 :] for image in looks]
    assert all(torch.equal(image, above[0]) for image in above)
    assert not torch.equal(below[0], below[2])


def test_each_of_two_images_says_whose_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    found = words_of(ClassImages, monkeypatch)
    probe = ClassImages(["red"], steps=2, reference="start", **SCALE)
    somebody.quiet(tmp_path, probe, max_epochs=1).fit(
        somebody.Theirs(), somebody.loader(8), somebody.loader(9)
    )
    assert found.count("before training") == found.count("this network") == 2


@pytest.mark.parametrize("reference", ["start", somebody.Theirs])
def test_a_film_has_images_and_captions_at_their_size_and_the_reference_once(reference, tmp_path: Path):
    probe = ClassImages(["red"], steps=2, reference=reference, **SCALE)
    somebody.quiet(tmp_path, probe, max_epochs=1).fit(
        somebody.Theirs(), somebody.loader(8), somebody.loader(9)
    )
    strip = probe.film.strip()
    assert isinstance(strip, Strip)
    assert [own["red"].shape for _, own in strip.looks] == [(3, 96 + LINE, 96)] * 2
    # the first look shows the network before training itself
    assert {name: own.shape for name, own in strip.images.items()} == (
        {} if reference == "start" else {"red": (3, 96 + 2 * LINE, 96)}
    )


def test_a_method_runs_the_steps_of_the_callback_or_its_default(tmp_path: Path):
    asked = []

    def method(network, classes, shape, **options):
        asked.append(options.get("steps"))
        return torch.full((len(classes), *shape), 0.5)

    for steps in (None, 7):
        probe = ClassImages(method=method, steps=steps, **SCALE)
        trainer = somebody.quiet(tmp_path / str(steps), probe, max_epochs=1)
        trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    assert set(asked) == {None, 7}


@pytest.mark.parametrize(("usual", "expected"), [(256, 128), (5, 5)])
def test_images_of_a_run_take_at_most_128_steps(usual, expected, monkeypatch, tmp_path: Path):
    asked = []

    def fourier(network, classes, shape, *, steps=None, **options):
        asked.append(steps)
        return torch.full((len(classes), *shape), 0.5)

    monkeypatch.setitem(METHODS, "fourier", fourier)
    monkeypatch.setattr("fulgurite.callbacks.class_images.default_steps", lambda side: usual)
    trainer = somebody.quiet(tmp_path, ClassImages(**SCALE), max_epochs=1)
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    assert set(asked) == {expected}


def test_a_robust_run_shows_the_class_images_of_standard_training_above_its_own():
    found = [probe for probe in robust_digits.recipe().probes if isinstance(probe, ClassImages)]
    assert [probe.reference_name for probe in found] == ["standard"]
    assert found[0].reference is not None
    assert callable(found[0].reference.what)
    plain = [probe for probe in robust_digits.recipe(method="plain").probes if isinstance(probe, ClassImages)]
    assert plain[0].reference is None


def test_scalars_tell_how_sure_the_network_is_and_another_one(tmp_path: Path):
    kept = {}

    def method(network, classes, shape, **options):
        kept[len(kept)] = torch.rand(len(classes), *shape)
        return kept[len(kept) - 1]

    def other():
        torch.manual_seed(7)
        return somebody.Theirs()

    probe = ClassImages(method=method, reference=other, reference_name="B", **SCALE)
    model = somebody.Theirs()
    trainer = somebody.quiet(tmp_path, probe, max_epochs=1)
    trainer.fit(model, somebody.loader(), somebody.loader(9))
    reported = {tag: values[-1][1] for tag, values in somebody.scalars(tmp_path).items()}
    mean, std = (torch.tensor(value)[:, None, None] for value in (somebody.MEAN, somebody.STD))
    images = kept[max(kept)]
    labels = torch.arange(len(images))
    sample = probe.sample.images
    with torch.no_grad():
        # the other network takes images in [0, 1]
        own, theirs = model.eval()((images - mean) / std), other().eval()(images)
    others = own.clone().scatter(1, labels[:, None], -torch.inf).max(1).values
    leads = own.gather(1, labels[:, None])[:, 0] - others
    expected = {
        "margin": leads.mean(),
        "probability": own.softmax(1).gather(1, labels[:, None]).mean(),
        "probability by B": theirs.softmax(1).gather(1, labels[:, None]).mean(),
    }
    for name, value in expected.items():
        assert reported[f"ClassImages/{name}"] == pytest.approx(float(value), rel=1e-4), name
    rough = [sum(float(part.diff(dim=dim).square().mean()) for dim in (2, 3)) for part in (images, sample)]
    assert reported["ClassImages/variation"] == pytest.approx(rough[0] / rough[1], rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_by_name_makes_an_image_of_each_class(tmp_path: Path, method: str):
    probe = ClassImages(method=method, steps=2, **SCALE)
    trainer = somebody.quiet(tmp_path, probe, max_epochs=1)
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    tags = {tag for tag, _ in somebody.images(tmp_path)}
    assert "ClassImages" in tags


def test_an_unknown_method_is_reported():
    with pytest.raises(ValueError, match="no method 'fourrier'; nearest: fourier"):
        ClassImages(method="fourrier")


class Recorded:
    """A method that makes random images, and keeps what it was to start from."""

    def __init__(self):
        self.starts, self.made = [], []

    def __call__(self, network, classes, shape, *, background, seeds, layer, precise, watch, start=None):
        self.starts.append(start)
        self.made.append(torch.rand(len(classes), *shape))
        return self.made[-1]


def test_a_warm_start_is_from_the_images_of_the_last_epoch_also_in_a_resumed_run(tmp_path: Path):
    method = Recorded()
    probe = ClassImages(method=method, warm=True, **SCALE)
    trainer = somebody.quiet(tmp_path / "one", probe)
    trainer.fit(somebody.Theirs(), somebody.loader(8), somebody.loader(9))
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    resumed = ClassImages(method=method, warm=True, **SCALE)
    somebody.quiet(tmp_path / "two", resumed, max_epochs=3).fit(
        somebody.Theirs(), somebody.loader(8), somebody.loader(9), ckpt_path=tmp_path / "kept.ckpt"
    )
    assert len(method.made) == 4
    assert method.starts[0] is None
    for start, before in zip(method.starts[1:], method.made, strict=False):
        assert (start - before).abs().max() <= 0.5 / 255 + 1e-6  # kept as bytes


def test_images_start_cold_unless_asked_and_those_of_a_reference_always_do(tmp_path: Path):
    methods = Recorded(), Recorded()
    cold = ClassImages(method=methods[0], name="cold", **SCALE)
    warm = ClassImages(method=methods[1], warm=True, reference=somebody.Theirs, name="warm", **SCALE)
    somebody.quiet(tmp_path, cold, warm).fit(somebody.Theirs(), somebody.loader(8), somebody.loader(9))
    assert [start is None for start in methods[0].starts] == [True] * 3
    assert not cold.memory.last
    # the second is of the reference, once
    assert [start is None for start in methods[1].starts] == [True, True, False, False]
    assert torch.equal((methods[1].starts[2] * 255).round(), (methods[1].made[0] * 255).round())


def test_images_of_other_classes_or_sizes_are_not_started_from(tmp_path: Path):
    method = Recorded()
    probe = ClassImages(["red", "green"], method=method, warm=True, **SCALE)
    trainer = somebody.quiet(tmp_path, probe, max_epochs=1)
    trainer.fit(model := somebody.Theirs(), somebody.loader(8), somebody.loader(9))
    kept = probe.memory.last
    assert sorted(kept) == ["green/image", "red/image"]
    for name, known in (("green", True), ("blue", False)):  # each class by itself, as on several processes
        probe.observe(model, probe.sample, [name])
        assert (method.starts[-1] is not None) is known
        if known:
            assert torch.equal(method.starts[-1][0] * 255, kept["green/image"].float())
    kept["red/image"] = kept["red/image"][:, :-1]
    probe.observe(model, probe.sample, ["red", "green"])
    assert method.starts[-1] is None


def test_a_method_that_takes_no_start_is_refused_a_warm_one():
    with pytest.raises(ValueError, match="warm=True, but the method has no `start`"):
        ClassImages(method=lambda network, classes, shape, **options: torch.rand(1), warm=True)
