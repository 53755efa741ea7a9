"""What images cannot be made from is reported in one sentence, by every method."""

import pytest
import torch

from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.features import Features
from fulgurite.models.networks import build
from fulgurite.probes.objectives import channel
from fulgurite.probes.synthesis.arguments import check_asked
from fulgurite.probes.synthesis.class_image_methods import METHODS
from fulgurite.probes.synthesis.features import feature_images
from fulgurite.probes.synthesis.inversion import invert

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
GIVEN = {
    "classes": torch.tensor([0, 1]),
    "shape": (3, 16, 16),
    "background": [0.5] * 3,
    "images": IMAGES,
    "labels": torch.tensor([0, 1]),
}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return build("small_vgg", classes=4, channels=3)


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        (
            {"background": [128] * 3},
            r"background=\[128, 128, 128\]; wanted values in \[0, 1\]: divide by 255",
        ),
        ({"background": [-1.0, 0, 0]}, r"background=\[-1.0, 0, 0\]; wanted values in \[0, 1\]$"),
        ({"background": [0.5]}, r"background=\[0.5\]; wanted 3 values in \[0, 1\]"),
        ({"seeds": [1, 2, 3]}, "3 seeds for 2 images; wanted one for each, or none"),
        ({"start": IMAGES * 255}, r"start is torch.float32 from .*; wanted pixels in \[0, 1\]: start / 255"),
        ({"start": IMAGES * torch.nan}, "start is torch.float32 from nan to nan"),
        ({"start": IMAGES[..., :8]}, r"start is \(2, 3, 16, 8\); wanted \(2, 3, 16, 16\)"),
        ({"classes": torch.tensor([0, 9])}, "no (image of )?class 9"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_class_images_names_what_is_wrong(method, wrong, reported, network):
    given = GIVEN | wrong
    examples = {} if method not in ("maco", "robust") else {"images": given["images"]}
    examples |= {"labels": given["labels"]} if method == "robust" else {}
    rest = {name: given[name] for name in ("background", "seeds", "start") if name in given}
    with pytest.raises(ValueError, match=reported):
        METHODS[method](network, given["classes"], given["shape"], steps=1, **rest, **examples)


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        ({"background": 0.5}, r"background=0.5; wanted 3 values in \[0, 1\]"),
        ({"start": (IMAGES * 255).byte()}, "start is torch.uint8 from .*: start / 255"),
        ({"start": IMAGES[:1]}, r"start is \(1, 3, 16, 16\); wanted \(2, 3, 16, 16\)"),
        ({"classes": [0, 1]}, r"classes that are \[0, 1\]; wanted a tensor"),
        ({"classes": torch.tensor([0.0, 1])}, r"classes that are torch.float32 \(2,\); wanted a tensor"),
        ({"classes": torch.tensor(1)}, r"classes that are torch.int64 \(\); wanted a tensor"),
        ({"shape": (16, 16)}, r"shape=\(16, 16\); wanted channels, height and width"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_has_another_type_or_shape_is_named_too(wrong, reported):
    given = {name: GIVEN[name] for name in ("classes", "shape", "background")} | {
        "seeds": None,
        "start": None,
    }
    with pytest.raises(ValueError, match=reported):
        check_asked(**given | wrong)


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        ({"background": [128] * 3}, "divide by 255"),
        ({"start": IMAGES[:1] * 255}, "start / 255"),
        ({"start": IMAGES}, r"start is \(2, 3, 16, 16\); wanted \(1, 3, 16, 16\)"),
    ],
    ids=["background", "start", "starts"],
)
def test_features_name_what_is_wrong(wrong, reported, network):
    with pytest.raises(ValueError, match=reported):
        feature_images(network, channel("conv2", 1), (3, 16, 16), seeds=[0], steps=1, **wrong)


def test_inversions_start_at_pixels(network):
    with pytest.raises(ValueError, match="start / 255"):
        invert(network, IMAGES, "conv1", seeds=[0], start=IMAGES[None] * 255, steps=1)


@pytest.mark.parametrize("probe", [ClassImages, Features])
def test_a_probe_with_a_background_of_bytes_is_refused_when_it_is_made(probe):
    with pytest.raises(ValueError, match="divide by 255"):
        probe(background=[128] * 3)


@pytest.mark.parametrize("method", METHODS)
def test_what_rounding_has_left_outside_is_taken(method, network):
    examples = {} if method not in ("maco", "robust") else {"images": IMAGES}
    examples |= {"labels": GIVEN["labels"]} if method == "robust" else {}
    made = METHODS[method](
        network,
        GIVEN["classes"],
        GIVEN["shape"],
        background=(0, 0.5, 1),
        seeds=range(2),
        start=IMAGES * 1.001,
        steps=1,
        **examples,
    )
    assert made.shape == IMAGES.shape
