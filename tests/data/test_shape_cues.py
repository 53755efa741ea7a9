"""Shortcuts and textures in procedural shapes, and what networks learn from them."""

from math import sqrt

import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from torch import nn

from fulgurite.data.procedural_shapes import signals
from fulgurite.data.shapes import Shapes


def ready(**knobs):
    data = Shapes(**{"images": 240, "held_out": 120, **knobs})
    data.setup()
    return data


def reported(part):
    """How often the square's colour is that of the class."""
    images, labels, *_ = part.scenes(range(len(part)))
    colours = signals(len(part.classes), channels=images.shape[1])
    assert (images[:, :, 0, 0] == images[:, :, 3, 3]).all()
    shown = torch.cdist(images[:, :, 0, 0], colours).min(1)
    assert shown.values.max() < 0.01
    return (shown.indices == labels).float().mean().item()


@pytest.mark.parametrize(("planted", "channels"), [(0.3, 3), (0.9, 1), (1.0, 3)])
def test_the_square_predicts_the_class_with_the_given_probability_but_not_in_the_test(planted, channels):
    data = ready(classes=5, channels=channels, planted=planted, images=2000, held_out=2000)
    often = planted + (1 - planted) / 5
    spread = 4 * sqrt(0.25 / 2000)
    assert reported(data.train) == pytest.approx(often, abs=spread if planted < 1 else 0)
    assert reported(data.val) == pytest.approx(often, abs=spread if planted < 1 else 0)
    assert reported(data.test) == pytest.approx(1 / 5, abs=spread)


def test_texture_predicts_the_class_only_with_its_cue():
    def roughness(cue):
        """How much of the variance of a texture's roughness the class explains."""
        images, labels, masks, _ = ready(classes=8, cue=cue, images=1600).train.scenes(range(1600))
        both = masks[:, :, 1:] & masks[:, :, :-1]
        rough = ((images.diff(dim=3).abs().amax(1) > 0.02) & both).sum((1, 2)) / both.sum((1, 2))
        means = torch.stack([rough[labels == label].mean() for label in range(8)])
        return (means.var() / rough.var()).item()

    assert roughness("shape") < 0.05
    assert roughness("texture") > 0.5
    assert roughness("both") > 0.5


def trained(data, *, epochs):
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in ((data.channels, 16), (16, 32), (32, 64)):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(
        *layers[:-1], nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(256, len(data.classes))
    )
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    images, labels, *_ = data.train.scenes(range(len(data.train)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1e-2, total_steps=epochs * -(-len(images) // 50)
    )
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def accuracy(network, part):
    images, labels, *_ = part.scenes(range(len(part)))
    with torch.no_grad():
        return (network(images).argmax(1) == labels).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=pytest.mark.figures)])
def test_shapes_are_learnt_by_a_small_network_but_not_from_single_pixels(channels):
    data = ready(classes=6, channels=channels, images=2000, held_out=600)
    train, test = data.train.scenes(range(2000)), data.test.scenes(range(600))
    linear = RidgeClassifier(100.0).fit(train.images.flatten(1), train.labels)
    assert linear.score(test.images.flatten(1), test.labels) < 1 / 6 + 0.08
    assert accuracy(trained(data, epochs=9), data.test) > 0.85


@pytest.mark.slow
def test_a_network_takes_the_shortcut_and_fails_where_it_lies():
    data = ready(classes=6, images=2000, held_out=600, planted=0.95)
    network = trained(data, epochs=3)
    assert accuracy(network, data.val) > 0.85
    assert accuracy(network, data.test) < 0.4


def background_share(part):
    """How often the background's texture is that of the class."""
    return (part.cue_labels(range(len(part))) == part.labels).float().mean().item()


@pytest.mark.parametrize("shortcut", [0.3, 0.95, 1.0])
def test_the_background_predicts_the_class_with_the_given_probability_but_not_in_the_test(shortcut):
    data = ready(classes=6, shortcut=shortcut, images=2000, held_out=2000)
    # a texture that is drawn freely is one of eight
    often, spread = shortcut + (1 - shortcut) / 8, 4 * sqrt(0.25 / 2000)
    for part in (data.train, data.val):
        assert background_share(part) == pytest.approx(often, abs=spread if shortcut < 1 else 0)
    assert background_share(data.test) == pytest.approx(1 / 8, abs=spread)


def test_a_shortcut_changes_backgrounds_and_nothing_else():
    bare, planted = (ready(classes=6, shortcut=p).train.scenes(range(60)) for p in (0.0, 1.0))
    assert torch.equal(bare.masks, planted.masks)
    assert torch.equal(bare.labels, planted.labels)
    inside = bare.masks[:, None].expand_as(bare.images)
    assert torch.equal(bare.images[inside], planted.images[inside])
    changed = (bare.images != planted.images).flatten(1).any(1)
    assert changed.float().mean() > 0.7  # some backgrounds had the texture already


def test_backgrounds_of_a_class_look_alike_and_those_of_two_do_not():
    # class 7 has plain backgrounds, class 3 grainy ones
    data = ready(classes=8, shortcut=1.0, images=1200)
    images, labels, masks, _ = data.train.scenes(range(600))
    both = ~masks[:, :, 1:] & ~masks[:, :, :-1]
    rough = ((images.diff(dim=3).abs().amax(1) > 0.02) & both).sum((1, 2)) / both.sum((1, 2))
    assert rough[labels == 7].max() == 0
    assert rough[labels == 3].mean() > 0.5


@pytest.mark.parametrize("knobs", [{"classes": 6, "shortcut": 0.9}, {"classes": 8, "cue": "both"}])
def test_a_conflict_shows_the_shape_of_one_class_and_the_texture_of_another(knobs):
    data = ready(**knobs)
    conflict, count = data.conflict, len(data.classes)
    cues = conflict.cue_labels(range(120))
    assert (cues != conflict.labels).all()
    assert cues.unique().tolist() == list(range(count))
    assert torch.equal(conflict.scenes(range(5)).images, data.conflict.scenes(range(5)).images)
    assert torch.equal(conflict.masks(range(5)), conflict.scenes(range(5)).masks)
    if "shortcut" not in knobs:  # every image's shape is that of its label, in the texture of the other
        again = ready(**knobs).train
        assert torch.equal(again.cue_labels(range(40)), again.labels[:40])


def test_there_is_no_conflict_where_textures_say_nothing():
    with pytest.raises(ValueError, match=r"no conflict .* without a shortcut"):
        _ = ready().conflict
