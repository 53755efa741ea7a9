"""Faithfulness over epochs: with masks and without."""

from pathlib import Path

import pytest
import somebody
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from fulgurite.callbacks.faithfulness import Faithfulness
from fulgurite.callbacks.framework.sample import Sample, fetch
from fulgurite.data.shapes import Shapes
from fulgurite.probes.attribution.localisation import energy_inside
from fulgurite.probes.attribution.methods import attribute, importance
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import class_score

CLASSES = ("disc", "square", "triangle")
DATA = Shapes(classes=3, images=12, held_out=12, size=16)
DATA.setup()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).eval()


def sample(loader: DataLoader) -> Sample:
    return fetch(loader, 6, classes=CLASSES, device=torch.device("cpu"))


def looked(probe: Faithfulness, over: Sample) -> dict:
    with frozen_eval(network()) as net:
        probe.check(net, over)
        seen = probe.observe(net, over, probe.subjects(net, over))
        return dict(probe.compose(seen, over))


def test_with_masks_the_measures_are_the_pointing_game_and_the_share_on_the_object():
    over = sample(DATA.val_dataloader())
    assert over.masks is not None
    seen = looked(Faithfulness(["gradient", "grad_cam"]), over)
    kinds = {"pointing/gradient", "pointing/grad_cam", "inside/gradient", "inside/grad_cam"}
    assert set(seen) == {"", *kinds, "inside/object's share"}
    maps = importance("gradient", attribute("gradient", network(), over.images, class_score(over.labels)))
    assert seen["inside/gradient"].value == pytest.approx(
        float(energy_inside(maps, over.masks).mean()), abs=1e-5
    )
    assert seen["inside/object's share"].value == pytest.approx(float(over.masks.float().mean()), abs=1e-6)


def test_masks_are_those_of_the_images_looked_at_also_of_a_part_and_of_a_tensor():
    ids = [11, 3, 7, 5]
    part = DataLoader(Subset(DATA.val, ids), collate_fn=DATA.val.collate)
    assert torch.equal(sample(part).masks, DATA.val.masks(ids))
    assert torch.equal(sample(part)[[2, 0]].masks, DATA.val.masks([7, 11]))
    plain = TensorDataset(DATA.val.scenes(ids).images, torch.zeros(4).long())
    assert sample(DataLoader(plain)).masks is None
    plain.masks = DATA.val.masks(ids)[:, None].float()
    assert torch.equal(sample(DataLoader(plain)).masks, DATA.val.masks(ids))


def test_without_masks_the_measures_are_deletion_and_insertion_or_those_chosen():
    images, labels, *_ = DATA.val.scenes(range(6))
    over = Sample(images, labels, CLASSES, torch.device("cpu"))
    seen = looked(Faithfulness(["gradient"], steps=4), over)
    assert set(seen) == {"", "deletion/gradient", "insertion/gradient"}
    assert 0 < seen["deletion/gradient"].value < 1
    seen = looked(Faithfulness({"occlusion": {"window": 6}}, measures=["infidelity"], steps=4), over)
    assert set(seen) == {"", "infidelity/occlusion"}


def test_what_cannot_be_measured_is_reported():
    images, labels, *_ = DATA.val.scenes(range(6))
    over = Sample(images, labels, CLASSES, torch.device("cpu"))
    with pytest.raises(ValueError, match="'pointing' needs a mask"):
        looked(Faithfulness(["gradient"], measures=["pointing"]), over)
    with pytest.raises(ValueError, match="no measure 'truth'; there are deletion"):
        Faithfulness(["gradient"], measures=["truth"])
    with pytest.raises(ValueError, match="no attribution method 'grad'"):
        Faithfulness(["grad"])
    wrong = TensorDataset(images, labels)
    wrong.masks = DATA.val.masks(range(6))[:, 1:]
    with pytest.raises(ValueError, match=r"masks of \(1, 15, 16\) .*; wanted"):
        looked(Faithfulness(["gradient"]), sample(DataLoader(wrong)))


def test_numbers_of_each_epoch_are_logged_and_drawn(tmp_path: Path):
    loader = somebody.loader()
    loader.dataset.masks = torch.rand(24, 12, 12, generator=torch.Generator().manual_seed(0)) < 0.3
    probe = Faithfulness(["gradient"], images=4, on_error="raise", mean=somebody.MEAN, std=somebody.STD)
    somebody.quiet(tmp_path, probe, max_epochs=2).fit(somebody.Theirs(), loader, loader)
    numbers = somebody.scalars(tmp_path)
    assert len(numbers["Faithfulness/inside/gradient"]) == 3
    pictures = {tag: step for tag, step in somebody.images(tmp_path) if tag == "Faithfulness"}
    assert pictures["Faithfulness"] == 6
