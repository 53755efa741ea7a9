"""Names of networks: torchvision's weight enums, timm's tags, and the Hugging Face Hub."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models
from torchvision.transforms import v2

from fulgurite.cli.command import main
from fulgurite.cli.inputs import cut_of, network_of
from fulgurite.models import reachable_weights as room
from fulgurite.models.network_names import NetworkName, parts_of
from fulgurite.models.networks import build
from fulgurite.models.published_format import published_format

NAMES = {
    "small_vgg": ("", "small_vgg", ""),
    "torchvision/resnet50": ("torchvision", "resnet50", ""),
    "torchvision/resnet50@IMAGENET1K_V1": ("torchvision", "resnet50", "IMAGENET1K_V1"),
    "timm/resnet18.a1_in1k": ("timm", "resnet18.a1_in1k", ""),
    "hf-hub:somebody/net": ("timm", "hf-hub:somebody/net", ""),
    "hf_hub:somebody/net@v1": ("timm", "hf-hub:somebody/net@v1", ""),
    "timm/hf-hub:timm/resnet18.a1_in1k": ("timm", "hf-hub:timm/resnet18.a1_in1k", ""),
}
CONFIG = {
    "architecture": "test_resnet",
    "num_classes": 3,
    "label_names": ["ant", "bee", "wasp"],
    "pretrained_cfg": {
        "input_size": [3, 96, 96],
        "crop_pct": 0.75,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "first_conv": "conv1.0",
        "classifier": "fc",
    },
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the Hub as its client keeps one, with a network of three classes; nothing else answers."""
    import timm
    from huggingface_hub import constants

    snapshot = tmp_path / "hub" / "models--somebody--net" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("c0ffee")
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=3)
    save_file(net.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(room, "reachable", lambda _: False)
    monkeypatch.chdir(tmp_path)
    return net.eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_as_library_network_and_weights(name):
    assert parts_of(name) == NetworkName(*NAMES[name])


@pytest.mark.parametrize("name", ["hf-hub:net", "hf-hub:a/b/224", "hf-hub:", "timm/hf_hub:a/"])
def test_what_is_no_repository_is_one_sentence(name):
    with pytest.raises(ValueError, match="names no repository; wanted hf-hub:OWNER/NAME"):
        build(name, classes=2, typed=True)


def test_an_unknown_weight_enum_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"no weights 'V1' of resnet50; there are IMAGENET1K_V1, IMAGENET1K_V2"
    ):
        build("torchvision/resnet50@V1", classes=2)


def test_the_weights_of_the_enum_are_taken(monkeypatch):
    asked = []
    state = models.resnet18().state_dict()
    monkeypatch.setattr(room, "reachable", lambda url: bool(asked.append(url)) or True)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda url, **_: asked.append(url) or state
    )
    network = build("torchvision/resnet18@IMAGENET1K_V1", classes=1000, pretrained=True)
    assert torch.equal(network.conv1.weight, state["conv1.weight"])
    assert set(asked) == {models.ResNet18_Weights.IMAGENET1K_V1.url}


def test_a_vision_transformer_has_the_position_embeddings_of_its_weights():
    network = build("torchvision/vit_b_16@IMAGENET1K_SWAG_E2E_V1", classes=2)
    assert network.image_size == 384


@pytest.mark.parametrize(
    ("name", "size", "margin", "mean", "classes"),
    [
        ("torchvision/resnet50@IMAGENET1K_V1", 224, 256 / 224, 0.485, 1000),
        ("torchvision/resnet50", 224, 232 / 224, 0.485, 1000),
        ("torchvision/inception_v3", 299, 342 / 299, 0.5, 1000),
        ("timm/resnet50.a1_in1k", 224, 1 / 0.95, 0.485, 1000),
        ("timm/vit_base_patch16_224.augreg_in21k", 224, 1 / 0.9, 0.5, 21843),
    ],
)
def test_size_crop_mean_and_classes_are_the_librarys(name, size, margin, mean, classes):
    known = published_format(name)
    assert (known.size, known.classes, known.channels) == (size, classes, 3)
    assert known.margin == pytest.approx(margin)
    assert known.mean[0] == pytest.approx(mean)


def test_timm_gives_the_same_format_for_the_network_itself():
    import timm
    from timm.data.config import resolve_model_data_config

    for name in ("test_resnet.r160_in1k", "test_vit.r160_in1k", "mobilenetv3_small_050"):
        theirs = resolve_model_data_config(timm.create_model(name))
        ours = published_format(f"timm/{name}")
        assert (3, ours.size, ours.size) == tuple(theirs["input_size"])
        assert (*ours.mean, *ours.std) == (*theirs["mean"], *theirs["std"])
        assert 1 / ours.margin == pytest.approx(theirs["crop_pct"])


def test_a_network_of_the_hub_is_what_timm_makes_of_it(hub):
    network = build("hf-hub:somebody/net", classes=3, pretrained=True).eval()
    images = torch.rand(2, 3, 96, 96)
    mean, std = (torch.tensor(CONFIG["pretrained_cfg"][key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        assert torch.allclose(network(images), hub((images - mean) / std), atol=1e-6)


def test_a_command_knows_its_classes_size_and_crop(hub):
    Image.linear_gradient("L").convert("RGB").save("grey.png")
    args = Namespace(network="hf_hub:somebody/net", weights=None, classes=None, size=None, device="cpu")
    _, names, size, channels = network_of(args)
    assert (list(names), size, channels) == (["ant", "bee", "wasp"], 96, 3)
    image = Image.open("grey.png")
    expected = v2.Compose(
        [v2.Resize(128), v2.CenterCrop(96), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    assert torch.equal(cut_of(args, size)(image), expected(image))
    assert (
        main(
            ["saliency", "grey.png", "--network", "hf-hub:somebody/net", "--target", "bee", "--out", "s.png"]
        )
        == 0
    )
    assert Path("s.png").is_file()


def test_a_run_that_names_a_network_of_the_hub_fetches_nothing(hub, monkeypatch):
    monkeypatch.setattr(room, "reachable", lambda _: pytest.fail("asked for a host"))
    assert build("hf-hub:somebody/net", classes=3)(torch.rand(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(ValueError, match="not on this machine; fetch it by a command that names"):
        build("hf-hub:somebody/other", classes=3)


def test_a_network_that_the_hub_cannot_give_is_one_sentence(hub):
    with pytest.raises(ValueError, match="does not answer: no network") as reported:
        build("hf-hub:somebody/other", classes=3, typed=True)
    assert "\n" not in str(reported.value)


def test_a_configuration_that_is_none_of_timms_is_one_sentence(hub, tmp_path):
    (file,) = tmp_path.rglob("config.json")
    for config, what in (
        ({"hidden": 3}, "no configuration of timm's"),
        ({"architecture": "bert"}, "'bert', which"),
    ):
        file.write_text(json.dumps(config))
        with pytest.raises(ValueError, match=what):
            build("hf-hub:somebody/net", classes=3, typed=True)


@pytest.mark.parametrize("name", ["torch.hub/pytorch/vision/resnet18", "pytorch/vision:resnet18"])
def test_names_of_torch_hub_are_answered_with_the_forms_that_exist(name):
    with pytest.raises(ValueError, match=r"is of torch.hub.*; names of networks are torchvision/NAME"):
        build(name, classes=3, typed=True)
