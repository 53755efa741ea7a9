"""The data set of shapes: the same images for a seed, exact masks, shortcuts."""

import hashlib
import multiprocessing
import pickle
from math import pi, sqrt

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from fulgurite.data.procedural_shapes import LUMA, OUTLINES, TEXTURES
from fulgurite.data.shapes import Shapes


def ready(**knobs):
    data = Shapes(**{"images": 240, "held_out": 120, **knobs})
    data.setup()
    return data


def lumas(images):
    return images[:, 0] if images.shape[1] == 1 else torch.einsum("nchw,c->nhw", images, torch.tensor(LUMA))


def test_facts_are_known_at_once():
    data = Shapes(classes=6)
    assert data.classes == ("disc", "square", "triangle", "star", "ring", "cross")
    assert (data.channels, data.size) == (3, 32)
    assert [len(part) for part in data.parts()] == [4000, 1000, 1000]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_statistics_are_about_those_of_the_images(channels):
    data = ready(classes=12, channels=channels)
    images = data.train.scenes(range(240)).images
    assert images.mean((0, 2, 3)).tolist() == pytest.approx(list(data.mean), abs=0.05)
    assert images.std((0, 2, 3)).tolist() == pytest.approx(list(data.std), abs=0.05)


def test_some_classes_are_shapes_that_the_others_are_not():
    some = ready(classes=10, only=[7, 5], images=20)
    assert some.classes == tuple(Shapes(classes=10).classes[k] for k in (7, 5))
    assert some.train.labels.bincount().tolist() == [10, 10]
    assert some.kinds == (Shapes(classes=10).kinds[7], Shapes(classes=10).kinds[5])


@pytest.mark.parametrize(
    ("classes", "cue", "first", "last"),
    [
        (12, "shape", "disc", "arrow"),
        (8, "texture", "striped", "plain"),
        (8, "both", "striped disc", "plain crescent"),
        (13, "shape", "striped disc", "checked disc"),
        (9, "texture", "striped disc", "striped bar"),
        (96, "both", "striped disc", "plain arrow"),
    ],
)
def test_classes_are_named_by_their_cue(classes, cue, first, last):
    names = Shapes(classes=classes, cue=cue).classes
    assert (names[0], names[-1]) == (first, last)
    assert len(set(names)) == classes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 32, 50])
def test_images_are_in_bounds_and_of_the_size(size, channels):
    data = ready(size=size, channels=channels, planted=0.5)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for images, labels in loader:
            assert images.shape == (len(labels), channels, size, size)
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
            assert images.min() >= 0
            assert images.max() <= 1


@pytest.mark.parametrize("cue", ["shape", "texture", "both"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_mask_is_where_the_shape_is_to_the_pixel(channels, cue):
    images, _, masks, _ = ready(classes=8, channels=channels, cue=cue).train.scenes(range(240))
    light = lumas(images)
    inside = torch.where(masks, light, torch.nan)
    outside = torch.where(masks, torch.nan, light)
    for shape, background in zip(inside, outside, strict=True):
        shape, background = shape[~shape.isnan()], background[~background.isnan()]
        assert shape.min() > background.max() + 0.05 or shape.max() < background.min() - 0.05


def test_a_plain_shape_has_one_colour_and_its_ground_another():
    data = ready(classes=8, cue="texture")
    plain = (data.train.labels == 7).nonzero()[:, 0]
    images, _, masks, _ = data.train.scenes(plain)
    for image, mask in zip(images, masks, strict=True):
        assert len(image[:, mask].unique(dim=1).T) == 1
        assert len(image[:, ~mask].unique(dim=1).T) == 1


def test_the_mask_of_a_disc_is_a_disc_wherever_it_is():
    data = ready(classes=12, size=64)
    _, _, masks, _ = data.train.scenes((data.train.labels == 0).nonzero()[:, 0])
    row, column = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    middles = []
    for mask in masks:
        middle = row[mask].mean(), column[mask].mean()
        radius = sqrt(mask.sum() / pi)
        away = torch.hypot(row - middle[0], column - middle[1])
        assert away[mask].max() < radius + 1
        assert away[~mask].min() > radius - 1
        assert 0.8 * 0.45 * 32 - 1 < radius < 0.8 * 0.8 * 32 + 1
        middles.append(torch.stack(middle))
    assert (torch.stack(middles).std(0) > 3).all()


def test_every_shape_is_whole_and_its_area_is_its_own():
    data = ready(classes=12, size=64, images=12 * 150)
    masks = data.train.scenes(range(12 * 150)).masks
    x = (torch.arange(1000) + 0.5) / 500 - 1
    for label, outline in enumerate(OUTLINES.values()):
        whole = outline(x.expand(1, 1000, 1000), x[:, None].expand(1, 1000, 1000)).float().mean() * 4
        # the mean of the square of what is uniform between 0.45 and 0.8
        expected = whole * (0.8**3 - 0.45**3) / 3 / 0.35 * 32**2
        seen = masks[data.train.labels == label].sum((1, 2)).float().mean()
        assert seen == pytest.approx(expected.item(), rel=0.12)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_the_same_alone_and_in_any_batch(channels):
    part = ready(channels=channels, planted=0.5, size=33).train
    images, labels, masks, squares = part.scenes(range(240))
    for index in range(0, 240, 7):
        image, label = part[index]
        assert torch.equal(image, images[index])
        assert label == labels[index] == part.labels[index]
        assert isinstance(label, int)
    order = torch.randperm(240)[:50]
    again = part.scenes(order)
    for one, other in zip((images, labels, masks, squares), again, strict=True):
        assert torch.equal(one[order], other)


def digest(data):
    scenes = data.val.scenes(range(60))
    return hashlib.sha256(b"".join(what.numpy().tobytes() for what in scenes)).hexdigest()


@pytest.mark.slow
def test_another_process_draws_the_same():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(digest, [ready(planted=0.5)]) == digest(ready(planted=0.5))


def test_it_loads_in_other_processes():
    data = ready(workers=2, batch_size=32)
    images = torch.cat([images for images, _ in data.val_dataloader()])
    assert torch.equal(images, data.val.scenes(range(120)).images)
    assert len(pickle.loads(pickle.dumps(data.train))) == len(data.train)


def test_two_threads_draw_what_one_does():
    one = ready(size=64).val.scenes(range(100)).images
    torch.set_num_threads(2)
    try:
        assert torch.equal(ready(size=64).val.scenes(range(100)).images, one)
    finally:
        torch.set_num_threads(1)


def test_the_seed_and_the_part_decide_the_images():
    data, other = ready(), ready(seed=1)
    assert torch.equal(data.train[3][0], ready().train[3][0])
    different = [data.train, data.val, data.test, other.train, other.val, other.test]
    assert len(torch.stack([part[3][0] for part in different]).flatten(1).unique(dim=0)) == 6


def test_no_two_images_are_alike():
    images = ready().train.scenes(range(240)).images
    assert len(images.flatten(1).unique(dim=0)) == 240


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ready(planted=0.5).train.scenes(range(10))
    assert torch.equal(torch.get_rng_state(), before)


def test_more_images_begin_with_the_fewer():
    few, more = ready(images=100).train, ready(images=200).train
    assert torch.equal(few.labels, more.labels[:100])
    assert torch.equal(few[99][0], more[99][0])


def test_every_class_has_its_share_in_no_order():
    data = ready(classes=7, images=103)
    counts = data.train.labels.bincount(minlength=7)
    assert counts.max() - counts.min() <= 1
    # images taken at an even distance see all classes too
    assert len(ready(classes=10, images=1000).train.labels[::10].unique()) == 10


@pytest.mark.parametrize("size", [48, 96])
def test_the_scene_is_the_same_at_every_size(size):
    small, large = (ready(size=one).val.scenes(range(50)) for one in (24, size))
    assert torch.equal(small.labels, large.labels)
    shrunk = nn.functional.avg_pool2d(large.masks.float(), size // 24)
    assert (shrunk - small.masks.float()).abs().mean() < 0.05
    away = (nn.functional.avg_pool2d(large.images, size // 24) - small.images).abs().mean()
    assert away < 0.5 * (small.images - small.images.roll(1, 0)).abs().mean()


def test_grey_is_the_luma_of_the_colours():
    grey, colour = (ready(channels=channels).val.scenes(range(50)) for channels in (1, 3))
    assert torch.equal(grey.masks, colour.masks)
    torch.testing.assert_close(grey.images[:, 0], lumas(colour.images), atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_square_is_planted_and_nothing_else_changes(channels):
    # one of these shapes reaches into the corner, a rare thing
    bare, planted = (
        ready(images=2000, channels=channels, planted=p).train.scenes(range(1500, 1600)) for p in (0.0, 1.0)
    )
    assert (bare.masks & planted.squares).any()
    assert not bare.squares.any()
    assert torch.equal(
        planted.squares.nonzero()[:, 1:].unique(dim=0), torch.cartesian_prod(*[torch.arange(4)] * 2)
    )
    elsewhere = ~planted.squares[:, None].expand_as(planted.images)
    assert torch.equal(bare.images[elsewhere], planted.images[elsewhere])
    assert torch.equal(planted.masks, bare.masks & ~planted.squares)


def test_iterating_a_part_ends_and_the_last_can_be_asked_for():
    part = ready().val
    assert len(list(part)) == 120
    assert torch.equal(part[-1][0], part[119][0])
    with pytest.raises(IndexError):
        part[120]


def test_a_user_loader_can_use_the_parts_collate():
    part = ready().val
    images, labels = next(iter(DataLoader(part, batch_size=7, collate_fn=part.collate)))
    assert (len(images), len(labels)) == (7, 7)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"classes": 1}, "2 to 96: 12 shapes in 8 textures; got 1"),
        ({"classes": 97}, "2 to 96.*got 97"),
        ({"size": 15}, "fewer than 16 pixels .*got size 15"),
        ({"size": 100_000}, "from 1 to 4096; got 100000"),
        ({"channels": 2}, "got 2"),
        ({"images": 9}, "every one of 10 classes .*images 9"),
        ({"only": [3]}, "two or more different classes of 0 to 9"),
        ({"only": [3, 3]}, "two or more different"),
        ({"only": [3, 10]}, "two or more different"),
        ({"held_out": 9}, "held_out 9"),
        ({"planted": 1.1}, "probability.*1.1"),
        ({"planted": -0.1}, "probability.*-0.1"),
        ({"shortcut": 1.1}, "probability.*1.1"),
        ({"shortcut": 0.5, "classes": 9}, "at most 8.*9 classes"),
        ({"shortcut": 0.5, "classes": 8, "cue": "both"}, "only shapes.*cue='both'"),
        ({"seed": -1}, "got -1"),
        ({"batch_size": 0}, "at least 1; got 0"),
    ],
)
def test_a_senseless_knob_is_refused(knobs, words):
    with pytest.raises(ValueError, match=words):
        Shapes(**knobs)


def test_there_are_as_many_kinds_as_the_error_says():
    assert (len(OUTLINES), len(TEXTURES)) == (12, 8)
