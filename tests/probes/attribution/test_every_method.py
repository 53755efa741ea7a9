"""Properties of all attribution methods, each with small, fast settings."""

import pytest
import torch
from every_method import ASKED, CLASSES, IMAGES, SMALL, close, every_method, mapped, small

from fulgurite.probes.attribution.methods import METHODS, attribute, knobs_of, method_of
from fulgurite.probes.objectives import channel, class_score, log_probability

OF_PIXELS = {
    *("gradient", "input_x_gradient", "smoothgrad", "integrated_gradients"),
    *("backward_rules", "guided_backprop", "deconvnet", "guided_grad_cam"),
}

BENT = {"unit", "probability"}  # not linear in averaged maps: no class activation map


@every_method
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(14, 12), (13, 9), (9, 32)])
@pytest.mark.parametrize("count", [1, 2])
def test_a_map_has_the_size_of_the_image(name, channels, size, count):
    images = torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(0))
    found = mapped(name, small(channels), images, class_score(torch.arange(count)))
    assert found.shape == (count, channels if name in OF_PIXELS else 1, *size)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.any()
    assert not found.requires_grad
    assert not found.is_inference()


@every_method
@pytest.mark.parametrize("asked", ASKED)
def test_anything_inside_the_network_can_be_asked_for(name, asked):
    if name == "cam" and asked in BENT:
        with pytest.raises(ValueError, match="not linear in the averaged maps"):
            mapped(name, small(), objective=ASKED[asked])
        return
    found = mapped(name, small(), objective=ASKED[asked])
    assert found.isfinite().all()
    assert found.any()


@every_method
def test_several_objectives_equal_one_call_for_each(name):
    asked = [ASKED[what] for what in ("class", "class of each image", "probability", "of the output")]
    if name == "cam":
        asked.remove(ASKED["probability"])
    together = mapped(name, small(), objective=asked)
    assert together.shape[:2] == (len(asked), 3)
    for ours, objective in zip(together, asked, strict=True):
        close(ours, mapped(name, small(), objective=objective))
    assert mapped(name, small(), objective=asked[:1]).shape == (1, *together.shape[1:])


@every_method
def test_objectives_of_different_layers_equal_one_call_for_each(name):
    settings = {"layer": "2"} if "layer" in knobs_of(METHODS[name]) else {}
    asked = [ASKED[what] for what in ASKED]
    if name == "cam":  # there is max-pooling between
        with pytest.raises(ValueError, match="not linear"):
            mapped(name, small(), objective=asked, **settings)
        return
    together = mapped(name, small(), objective=asked, **settings)
    for ours, objective in zip(together, asked, strict=True):
        close(ours, mapped(name, small(), objective=objective, **settings))


@every_method
def test_an_images_map_does_not_depend_on_its_batch(name):
    together = mapped(name, small())
    for place in range(3):
        alone = mapped(name, small(), IMAGES[place : place + 1], class_score(int(CLASSES[place])))
        close(together[place : place + 1], alone)
    turned = torch.tensor([2, 0, 1])
    close(mapped(name, small(), IMAGES[turned], class_score(CLASSES[turned])), together[turned])


@every_method
def test_every_image_of_a_batch_may_have_another_objective(name):
    asked = channel("4", CLASSES)
    together = mapped(name, small(), objective=asked)
    for place in range(3):
        alone = mapped(name, small(), IMAGES[place : place + 1], channel("4", int(CLASSES[place])))
        close(together[place : place + 1], alone)


@every_method
def test_once_more_is_the_same_to_the_bit(name):
    network = small()
    assert torch.equal(mapped(name, network), mapped(name, network))


@every_method
def test_an_empty_batch_has_no_maps(name):
    found = mapped(name, small(), IMAGES[:0], class_score(1))
    assert found.shape == (0, 3 if name in OF_PIXELS else 1, 14, 12)


@every_method
def test_it_is_known_by_its_name(name):
    assert method_of(name) is METHODS[name]
    found = attribute(name, small(), IMAGES, log_probability(1) if name != "cam" else class_score(1), **ALL)
    assert found.shape[-2:] == (14, 12)
    assert set(SMALL.get(name, {})) <= set(knobs_of(METHODS[name]))


ALL = {knob: value for settings in SMALL.values() for knob, value in settings.items()}


def test_a_name_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no attribution method 'gradcam'; nearest: grad_cam"):
        method_of("gradcam")
