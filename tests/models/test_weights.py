"""Weights from files: prefixes, other channels and classes, missing and unfit entries."""

import re
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import transforms

from fulgurite.models.networks import build
from fulgurite.models.weights import ends, fitted, load, read

SQUEEZENET = "squeezenet1_0_imagenet_fp16.safetensors"


@pytest.fixture
def state():
    return {"weight": torch.randn(2, 3), "bias": torch.randn(2)}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_safetensors_and_torch_files_read_alike(state, tmp_path):
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pt")
    assert same(read(tmp_path / "weights.safetensors"), state)
    assert same(read(str(tmp_path / "weights.pt")), state)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "network.", "module._orig_mod.", "network.module."]
)
def test_prefixes_of_wrappers_are_taken_off(prefix, state, tmp_path):
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "weights.pt")
    assert same(read(tmp_path / "weights.pt"), state)


def test_a_lightning_checkpoint_yields_its_network_alone(state, tmp_path):
    inside = {f"network._orig_mod.{name}": value for name, value in state.items()}
    checkpoint = {"epoch": 3, "state_dict": {**inside, "accuracy.total": torch.tensor(7)}}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert same(read(tmp_path / "last.ckpt"), state)


def test_a_part_that_happens_to_be_called_module_stays(tmp_path):
    state = {"module.weight": torch.ones(1), "head.weight": torch.ones(1)}
    torch.save(state, tmp_path / "weights.pt")
    assert same(read(tmp_path / "weights.pt"), state)


def test_half_precision_becomes_float32(state, tmp_path):
    torch.save({**state, "bias": state["bias"].half(), "steps": torch.tensor(3)}, tmp_path / "weights.pt")
    kinds = {name: value.dtype for name, value in read(tmp_path / "weights.pt").items()}
    assert kinds == {"weight": torch.float32, "bias": torch.float32, "steps": torch.int64}


def test_weights_that_do_not_fit_are_reported_and_the_network_is_unchanged():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2), "1.weight": torch.ones(5, 2)}
    state |= {f"more.{i}": torch.ones(1) for i in range(9)}
    with pytest.raises(ValueError, match=r"some\.pt do not fit this Sequential") as refusal:
        load(network, state, source="some.pt")
    reported = str(refusal.value)
    assert "1 missing: 1.bias;" in reported
    assert "9 not the network's: more.0, more.1, more.2, more.3, ...;" in reported
    assert "1 of another shape: 1.weight 5x2 for 2x2." in reported
    assert same(network.state_dict(), before)


def test_only_normalisation_and_counters_may_be_missing():
    network, source = build("small_vgg", classes=2), build("small_vgg", classes=2)
    state = {
        name: value
        for name, value in source.state_dict().items()
        if not name.endswith("num_batches_tracked") and not name.startswith("normalise.")
    }
    load(network, state, source="here")
    assert same(network.state_dict(), source.state_dict())


@pytest.mark.parametrize(
    ("name", "stem", "head"),
    [
        ("small_vgg", "conv1", "classifier"),
        ("all_conv", "conv1", "classifier"),
        ("resnet18_3x3", "conv1", "fc"),
        ("torchvision/squeezenet1_0", "features.0", "classifier.1"),
        ("torchvision/shufflenet_v2_x0_5", "conv1.0", "fc"),
        ("timm/mobilenetv3_small_050", "conv_stem", "classifier"),
    ],
)
def test_the_ends_of_a_network_are_found(name, stem, head):
    stems, heads = ends(build(name, classes=2))
    assert ([*stems], [*heads]) == ([stem], [head])


@pytest.mark.parametrize("name", ["small_vgg", "torchvision/resnet18", "timm/resnet18"])
def test_weights_of_colours_see_a_grey_image_as_its_three_copies(name, tmp_path):
    source = build(name, classes=5, mean=[0.3] * 3, std=[0.2] * 3).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    network = build(name, classes=5, channels=1, weights=tmp_path / "weights.pt").eval()
    grey = torch.rand(2, 1, 64, 64)
    assert torch.allclose(network(grey), source(grey.repeat(1, 3, 1, 1)), atol=1e-4)


def test_weights_of_grey_see_the_mean_of_the_colours(tmp_path):
    source = build("small_vgg", classes=5, channels=1).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    network = build("small_vgg", classes=5, channels=3, weights=tmp_path / "weights.pt").eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(network(images), source(images.mean(1, keepdim=True)), atol=1e-5)


def test_a_stem_that_folds_space_into_channels_sums_each_group():
    network = nn.Sequential(nn.Conv2d(4, 1, 1))
    colours = torch.arange(12.0).reshape(1, 12, 1, 1)
    summed = fitted({"0.weight": colours}, network)["0.weight"]
    assert summed.flatten().tolist() == [3, 12, 21, 30]


@pytest.mark.parametrize("name", ["all_conv", "timm/mobilenetv3_small_050"])
def test_for_other_classes_the_head_alone_is_fresh(name, tmp_path):
    source = build(name, classes=5)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    network = build(name, classes=2, weights=tmp_path / "weights.pt")
    _, (head,) = ends(network)
    kept = {part: value for part, value in network.state_dict().items() if not part.startswith(f"{head}.")}
    assert all(torch.equal(value, source.state_dict()[part]) for part, value in kept.items())
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 2)


@pytest.mark.parametrize("headless", [False, True])
def test_a_head_can_be_fresh_for_as_many_classes_too_and_what_is_fresh_is_reported(headless, tmp_path):
    weights = build("small_vgg", classes=3).state_dict()
    if headless:
        weights = {part: value for part, value in weights.items() if not part.startswith("classifier.")}
    torch.save(weights, tmp_path / "weights.pt")
    printed = []
    asked = {"classes": 3, "channels": 1, "weights": tmp_path / "weights.pt", "fresh_head": True}
    own = build("small_vgg", say=printed.append, **asked).state_dict()
    shape = "x".join(map(str, own["classifier.weight"].shape))
    before = "which was not there" if headless else f"for {shape}"
    assert len(printed) == 1
    assert re.search(
        rf"adapted to the channels: conv1.weight .*; fresh: .*classifier.weight {shape},? {before}",
        printed[0],
    )
    kept = [part for part in own if part.partition(".")[0] not in ("classifier", "conv1", "normalise")]
    assert f": {len(kept) + ('conv1.bias' in own)} tensors taken over" in printed[0]
    assert all(torch.equal(own[part], weights[part]) for part in kept)
    if not headless:
        assert not torch.equal(own["classifier.weight"], weights["classifier.weight"])


def test_a_headless_file_is_refused_where_no_fresh_head_is_asked_for(tmp_path):
    weights = build("small_vgg", classes=3).state_dict()
    torch.save({part: v for part, v in weights.items() if "classifier" not in part}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"missing: classifier\.weight"):
        build("small_vgg", classes=3, weights=tmp_path / "weights.pt")


def test_a_mean_that_is_asked_for_goes_before_the_files(tmp_path):
    torch.save(
        build("small_vgg", classes=2, channels=1, mean=[0.1], std=[0.2]).state_dict(), tmp_path / "w.pt"
    )
    kept = build("small_vgg", classes=2, channels=1, weights=tmp_path / "w.pt")
    asked = build("small_vgg", classes=2, channels=1, mean=[0.3], std=[0.4], weights=tmp_path / "w.pt")
    assert torch.allclose(kept.normalise.mean, torch.tensor(0.1))
    assert torch.allclose(asked.normalise.mean, torch.tensor(0.3))


def test_weights_of_a_plain_library_network_bring_the_librarys_normalisation(tmp_path):
    plain = build("torchvision/squeezenet1_0", classes=3).state_dict()
    save_file({part: v for part, v in plain.items() if "normalise" not in part}, tmp_path / "w.safetensors")
    colours = build("torchvision/squeezenet1_0", classes=3, weights=tmp_path / "w.safetensors")
    grey = build("torchvision/squeezenet1_0", classes=3, channels=1, weights=tmp_path / "w.safetensors")
    assert torch.allclose(colours.normalise.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))
    assert torch.allclose(grey.normalise.mean, colours.normalise.mean.mean())


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("torchvision/googlenet", {"aux1.fc2.weight": torch.ones(1)}),
        ("torchvision/inception_v3", {"AuxLogits.fc.weight": torch.ones(1)}),
        ("torchvision/densenet121", {}),
    ],
)
@pytest.mark.slow
def test_the_older_files_of_torchvision_are_read(name, old, tmp_path):
    plain = build(name, classes=3).state_dict()
    older = {
        part.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")
        if "denselayer" in part
        else part: value
        for part, value in plain.items()
        if "normalise" not in part
    }
    torch.save({**older, **old}, tmp_path / "older.pth")
    network = build(name, classes=3, weights=tmp_path / "older.pth")
    assert all(
        torch.equal(v, plain[part]) for part, v in network.state_dict().items() if "normal" not in part
    )


def test_the_weights_of_another_network_are_refused_with_both_shapes(tmp_path):
    torch.save(build("resnet18_3x3", classes=2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"conv1\.weight 64x3x3x3 for 64x3x7x7"):
        build("torchvision/resnet18", classes=2, weights=tmp_path / "weights.pt")


def test_a_real_network_keeps_all_but_its_head(real_data):
    file = load_file(real_data / SQUEEZENET)
    network = build("torchvision/squeezenet1_0", classes=2, weights=real_data / SQUEEZENET)
    for name, value in network.state_dict().items():
        if name.startswith("classifier.1."):
            assert len(value) == 2
        elif not name.startswith("normalise."):
            assert torch.equal(value, file[name].float())


@pytest.mark.slow
def test_a_real_network_classifies_real_images(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "imagenet_samples_200_short256_q90.zip") as archive:
        archive.extractall(tmp_path)
    synsets = (real_data / "imagenet_synsets.txt").read_text().split()
    look = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    network = build("torchvision/squeezenet1_0", classes=1000, weights=real_data / SQUEEZENET).eval()
    right = []
    for path in sorted(tmp_path.glob("*.JPEG")):
        with Image.open(path) as image, torch.no_grad():
            guess = network(look(image.convert("RGB"))[None]).argmax().item()
        right.append(synsets[guess] == path.name.split("_")[0])
    assert len(right) == 200
    assert sum(right) / 200 == pytest.approx(0.66, abs=0.02)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_weights_that_are_not_finite_are_refused_by_name(number: float, ending: str, tmp_path: Path):
    state = {"stem": torch.ones(2), "head": torch.tensor([1.0, number, 2.0]).half()}
    (save_file if ending == "safetensors" else torch.save)(state, tmp_path / f"weights.{ending}")
    with pytest.raises(ValueError, match="not finite: 1 of 3 in head are NaN or infinite"):
        read(tmp_path / f"weights.{ending}")
