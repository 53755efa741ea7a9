"""Attribution on a real network and real photographs."""

import io
import zipfile

import pytest
import torch
from dispatch_oracle import by_dispatch
from PIL import Image

from fulgurite.data.crops import from_the_middle
from fulgurite.data.decoding import upright
from fulgurite.models.networks import build
from fulgurite.probes.attribution.backward import backward_rules
from fulgurite.probes.attribution.cam import cam, grad_cam
from fulgurite.probes.attribution.grabcut import grabcut
from fulgurite.probes.attribution.gradient import saliency
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict

GOLDFISH = 1


@pytest.fixture(scope="module")
def squeezenet(real_data):
    return build(
        "torchvision/squeezenet1_0",
        classes=1000,
        weights=real_data / "squeezenet1_0_imagenet_fp16.safetensors",
    ).eval()


@pytest.fixture(scope="module")
def goldfish(real_data):
    with zipfile.ZipFile(real_data / "imagenet_samples_200_short256_q90.zip") as photographs:
        (name,) = [name for name in photographs.namelist() if "goldfish" in name]
        photograph = Image.open(io.BytesIO(photographs.read(name)))
        return from_the_middle(224)(upright(photograph, channels=3))[None]


def golden(images: torch.Tensor) -> torch.Tensor:
    """Where the goldfish is: it is far redder than the water."""
    return images[:, :1] - images[:, 2:] > 0.25


def test_the_goldfish_is_known(squeezenet, goldfish):
    assert predict(squeezenet, goldfish).argmax() == GOLDFISH


@pytest.mark.parametrize("rule", ["deconvnet", "desalinet"])
def test_the_rules_are_exact_on_real_weights(squeezenet, goldfish, rule):
    ours = backward_rules(squeezenet, goldfish, class_score(GOLDFISH), relu=rule)
    assert torch.equal(ours, by_dispatch(squeezenet, goldfish, GOLDFISH, relu=rule))


@pytest.mark.parametrize("method", [cam, grad_cam, saliency])
def test_the_map_sits_on_the_goldfish(squeezenet, goldfish, method):
    fish = golden(goldfish)
    seen = method(squeezenet, goldfish, class_score(GOLDFISH, layer="classifier.1")).clamp(min=0)
    assert seen[fish].mean() > 1.5 * seen[~fish].mean()


@pytest.mark.slow
def test_the_goldfish_is_cut_out(squeezenet, goldfish):
    fish = golden(goldfish)
    mask = grabcut(goldfish, saliency(squeezenet, goldfish, class_score(GOLDFISH, layer="classifier.1")))
    assert (mask & fish).sum() / (mask | fish).sum() > 0.6
