"""Codes of a real network on two hundred photographs: similar images are neighbours, also on a grid."""

import zipfile
from pathlib import Path

import pytest
import torch
from real_images import photographs

from fulgurite.models.networks import build
from fulgurite.probes.representation.codes import codes
from fulgurite.probes.representation.map_quality import map_quality, seams, snapped
from fulgurite.probes.representation.neighbours import nearest_neighbours, pixel_codes
from fulgurite.probes.representation.projections import tsne

SQUEEZENET = "squeezenet1_0_imagenet_fp16.safetensors"


@pytest.mark.slow
def test_dogs_lie_with_dogs(real_data: Path):
    with zipfile.ZipFile(real_data / "imagenet_samples_200_short256_q90.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".JPEG"))
    synsets = [int(Path(name).name[1:9]) for name in names]
    dogs = torch.tensor([2085620 <= synset <= 2113978 for synset in synsets])  # Chihuahua to Mexican hairless
    images = photographs(real_data, range(200), 224)
    network = build("torchvision/squeezenet1_0", classes=1000, weights=real_data / SQUEEZENET).eval()
    own = torch.cat([codes(network, part, "classifier.1") for part in images.split(20)])
    shares = {}
    for name, vectors in (("codes", own), ("pixels", pixel_codes(images))):
        near = nearest_neighbours(vectors, k=3).places[dogs]
        shares[name] = float(dogs[near].double().mean())
    assert int(dogs.sum()) == 16
    assert shares["codes"] > 0.35 > 0.2 > shares["pixels"]  # 0.44, and 0.13; by chance 0.08
    points = tsne(own)
    assert map_quality(own, points).trustworthiness > 0.8
    places = snapped(points)
    shuffled = places[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    on_grid, by_chance = (
        float(torch.cat([part.flatten() for part in seams(own, one)]).nanmean()) for one in (places, shuffled)
    )
    assert on_grid < 0.8 * by_chance  # 0.36, and 0.51
