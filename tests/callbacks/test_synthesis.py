"""Features and inversions during training: what they log, keep, and refuse."""

from pathlib import Path

import pytest
import somebody
import torch

from fulgurite.callbacks.features import Features
from fulgurite.callbacks.inversions import Inversions
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import channel
from fulgurite.probes.synthesis.features import strongest, values_of
from fulgurite.probes.synthesis.inversion import invert

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


def fitted(folder: Path, *probes, **options) -> somebody.Theirs:
    torch.manual_seed(0)
    model = somebody.Theirs()
    somebody.quiet(folder, *probes, **options).fit(model, somebody.loader(), somebody.loader(9))
    return model


class KeepsSample(Features):
    """Keeps the images it looked at, and those it painted."""

    def observe(self, network, sample, subjects):
        self.shown = sample.images
        return super().observe(network, sample, subjects)


def test_features_stay_with_the_channels_of_the_first_look_and_say_how_active_they_are(tmp_path: Path):
    probe = KeepsSample(["features.0", "features.2"], most=3, steps=8, warm=True, name="Features", **SCALE)
    model = fitted(tmp_path, probe)
    torch.manual_seed(0)
    with frozen_eval(somebody.Theirs(), mean=somebody.MEAN, std=somebody.STD) as untrained:
        first = {layer: strongest(untrained, probe.shown, layer, 3).tolist() for layer in probe.layers}
    numbers = somebody.scalars(tmp_path)
    with frozen_eval(model, mean=somebody.MEAN, std=somebody.STD) as network:
        for layer, channels in first.items():
            assert probe.memory.first[f"{layer}/channels"] == channels
            assert probe.memory.last[f"{layer}/images"].shape == (3, 3, 12, 12)
            made = probe.memory.last[f"{layer}/images"] / 255
            ratios = [
                values_of(network, channel(layer, k), made[place : place + 1])[0]
                / values_of(network, channel(layer, k), probe.shown).max()
                for place, k in enumerate(channels)
            ]
            steps, values = zip(*numbers[f"Features/{layer}/over the maximum"], strict=True)
            assert steps == (0, 3, 6)
            # what was kept is rounded to bytes
            assert values[-1] == pytest.approx(float(torch.stack(ratios).mean()), rel=0.02)
    pictures = somebody.images(tmp_path)
    assert {("Features", step) for step in (0, 3, 6)} <= set(pictures)
    assert ("Features/film", 6) in pictures


@pytest.mark.slow
def test_a_warm_start_goes_further_than_a_cold_one(tmp_path: Path):
    reached = {}
    for warm in (False, True):
        probes = (
            Features(["features.0"], channels=[1, 4], steps=4, warm=warm, **SCALE),
            Inversions(["features.0"], steps=16, images=2, warm=warm, **SCALE),
        )
        fitted(tmp_path / str(warm), *probes, max_epochs=4)
        numbers = somebody.scalars(tmp_path / str(warm))
        reached[warm] = [
            numbers[tag][-1][1]
            for tag in ("Features/features.0/over the maximum", "Inversions/features.0/PSNR")
        ]
        assert len(probes[1].memory.last) == 2 * warm
    assert reached[True][0] > reached[False][0]
    assert reached[True][1] > reached[False][1] + 0.3


def test_a_cold_look_depends_on_the_weights_alone(tmp_path: Path):
    probes = lambda: (Features(["features.0"], steps=3, **SCALE), Inversions(steps=3, **SCALE))  # noqa: E731
    model = fitted(tmp_path / "fit", *probes())
    somebody.quiet(tmp_path / "again", Inversions(steps=3, **SCALE)).validate(
        model, somebody.loader(9), verbose=False
    )
    once, again = (somebody.images(tmp_path / name) for name in ("fit", "again"))
    # below the title, which says the epoch
    assert torch.equal(once["Inversions", 6][:, 20:], again["Inversions", 0][:, 20:])


def test_inversions_log_what_the_probe_finds(tmp_path: Path):
    class Keeps(Inversions):
        def observe(self, network, sample, subjects):
            self.expected = {
                layer: invert(network, sample.images, layer, seeds=[0, 1], steps=5).means()
                for layer in self.found
            }
            return super().observe(network, sample, subjects)

    probe = Keeps(repeats=2, steps=5, images=3, name="Inversions", **SCALE)
    fitted(tmp_path, probe)
    numbers = somebody.scalars(tmp_path)
    names = {
        "relative error": "relative_error",
        "error over mean distance": "normalized_error",
        "PSNR": "psnr",
        "spread": "spread",
    }
    assert len(probe.expected) > 0
    for layer, means in probe.expected.items():
        for tag, name in names.items():
            assert numbers[f"Inversions/{layer}/{tag}"][-1][1] == pytest.approx(means[name], rel=1e-4)


def test_one_repeat_of_one_image_has_neither_spread_nor_distance(tmp_path: Path):
    fitted(tmp_path, Inversions(["features.0"], steps=2, images=1, **SCALE))
    tags = {tag for tag in somebody.scalars(tmp_path) if tag.startswith("Inversions/")}
    assert tags == {"Inversions/features.0/relative error", "Inversions/features.0/PSNR"}


def test_a_resumed_run_continues_with_the_last_images(tmp_path: Path):
    probe = Inversions(["features.0"], steps=16, images=2, warm=True, **SCALE)
    torch.manual_seed(0)
    model = somebody.Theirs()
    trainer = somebody.quiet(tmp_path / "one", probe)
    trainer.fit(model, somebody.loader(), somebody.loader(9))
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    resumed = Inversions(["features.0"], steps=16, images=2, warm=True, **SCALE)
    somebody.quiet(tmp_path / "two", resumed, max_epochs=3).fit(
        somebody.Theirs(), somebody.loader(), somebody.loader(9), ckpt_path=tmp_path / "kept.ckpt"
    )
    before, after = (
        somebody.scalars(tmp_path / name)["Inversions/features.0/PSNR"][-1][1] for name in ("one", "two")
    )
    assert after > before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Features("conv1"), "layers='conv1'; wanted a list of their paths"),
        (lambda: Features(steps=0), "most=4, steps=0; wanted at least 1"),
        (lambda: Features(channels=[-1]), "wanted numbers from 0 on"),
        (lambda: Inversions(repeats=0), "repeats=0, steps=100; wanted at least 1"),
        (lambda: Inversions(strength=-1.0), "strength of at least 0"),
    ],
)
def test_an_invalid_probe_is_reported_before_training(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Features(["featurs.0"], **SCALE), "no layer 'featurs.0' in Theirs; nearest: features.0"),
        (
            lambda: Features(["features.0"], channels=[6], **SCALE),
            "no channel 6 of 'features.0': there are 6",
        ),
        (lambda: Inversions(["haed"], **SCALE), "no layer 'haed' in Theirs; nearest: head"),
    ],
)
def test_what_a_probe_cannot_do_is_reported_before_training_starts(tmp_path: Path, make, words):
    with pytest.raises(ValueError, match=words):
        fitted(tmp_path, make())
