"""Augmentation presets by name."""

import pytest
import torch
from PIL import Image

from fulgurite.data.augmentation_presets import PRESETS, batch_preset, preset
from fulgurite.data.crops import at_random, from_the_middle


@pytest.fixture(scope="module")
def photograph():
    torch.manual_seed(0)
    small = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), size=(60, 80), mode="bicubic")
    return Image.fromarray((small[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy())


def looks(name, image, count=100):
    torch.manual_seed(0)
    frame = PRESETS[name](32)
    return torch.stack([frame(image) for _ in range(count)])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_images_of_the_size(photograph, name, mode):
    seen = looks(name, photograph.convert(mode))
    assert seen.shape[1:] == (1 if mode == "L" else 3, 32, 32)
    assert seen.dtype == torch.float32
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_light_is_nearer_to_the_image_than_any_that_is_stronger(photograph):
    plain = looks("none", photograph)[0]
    away = {name: (looks(name, photograph, 300) - plain).abs().mean().item() for name in PRESETS}
    assert away.pop("none") == 0
    assert min(away, key=away.__getitem__) == "light"


def test_the_standard_is_what_it_was_before_it_had_a_name(photograph):
    before = at_random(32)
    torch.manual_seed(0)
    assert torch.equal(
        torch.stack([before(photograph) for _ in range(20)]), looks("standard", photograph, 20)
    )
    assert torch.equal(from_the_middle(32)(photograph), looks("none", photograph, 1)[0])


def test_light_shows_most_of_the_image():
    ramp = Image.linear_gradient("L").resize((64, 64))
    ranges = looks("light", ramp).flatten(1)
    # 70 % of the area with sides of 3 : 4 is 72 % of the height, or more
    assert (ranges.max(1).values - ranges.min(1).values).min() > 0.68
    ranges = looks("standard", ramp).flatten(1)
    assert (ranges.max(1).values - ranges.min(1).values).min() < 0.6


@pytest.mark.parametrize(
    ("name", "changes"), [("light", False), ("standard", False), ("colour", True), ("strong", True)]
)
def test_only_the_strongest_two_change_colours(name, changes):
    red = Image.new("RGB", (40, 40), (200, 60, 60))
    seen = looks(name, red).permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)
    assert (len(seen) > 1) == changes


def test_the_strong_erases_to_mid_grey_about_a_quarter_of_the_images():
    white = Image.new("RGB", (40, 40), "white")
    erased = (looks("strong", white, 400) == 0.5).all(1).flatten(1).float().mean(1) > 0.015
    assert 0.15 < erased.float().mean() < 0.35


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_small_images_of_a_batch_are_each_changed_as_the_preset_says(name, channels):
    ramp = torch.linspace(0.2, 0.8, 32).expand(40, channels, 32, 32).clone()
    ramp[:, 0] *= 0.9
    torch.manual_seed(0)
    change = batch_preset(name, 32)
    if name == "none":
        assert change is None
        return
    seen = change(ramp)
    assert seen.shape == ramp.shape
    assert 0 <= seen.min() <= seen.max() <= 1
    assert len(seen.flatten(1).unique(dim=0)) > 5
    known = torch.isin(seen, ramp[0].unique()).float().mean()
    assert (known == 1) == (name not in ("colour", "strong"))
    torch.manual_seed(0)
    mirrored, steady = (rising(own) for own in (seen, batch_preset(name, 32, mirror=False)(ramp)))
    assert 5 < mirrored < 30 < steady


def rising(images):
    """How many are lighter on the right."""
    return int((images[..., 24] > images[..., 8]).flatten(1).float().mean(1).gt(0.5).sum())


def test_light_moves_small_images_by_half_as_much():
    spot = torch.zeros(100, 1, 33, 33)
    spot[..., 16, 16] = 1
    reach = {}
    for name in ("light", "standard"):
        rows = batch_preset(name, 33, mirror=False)(spot).amax(3).argmax(2)
        reach[name] = int((rows - 16).abs().max())
    assert reach == {"light": 2, "standard": 4}


@pytest.mark.parametrize(("given", "name"), [(True, "standard"), (False, "none"), ("strong", "strong")])
def test_true_and_false_are_names_too(given, name):
    assert preset(given) == name


@pytest.mark.parametrize(
    ("given", "words"),
    [("color", "nearest: colour$"), ("strnog", "nearest: strong$"), ("x", "mixup_cutmix$")],
)
def test_an_unknown_name_is_refused_with_the_nearest(given, words):
    with pytest.raises(ValueError, match=f"no augmentation {given!r} among none, .*{words}"):
        preset(given)
