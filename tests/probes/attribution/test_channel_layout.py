"""Class activation maps of networks whose features are tokens, or have their channels last."""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from fulgurite.probes.attribution.activation_gradients import activation_graph
from fulgurite.probes.attribution.cam import cam, grad_cam, layer_cam, score_cam
from fulgurite.probes.objectives import class_score
from fulgurite.probes.record import record
from fulgurite.probes.tokens import token_grid

SIZE = (64, 32)


def timms(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, img_size=SIZE, num_classes=5, **options).eval()


def mixer():
    torch.manual_seed(0)
    network = timm.models.mlp_mixer.MlpMixer(
        img_size=SIZE, patch_size=8, num_blocks=2, embed_dim=16, num_classes=5
    )
    return headed(network, network.head)


def torchvisions_vit():
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5)
    return headed(network, network.heads.head)


def headed(network, head):
    """With a head that does not begin at 0, as theirs do."""
    nn.init.normal_(head.weight)
    return network.eval()


def torchvisions_swin():
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=5).eval()


def swin(**options):
    return timms("swin_tiny_patch4_window7_224", embed_dim=16, num_heads=(1, 2, 2, 4), **options)


SMALL = {"depth": 3, "embed_dim": 24, "num_heads": 2}
NETWORKS = {  # the layer that is chosen, the number of tokens before the patches, the size of the maps
    "vit": (lambda: timms("vit_tiny_patch16_224", **SMALL), "blocks.1", 1, (4, 2)),
    "vit, averaged": (
        lambda: timms("vit_tiny_patch16_224", **SMALL, global_pool="avg", class_token=False),
        "norm",
        0,
        (4, 2),
    ),
    "deit": (lambda: timms("deit_tiny_distilled_patch16_224", **SMALL), "blocks.1", 2, (4, 2)),
    "cait": (lambda: timms("cait_xxs24_224", **{**SMALL, "depth": 2}), "blocks.1", 0, (4, 2)),
    "mixer": (mixer, "norm", 0, (8, 4)),
    "swin": (lambda: swin(window_size=2, depths=(1, 1, 1, 1)), "norm", None, (2, 1)),
    "torchvision's vit": (torchvisions_vit, "encoder.layers.encoder_layer_1", 1, (4, 4)),
    "torchvision's swin": (torchvisions_swin, "permute", None, (4, 4)),
}


def images_for(name):
    side = (32, 32) if name.startswith("torchvision") else SIZE
    return torch.rand(2, 3, *side, generator=torch.Generator().manual_seed(1))


def by_hand(network, layer, images, prefix, size):
    """The layer's output and the gradient of logit 3 by it, as maps, from the network's whole graph."""
    with record(network, [layer]) as seen:
        score = network(images)[:, 3].sum()
    pair = seen[layer].detach(), torch.autograd.grad(score, seen[layer])[0]
    if prefix is not None:
        return [each[:, prefix:].reshape(len(images), *size, -1).permute(0, 3, 1, 2) for each in pair]
    return [each if each.shape[2:] == size else each.permute(0, 3, 1, 2) for each in pair]


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_maps_of_transformers_are_those_of_the_formulas(name, normalised):
    make, layer, prefix, size = NETWORKS[name]
    network, images = make(), images_for(name)
    maps, slopes = by_hand(network, layer, images, prefix, size)
    expected = {
        grad_cam: (slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True),
        layer_cam: (slopes.clamp(min=0) * maps).sum(1, keepdim=True),
    }
    if normalised:  # the image, normalised, is not the layer
        network = nn.Sequential(nn.BatchNorm2d(3, affine=False, eps=0).eval(), network)
    for method, wanted in expected.items():
        ours = method(network, images, class_score(3), enlarge=False)
        assert ours.shape == (2, 1, *size)
        assert wanted.abs().max() > 0
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())
    assert score_cam(network, images, class_score(3)).shape == (2, 1, *images.shape[2:])


@pytest.mark.parametrize("name", ["vit", "deit", "cait"])
def test_a_row_of_the_image_is_a_row_of_the_map(name):
    network = NETWORKS[name][0]()
    with record(network, ["patch_embed", "patch_embed.proj"]) as seen, torch.no_grad():
        network(images_for(name))
    grid = token_grid(network, seen["patch_embed"].shape)
    assert torch.equal(grid.maps(seen["patch_embed"]), seen["patch_embed.proj"])


CHANNELS_LAST = {
    "swin": ("layers.0", "layers.1.downsample", "layers.2", "layers.3", "layers.0.blocks.0", "patch_embed"),
    "torchvision's swin": ("features.0", "features.1", "features.2", "features.3", "norm"),
}
CHANNELS_FIRST = {"swin": ["patch_embed.proj"], "torchvision's swin": ["features.0.0", "permute"]}


@pytest.mark.parametrize("name", CHANNELS_LAST)
def test_later_layers_show_that_channels_are_last(name):
    network, images = NETWORKS[name][0](), images_for(name)
    for layer in CHANNELS_LAST[name]:
        with activation_graph(network, images, class_score(3), layer) as tap:
            assert torch.equal(tap.to_maps(tap.leaf), tap.leaf.permute(0, 3, 1, 2)), layer
    for layer in CHANNELS_FIRST[name]:
        with activation_graph(network, images, class_score(3), layer) as tap:
            assert torch.equal(tap.to_maps(tap.leaf), tap.leaf), layer


def test_a_layer_norm_inside_a_convnext_has_its_channels_last_and_the_block_first():
    torch.manual_seed(0)
    network = torchvision.models.convnext.ConvNeXt(
        [torchvision.models.convnext.CNBlockConfig(8, None, 2)], num_classes=5
    ).eval()
    images = torch.rand(1, 3, 32, 32)
    for layer, last in {
        "features.1": False,
        "features.1.0.block.2": True,
        "features.1.0.block.0": False,
    }.items():
        with activation_graph(network, images, class_score(3), layer) as tap:
            assert tap.to_maps(tap.leaf).shape == (1, 8, 8, 8)
            assert torch.equal(tap.to_maps(tap.leaf), tap.leaf.permute(0, 3, 1, 2) if last else tap.leaf), (
                layer
            )


def test_maps_are_as_large_as_their_image_wherever_channels_are():
    network, images = torchvisions_swin(), images_for("torchvision's swin")
    small = grad_cam(network, images, class_score(3), layer="features.1", enlarge=False)
    large = F.interpolate(small, (32, 32), mode="bilinear", align_corners=False)
    assert torch.equal(grad_cam(network, images, class_score(3), layer="features.1"), large)


def test_an_average_and_a_linear_layer_over_tokens_have_a_cam():
    network, images = mixer(), images_for("mixer")
    ours = cam(network, images, class_score(3), enlarge=False)
    scores = network(images)[:, 3].detach() - network.head.bias[3].detach()
    torch.testing.assert_close(ours.mean((1, 2, 3)), scores)


def test_where_the_class_token_alone_is_read_an_earlier_layer_is_named():
    network, images = NETWORKS["vit"][0](), images_for("vit")
    for layer in ("norm", "blocks", "blocks.2"):
        with pytest.raises(ValueError, match=rf"class token alone of layer '{layer}'.*such as 'blocks\.1'"):
            grad_cam(network, images, class_score(3), layer=layer)
    with pytest.raises(ValueError, match=r"'head' outputs \(2, 5\); wanted maps.*'blocks\.1' would do"):
        grad_cam(network, images, class_score(3), layer="head")


def test_a_head_that_begins_at_0_has_maps_of_0():
    network = torchvisions_vit()
    nn.init.zeros_(network.heads.head.weight)
    assert not grad_cam(network, images_for("torchvision's vit"), class_score(3)).any()


class Untold(nn.Module):
    """A transformer that does not tell where its tokens lie."""

    def __init__(self):
        super().__init__()
        self.normalise = nn.BatchNorm2d(3, affine=False)
        self.patches = nn.Linear(48, 8)
        self.block, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 5)

    def forward(self, images):
        tokens = F.unfold(self.normalise(images), 4, stride=4).transpose(1, 2)
        return self.head(self.block(self.patches(tokens)).mean(1))


def test_tokens_without_a_defined_grid_have_no_maps():
    with pytest.raises(ValueError, match=r"no layer outputs maps.*grid_size and num_prefix_tokens"):
        grad_cam(Untold(), torch.rand(1, 3, 16, 16), class_score(3))
    with pytest.raises(ValueError, match=r"layer 'block' outputs \(1, 16, 8\); wanted maps"):
        grad_cam(Untold(), torch.rand(1, 3, 16, 16), class_score(3), layer="block")
    reported = Untold()
    reported.grid_size = (4, 4)
    assert grad_cam(reported, torch.rand(1, 3, 16, 16), class_score(3)).shape == (1, 1, 16, 16)


def test_a_swin_whose_last_maps_are_1_x_1_is_seen_earlier():
    network = timm.create_model(
        "swin_tiny_patch4_window7_224",
        pretrained=False,
        img_size=32,
        window_size=1,
        depths=(1, 1, 1, 1),
        embed_dim=16,
        num_heads=(1, 2, 2, 4),
        num_classes=5,
    ).eval()
    with activation_graph(network, torch.rand(1, 3, 32, 32), class_score(3), None) as tap:
        assert tap.to_maps(tap.leaf).shape[2:].numel() > 1
