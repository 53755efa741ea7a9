"""Attention rollout is the product of attention matrices written out by hand (Abnar and Zuidema 2020)."""

import copy

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from fulgurite.cli.command import main
from fulgurite.probes.attribution.attention import attention_rollout
from fulgurite.probes.attribution.methods import attribute
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict

IMAGES = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
SMALL = {"img_size": (64, 32), "depth": 3, "embed_dim": 24, "num_heads": 2, "num_classes": 5}


def strong(network: nn.Module) -> nn.Module:
    """With weights so large that attention differs from place to place."""
    torch.manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.Linear) and part.out_features == 3 * part.in_features:
            nn.init.normal_(part.weight, std=0.7)
        elif isinstance(part, nn.MultiheadAttention):
            nn.init.normal_(part.in_proj_weight, std=0.7)
    return network.eval()


def vit(**options):
    return strong(timm.create_model("vit_tiny_patch16_224", **SMALL, **options))


def averaged():
    return vit(global_pool="avg", class_token=False)


def distilled():
    return strong(timm.create_model("deit_tiny_distilled_patch16_224", **SMALL))


def torchvisions():
    return strong(torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5))


def attention_of(network, images):
    """Of each layer, [n, heads, tokens, tokens], read from where the libraries say they have it."""
    network, found = copy.deepcopy(network), []
    for part in network.modules():
        if isinstance(part, timm.layers.Attention):
            part.fused_attn = False
            part.attn_drop.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        if isinstance(part, nn.MultiheadAttention):
            part.register_forward_pre_hook(
                lambda _, inputs, how: (inputs, {**how, "need_weights": True, "average_attn_weights": False}),
                with_kwargs=True,
            )
            part.register_forward_hook(lambda _, __, outs: found.append(outs[1]))
    with torch.no_grad():
        network(images)
    return found


def rolled_out(layers):
    """Their equation, for one image at a time."""
    maps = []
    for image in range(len(layers[0])):
        product = torch.eye(layers[0].shape[-1])
        for layer in layers:
            mixed = 0.5 * layer[image].mean(0) + 0.5 * torch.eye(layer.shape[-1])
            product = mixed / mixed.sum(1, keepdim=True) @ product
        maps.append(product)
    return torch.stack(maps)


@pytest.mark.parametrize(
    ("make", "prefix", "size"),
    [(vit, 1, (4, 2)), (averaged, 0, (4, 2)), (distilled, 2, (4, 2)), (torchvisions, 1, (4, 4))],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_it_is_the_product_of_the_layers_attention(make, prefix, size):
    network = make()
    images = IMAGES if make is not torchvisions else IMAGES[..., :32, :]
    product = rolled_out(attention_of(network, images))
    row = product[:, 0, prefix:] if prefix else product.mean(1)
    found = attention_rollout(network, images, class_score(0), enlarge=False)
    assert_close(found, row.unflatten(1, size)[:, None], rtol=1e-5, atol=1e-7)
    assert (found.flatten(1).amax(1) > 1.3 * found.flatten(1).amin(1)).all()
    assert (found.sum((1, 2, 3)) <= 1 + 1e-5).all()


def test_it_is_the_same_for_every_objective_and_enlarged_to_the_image():
    network = vit()
    maps = attribute("attention_rollout", network, IMAGES, [class_score(0), class_score(3)])
    assert maps.shape == (2, 2, 1, 64, 32)
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], attention_rollout(network, IMAGES, class_score(1)))


def test_an_image_s_map_does_not_depend_on_its_batch():
    network = vit()
    alone = torch.cat([attention_rollout(network, image[None], class_score(0)) for image in IMAGES])
    assert_close(attention_rollout(network, IMAGES, class_score(0)), alone)


def test_it_leaves_the_network_as_it_was():
    network = vit(drop_rate=0.5).train()
    before, hooks = copy.deepcopy(network.state_dict()), [len(p._forward_hooks) for p in network.modules()]
    logits = predict(network, IMAGES)
    attention_rollout(network, IMAGES, class_score(0))
    assert network.training
    assert [len(p._forward_hooks) for p in network.modules()] == hooks
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(predict(network, IMAGES), logits)


@pytest.mark.parametrize(
    "name", ["resnet10t", "swin_tiny_patch4_window7_224", "cait_xxs24_224", "mixer_s32_224"]
)
def test_networks_without_attention_among_all_tokens_are_refused_in_a_sentence(name):
    network = timm.create_model(name, num_classes=2).eval()
    with pytest.raises(
        ValueError, match="wanted a vision transformer such as ViT or DeiT; for others"
    ) as reported:
        attention_rollout(network, torch.rand(1, 3, 224, 224), class_score(0))
    assert "\n" not in str(reported.value)


def test_it_runs_from_the_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").convert("RGB").save("a.png")
    save_file(timm.create_model("test_vit").state_dict(), "vit.safetensors")
    words = ["--network", "timm/test_vit", "--weights", "vit.safetensors", "--side", "64"]
    assert main(["attention_rollout", "a.png", *words, "--out", "map.png"]) == 0
    assert (tmp_path / "map.png").is_file()
    torch.save(torchvision.models.squeezenet1_1().state_dict(), "cnn.pt")
    words = ["--network", "torchvision/squeezenet1_1", "--weights", "cnn.pt"]
    assert main(["attention_rollout", "a.png", *words, "--out", "cnn.png"]) == 2
    assert "SqueezeNet has no attention" in capsys.readouterr().err
