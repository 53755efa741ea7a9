"""Probes of transformers and of classifiers whose batches have other forms."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import somebody
import timm
import torch
from every_probe import every_probe
from labelled import loader
from torch import nn

from fulgurite.probes.channels import channels_first
from fulgurite.probes.representation.codes import codes
from fulgurite.probes.representation.stages import image_features, stages


def vit() -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)


def swin() -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 12}
    return timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=3, depths=(1, 1), num_heads=(2, 2), **sizes
    )


class Around(pl.LightningModule):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)

    def validation_step(self, *_): ...


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "form"),
    [
        pytest.param(somebody.Theirs, "dict", id="convolutions", marks=pytest.mark.slow),
        pytest.param(vit, "tuple", id="ViT"),
        pytest.param(swin, "dict", id="Swin", marks=pytest.mark.slow),
    ],
)
def test_every_probe_looks_at_classifiers_of_all_kinds(tmp_path: Path, make: Callable, form: str):
    torch.manual_seed(0)
    network = make()
    size, model = (12 if make is somebody.Theirs else 32), Around(network)
    data = loader(form=form, size=size)
    probes = every_probe(size)
    somebody.quiet(tmp_path, *probes).validate(model, data, verbose=False)
    pictures, numbers = somebody.images(tmp_path), somebody.scalars(tmp_path)
    own = {type(probe).__name__ for probe in probes} - {
        "Drift",
        "LayerHistograms",
        "TrainingInfluence",  # there are no training images
        "LayerTable",
        "Robustness",
    }
    assert own <= {tag.split("/")[0] for tag, _ in pictures}
    images = torch.stack([image for image, _ in data.dataset.blobs])
    with torch.no_grad():
        right = (network.eval()(images).argmax(1) == data.dataset.blobs.labels).float()
    assert numbers["Metrics/accuracy"][0][1] == pytest.approx(float(right.mean()))
    assert numbers["Robustness/clean"][0][1] == pytest.approx(float(right[::3].mean()))  # four of twelve


def test_features_of_transformers_are_averaged_over_positions_not_channels():
    images = torch.rand(2, 3, 32, 32)
    for network, widths in ((vit().eval(), {24}), (swin().eval(), {12, 24})):
        layers = stages(network, images)
        seen = image_features(network, images, layers)
        assert {values.shape[1] for values in seen.values()} == widths
        last = seen[layers[-1]]
        expected = network.forward_features(images).flatten(1, -2).mean(1)
        torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)


def test_a_linear_layer_s_codes_are_averaged_over_its_positions():
    class PerToken(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, images):
            return self.head(images.flatten(2).mT).mean(1)

    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(codes(PerToken(), images), images.mean((2, 3)))


def test_maps_whose_channels_may_be_first_or_last_are_refused():
    with pytest.raises(ValueError, match="whether its channels come first or last is unknown"):
        channels_first(torch.rand(1, 8, 8, 8), nn.LayerNorm(8))
    out = torch.rand(1, 8, 4, 4)
    assert channels_first(out, nn.Conv2d(3, 8, 3)) is out
    assert channels_first(out.movedim(1, -1), nn.LayerNorm(8)).shape == out.shape
