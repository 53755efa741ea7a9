"""Networks by name: normalisation, classes, channels, and unknown names."""

import copy
import itertools
import pickle
import urllib.error

import pytest
import torch
import torchvision
from torch import nn

from fulgurite.models.networks import Normalise, build, names, normalised
from fulgurite.models.small_networks import cifar_stem

OWN = ["small_vgg", "all_conv", "resnet18_3x3"]
LIGHT = [
    "torchvision/resnet18",
    "torchvision/squeezenet1_0",
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/mnasnet0_5",
    "timm/resnet18",
    "timm/mobilenetv3_small_050",
    "timm/regnetx_002",
    "timm/resnet18.a1_in1k",
]
HEAVY = [
    "torchvision/googlenet",
    "torchvision/inception_v3",
    "torchvision/densenet121",
    "torchvision/vgg11",
    "torchvision/alexnet",
    "torchvision/efficientnet_b0",
    "torchvision/convnext_tiny",
    "torchvision/regnet_x_400mf",
    "timm/dla34",
    "timm/ghostnet_100",
    "timm/densenet121",
    "timm/convnext_atto",
    "timm/efficientnet_b0",
    "timm/hrnet_w18_small",
    "timm/tresnet_m",
    "timm/vgg11_bn",
    "timm/repvgg_a0",
    "timm/xception41",
]


@pytest.fixture(scope="module", autouse=True)
def _timm_already_imported():
    # its own warnings, at import, are not ours
    pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "channels", "classes", "size"),
    [
        *itertools.product(["small_vgg", "all_conv"], [1, 3], [2, 10], [28, 32, 64]),
        *itertools.product(["resnet18_3x3"], [1, 3], [7], [16]),
    ],
)
def test_a_small_network_gives_finite_logits_and_teaches_its_first_layer(name, channels, classes, size):
    network = build(name, classes=classes, channels=channels)
    logits = network(torch.rand(2, channels, size, size))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), network.conv1.weight)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["small_vgg", "all_conv"])
def test_a_small_network_takes_eight_pixels(name):
    assert build(name, classes=2).eval()(torch.rand(1, 3, 8, 8)).shape == (1, 2)


@pytest.mark.parametrize("name", ["small_vgg", "all_conv"])
def test_a_small_network_has_a_relu_of_its_own_at_each_place(name):
    relus = [part for part in build(name, classes=2).modules() if isinstance(part, nn.ReLU)]
    assert len(relus) == {"small_vgg": 4, "all_conv": 6}[name]
    assert not any(relu.inplace for relu in relus)


def test_small_vgg_keeps_position_where_all_conv_forgets_it():
    image = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    # so far inside that no receptive field which sees it reaches the border, before the move or after
    image[..., 24:28, 24:28] = 1
    elsewhere = image.roll((12, 12), (2, 3))

    def moved(name):
        torch.manual_seed(0)
        network = build(name, classes=10, channels=1).double().eval()
        black, here, there = (network(seen) for seen in (torch.zeros_like(image), image, elsewhere))
        return (there - here).norm() / (here - black).norm()

    assert moved("all_conv") < 1e-9
    assert moved("small_vgg") > 0.1


def test_the_small_stem_keeps_the_size_of_the_image():
    network = cifar_stem(torchvision.models.resnet18(num_classes=2))
    assert network.maxpool(network.conv1(torch.rand(1, 3, 32, 32))).shape == (1, 64, 32, 32)


@pytest.mark.parametrize("name", LIGHT + [pytest.param(name, marks=pytest.mark.slow) for name in HEAVY])
def test_any_network_takes_grey_images_and_seven_classes(name):
    network = build(name, classes=7, channels=1)
    # while training, when Inceptions would add auxiliary logits; with 96 px, as a few take no fewer
    assert network(torch.rand(2, 1, 96, 96)).shape == (2, 7)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("resnet18", ["torchvision/resnet18", "timm/resnet18"]),
        ("smal_vgg", ["small_vgg"]),
        ("torchvision/resnte18", ["torchvision/resnet18"]),
        ("torchvison/resnet18", ["torchvision/resnet18"]),
        ("timm/resnet50.a1_in2k", ["timm/resnet50.a1_in1k"]),
        ("torchvision/ViT-B/16", ["torchvision/vit_b_16"]),
        ("timm/resnet18/224", ["timm/resnet18"]),
        ("timm/timm/resnet18", ["timm/resnet18"]),
        ("qqqqqq", ["small_vgg", "torchvision/NAME", "timm/NAME"]),
    ],
)
def test_an_unknown_name_lists_the_nearest(wrong, near):
    with pytest.raises(ValueError, match="no network") as refusal:
        build(wrong, classes=2)
    assert all(name in str(refusal.value) for name in near)


def test_a_misspelt_torchvision_name_does_not_suggest_timm():
    with pytest.raises(ValueError, match="no network") as refusal:
        build("torchvision/resnet81", classes=2)
    assert "timm/" not in str(refusal.value)


def test_every_kind_of_network_is_named():
    assert {*OWN, *LIGHT, *HEAVY} <= set(names())


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"classes": 0}, "classes=0"),
        ({"channels": 0}, "channels=0"),
        ({"pretrained": True, "weights": "some.pt"}, "choose one"),
        ({"mean": [0.5] * 3}, "give both"),
        ({"mean": [0.5], "std": [0.5]}, "a number per channel: 3, not 1"),
        ({"mean": [0.5] * 3, "std": [0.5, 0.5, 0.0]}, "above 0"),
        ({"pretrained": True}, "nobody publishes"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(asked, answer):
    with pytest.raises(ValueError, match=answer):
        build("small_vgg", **{"classes": 2, **asked})


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_weights_that_cannot_be_fetched_are_one_sentence(name, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("fulgurite.models.reachable_weights.reachable", lambda _: True)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(ValueError, match=rf"{name} could not be fetched .*Name or service.*--weights FILE"):
        build(name, classes=2, pretrained=True)


@pytest.mark.parametrize(
    ("name", "head", "mean"),
    [
        ("torchvision/resnet18", "fc", 0.485),
        ("timm/resnet18", "fc", 0.485),
        pytest.param("torchvision/googlenet", "fc", 0.5, marks=pytest.mark.slow),
        pytest.param("torchvision/inception_v3", "fc", 0.5, marks=pytest.mark.slow),
    ],
)
def test_published_weights_come_with_their_normalisation_and_a_fresh_head(name, head, mean, monkeypatch):
    import timm

    _, short = name.split("/")
    whole = {"aux_logits": True, "init_weights": False} if short in ("googlenet", "inception_v3") else {}
    plain = timm.create_model(short) if "timm" in name else torchvision.models.get_model(short, **whole)
    published = plain.state_dict()
    monkeypatch.setattr("fulgurite.models.reachable_weights.reachable", lambda _: True)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: published)
    network = build(name, classes=2, pretrained=True)
    assert network.normalise.mean[0].item() == pytest.approx(mean)
    for part, value in network.state_dict().items():
        if not part.startswith((f"{head}.", "normalise.")):
            assert torch.equal(value, published[part])
    assert network(torch.rand(2, 3, 96, 96)).shape == (2, 2)


def test_images_are_normalised_before_the_first_layer():
    network = build("small_vgg", classes=2, mean=[0.4, 0.5, 0.6], std=[0.1, 0.2, 0.3])
    images = torch.rand(2, 3, 32, 32)
    seen = []
    network.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(images)
    for channel, (mean, std) in enumerate([(0.4, 0.1), (0.5, 0.2), (0.6, 0.3)]):
        assert torch.equal(seen[0][:, channel], (images[:, channel] - mean) / std)


def test_without_weights_images_are_normalised_to_between_minus_one_and_one():
    normalise = build("torchvision/resnet18", classes=2).normalise
    assert normalise(torch.zeros(1, 3, 1, 1)).unique().item() == -1
    assert normalise(torch.ones(1, 3, 1, 1)).unique().item() == 1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_normalises_for_itself(again):
    network = build("small_vgg", classes=2, channels=1, mean=[0.1], std=[0.3]).eval()
    images = torch.rand(2, 1, 32, 32)
    twin = again(network)
    assert torch.equal(twin(images), network(images))
    twin.normalise.mean += 1
    assert not torch.equal(twin(images), network(images))


def test_the_state_dict_carries_the_normalisation():
    network = build("small_vgg", classes=2, mean=[0.1] * 3, std=[0.3] * 3).eval()
    twin = build("small_vgg", classes=2).eval()
    twin.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(twin(images), network(images))


def test_module_paths_stay_the_librarys_own():
    import timm

    for name, plain in {
        "torchvision/resnet18": torchvision.models.resnet18(num_classes=2),
        "timm/resnet18": timm.create_model("resnet18", num_classes=2),
    }.items():
        network = build(name, classes=2)
        assert [*dict(network.named_modules())] == [*dict(plain.named_modules()), "normalise"]
        assert {*network.state_dict()} == {*plain.state_dict(), "normalise.mean", "normalise.std"}


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_fresh_logits_of_a_squeezenet_can_be_negative_and_learn(name):
    """The library's ReLU behind them lets a network die without a word: all logits 0, and no gradient."""
    network = build(f"torchvision/{name}", classes=2)
    with torch.no_grad():
        network.get_submodule("classifier.1").bias.fill_(-10)
    logits = network(torch.rand(2, 3, 64, 64))
    assert (logits < 0).all()
    logits.sum().backward()
    assert network.get_submodule("classifier.1").weight.grad.abs().sum() > 0
    of_imagenet = build(f"torchvision/{name}", classes=1000)
    assert isinstance(of_imagenet.get_submodule("classifier.2"), torch.nn.ReLU)


@pytest.mark.parametrize(("wanted", "come"), [(1, 3), (3, 1)])
def test_images_of_other_channels_are_refused(wanted, come):
    network = build("small_vgg", classes=2, channels=wanted)
    with pytest.raises(ValueError, match=f"takes {wanted} channels?, the images have {come}"):
        network(torch.rand(1, come, 32, 32))


def test_a_network_is_normalised_once():
    with pytest.raises(ValueError, match="already has a `normalise`"):
        normalised(build("small_vgg", classes=2), [0.5] * 3, [0.5] * 3)


def test_a_sequential_must_contain_its_normalisation():
    with pytest.raises(ValueError, match=r"nn.Sequential\(fulgurite.Normalise\(mean, std\), network\)"):
        normalised(nn.Sequential(nn.Conv2d(3, 2, 1)), [0.5] * 3, [0.5] * 3)


def test_a_mean_and_a_standard_deviation_belong_to_each_channel():
    with pytest.raises(ValueError, match="a number per channel"):
        Normalise([0.5], [0.5, 0.5])
