"""Class images keep their contrast, and can be recognised, at every size."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from benchmarks.class_images import BACKGROUND, CLASSES, LAYER, recognised, squeezenet, views
from fulgurite.probes.synthesis.class_images import class_images, default_steps, simonyan
from fulgurite.probes.synthesis.watch import Watch


def pooling() -> nn.Sequential:
    """A small network for images of any size."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 7, stride=4),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


def contrast(images: torch.Tensor) -> float:
    return images.flatten(1).std(1).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("paint", [class_images, simonyan])
@pytest.mark.parametrize("sides", [(32, 64, 96), pytest.param((32, 128, 224), marks=pytest.mark.slow)])
def test_contrast_does_not_depend_on_the_size(paint, sides):
    network, classes = pooling(), torch.arange(3)
    found = [contrast(paint(network, classes, (3, side, side), background=BACKGROUND)) for side in sides]
    assert max(found) < 1.5 * min(found)
    assert min(found) > 0.12


@pytest.fixture(scope="module")
def painted(real_data):
    torch.set_num_threads(1)
    network, classes = squeezenet(real_data), torch.tensor(list(CLASSES.values()))
    return (
        network,
        classes,
        {
            # a photograph's size takes half a minute, and much longer on a busy machine: four classes
            side: class_images(network, classes[:4], (3, side, side), background=BACKGROUND, layer=LAYER)
            for side in (64, 128, 224)
        },
    )


@pytest.mark.slow
def test_class_images_of_a_real_network_have_the_same_contrast_at_every_size(painted):
    found = [contrast(images) for images in painted[2].values()]
    assert max(found) < 1.5 * min(found)
    assert min(found) > 0.12


@pytest.mark.slow
@pytest.mark.parametrize("side", [128, 224])
def test_class_images_of_a_real_network_are_recognised_in_views_not_optimised_under(painted, side):
    network, classes, images = painted
    for name, view in views(images[side]).items():
        assert recognised(network, view, classes[: len(view)]) >= 0.75 * len(view), name


def test_larger_images_take_more_steps():
    assert [default_steps(side) for side in (8, 32, 33, 127, 128, 512)] == [64, 64, 128, 128, 256, 256]


@pytest.mark.parametrize("channels", [2, 3])
def test_class_images_have_the_colours_that_are_asked_for(channels):
    network = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    grey = torch.zeros(channels, channels)
    grey[:, 0] = 1  # one axis, of all channels alike
    images = class_images(
        network, torch.tensor([0]), (channels, 16, 16), background=[0.5] * channels, steps=3, colours=grey
    )
    assert_close(images, images.mean(1, keepdim=True).expand_as(images))
    assert images.std() > 0


def sizes_shown(network: nn.Module, shape: tuple[int, int, int], **knobs) -> list[tuple[int, ...]]:
    """The sizes of the images that a network sees while one is made, each once in a row."""
    sizes = list[tuple[int, ...]]()
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    images = class_images(network, torch.tensor([0]), shape, background=BACKGROUND, steps=8, **knobs)
    assert images.shape == (1, *shape)
    return [size for place, size in enumerate(sizes) if place == 0 or size != sizes[place - 1]]


def test_images_above_128_px_are_made_at_fewer_pixels_first():
    assert sizes_shown(pooling(), (3, 128, 128)) == [(128, 128)]
    assert sizes_shown(pooling(), (3, 160, 200))[-2:] == [(128, 160), (160, 200)]
    assert sizes_shown(pooling(), (3, 512, 512))[-3:] == [(128, 128), (256, 256), (512, 512)]


def test_images_that_have_a_start_keep_their_size():
    start = torch.rand(1, 3, 160, 160)
    assert sizes_shown(pooling(), (3, 160, 160), start=start) == [(160, 160)]


def test_a_network_for_images_of_one_size_makes_them_at_that_size():
    network = nn.Sequential(nn.Conv2d(3, 4, 20, stride=20), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
    assert sizes_shown(network, (3, 160, 160))[-1] == (160, 160)


def test_an_interruption_at_the_smaller_size_ends_with_what_was_reached():
    network, watch = pooling(), Watch(interruptible=True)
    calls = list[int]()

    def pressed(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        calls.append(inputs[0].shape[-1])
        if len(calls) == 4:
            raise KeyboardInterrupt

    network.register_forward_pre_hook(pressed)
    images = class_images(network, torch.tensor([0]), (3, 160, 160), background=BACKGROUND, watch=watch)
    assert watch.interrupted
    assert images.shape == (1, 3, 160, 160)
    assert set(calls) == {128}
    assert images.std() > 0
