"""DeepDream: octaves, tiles, a guide, and what is left when memory runs out or Ctrl-C comes."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.feature_objectives import energy, nearest_features
from fulgurite.probes.synthesis import dreams, gradients
from fulgurite.probes.synthesis.canvas import resized
from fulgurite.probes.synthesis.dreams import deep_dream, guided_by
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.watch import Watch


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))


def photographs(height: int = 48, width: int = 72) -> torch.Tensor:
    return 0.3 + 0.4 * resized(torch.rand(2, 3, 12, 18), [height, width]).clamp(0, 1)


def test_a_plain_image_under_a_layer_that_copies_it_grows_brighter_by_every_step():
    images = torch.full((2, 3, 28, 42), 0.2)
    dreamed = deep_dream(nn.Sequential(nn.Identity()), images, "0", lr=0.01)
    # octaves of 10 and 14 px are left out
    assert_close(dreamed, torch.full_like(images, 0.2 + 2 * 10 * 0.01), rtol=0, atol=1e-4)


def test_one_step_of_one_octave_is_the_image_over_its_mean():
    images = 0.6 * torch.rand(2, 3, 28, 42)
    dreamed = deep_dream(nn.Sequential(nn.Identity()), images, "0", octaves=1, steps=1, lr=0.01)
    assert_close(dreamed, images + 0.01 * images / images.mean((1, 2, 3), keepdim=True))


@pytest.mark.parametrize("tile", [None, 32])
def test_the_energy_of_the_layer_grows_more_with_octaves_and_images_stay_images(tile):
    net, images = network(), photographs()
    dreamed = deep_dream(net, images, "3", tile=tile)
    before, after = (values_of(net, energy("3"), own) for own in (images, dreamed))
    assert (after > 1.5 * before).all()
    assert (after > values_of(net, energy("3"), deep_dream(net, images, "3", octaves=1, tile=tile))).all()
    assert dreamed.shape == images.shape
    assert dreamed.min() >= 0
    assert dreamed.max() <= 1
    assert_close(deep_dream(net, images[1:], "3", tile=tile), dreamed[1:], rtol=0, atol=1e-3)


def wide() -> nn.Sequential:
    """A network that sees 16 pixels to each side, more than the margin of a tile of 48 pixels shows it."""
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 17, padding=8), nn.ReLU(), nn.Conv2d(8, 8, 17, padding=8), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def steps_across_borders(monkeypatch: pytest.MonkeyPatch, net: nn.Module, *, at_random: bool = True) -> float:
    """The mean step of what a dream adds across lines that were borders of tiles, over that across others."""
    images, borders = photographs(96, 96)[:1], set[int]()
    cells = gradients._cells

    def noted(length: int, side: int, margin: int):
        if not at_random:
            torch.manual_seed(0)  # the same tiles at each step
        found = list(cells(length, side, margin))
        borders.update(cell.start - 1 for _, cell in found[1:])
        return iter(found)

    with monkeypatch.context() as patch:
        patch.setattr(gradients, "_cells", noted)
        added = deep_dream(net, images, "3", octaves=1, tile=48, steps=4, roll=0) - images
    step = torch.stack([added.diff(dim=axis).abs().movedim(axis, 0).flatten(1).mean(1) for axis in (2, 3)])
    border = torch.zeros(95, dtype=torch.bool)
    border[sorted(borders)] = True
    assert 3 <= border.sum() < 50
    return float(step[:, border].mean() / step[:, ~border].mean())


@pytest.mark.slow
def test_tiles_leave_no_seams(monkeypatch: pytest.MonkeyPatch):
    assert steps_across_borders(monkeypatch, network()) < 1.02
    # margins that are too narrow: what a fixed grid leaves shows that it would be seen
    assert steps_across_borders(monkeypatch, wide()) < 1.1
    assert steps_across_borders(monkeypatch, wide(), at_random=False) > 1.4


def test_a_dream_guided_by_an_image_takes_on_its_features():
    net, images = network(), photographs()
    guide = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(1))
    objective = guided_by(net, guide, "3")
    dreamed = deep_dream(net, images, objective)
    assert (values_of(net, objective, dreamed) > 1.5 * values_of(net, objective, images)).all()


def test_the_likest_features_are_found_one_position_at_a_time():
    net, images, guide = network(), photographs(), torch.rand(1, 3, 40, 30)
    ours, code = (outputs(net, own, ["1"])["1"] for own in (images, guide))
    slow = torch.zeros(2)
    for place in range(2):
        for vector in ours[place].flatten(1).T:
            slow[place] += (code[0].flatten(1).T @ vector).max()
    assert_close(values_of(net, nearest_features("1", code[0]), images), slow, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="without positions"):
        nearest_features("1", torch.ones(3))


def test_out_of_memory_it_continues_in_tiles_with_a_warning(monkeypatch):
    net, images = network(), photographs(160, 200)[:1]
    whole = dreams.whole

    def refusing(score, shown):
        if shown.shape[-1] > 120:
            raise torch.OutOfMemoryError("refused")
        return whole(score, shown)

    monkeypatch.setattr(dreams, "whole", refusing)
    with pytest.warns(RuntimeWarning, match=r"out of memory; going on in tiles of \d+ px"):
        dreamed = deep_dream(net, images, "3", steps=3)
    assert (values_of(net, energy("3"), dreamed) > values_of(net, energy("3"), images)).all()


def test_octaves_that_are_too_small_for_the_layer_are_left_out_and_such_images_refused():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 21), nn.ReLU(), nn.Conv2d(4, 4, 9))
    images = photographs(34, 40)
    dreamed = deep_dream(net, images, "2", octaves=3, steps=2)
    assert torch.equal(dreamed, deep_dream(net, images, "2", octaves=1, steps=2, seed=0))
    with pytest.raises(
        ValueError, match="images of 24 x 30 pixels are too small for energy of 2; wanted larg"
    ):
        deep_dream(net, photographs(24, 30), "2")
    with pytest.raises(ValueError, match="tiles of 25 x 25 pixels are too small"):
        deep_dream(net, images, "2", tile=25)


def test_ctrl_c_keeps_what_was_reached():
    net, images, calls = network(), photographs(), 0

    def interrupt(module, args, out):
        nonlocal calls
        calls += 1
        if calls == 40:
            raise KeyboardInterrupt

    net[2].register_forward_hook(interrupt)
    watch = Watch(interruptible=True)
    dreamed = deep_dream(net, images, "3", watch=watch)
    assert watch.interrupted
    assert calls == 40
    assert (dreamed - images).abs().mean() > 1e-3


@pytest.mark.parametrize("wrong", [{"octaves": 0}, {"scale": 0.9}, {"roll": -1}, {"lr": 0.0}])
def test_what_makes_no_octaves_is_refused(wrong):
    with pytest.raises(ValueError, match="wanted at least one octave"):
        deep_dream(network(), photographs(), "3", **wrong)
