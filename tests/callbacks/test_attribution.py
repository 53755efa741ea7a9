"""Attribution maps during training: methods, captions, scales, and what is refused."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import somebody
import torch
from drawn_words import words
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from fulgurite.callbacks.attribution import USUAL, Attribution
from fulgurite.callbacks.framework.captions import prediction_captions
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.occlusion import PROBABILITY, SCORE, Occlusion
from fulgurite.callbacks.saliency import Saliency
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.attribution.map_sheets import MapRow
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import class_score

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


def sample(labels: bool = True) -> Sample:
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return Sample(
        images, torch.tensor([2, 0]) if labels else None, ("cat", "dog", "eel"), torch.device("cpu")
    )


def network(activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), activation or nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).eval()


def looked(probe: Attribution, *, labels: bool = True, net: nn.Module | None = None) -> dict:
    with frozen_eval(net or network()) as borrowed_network:
        probe.check(borrowed_network, sample(labels))
        subjects = probe.subjects(borrowed_network, sample(labels))
        seen = probe.observe(borrowed_network, sample(labels), subjects)
    return {"rows": seen, **probe.compose(seen, sample(labels))}


@pytest.mark.parametrize(
    ("targets", "rows"),
    [
        ("true", [["true"], ["true"]]),
        ("predicted", [["predicted"], ["predicted"]]),
        ("both", [["true", "predicted"], ["true"]]),
    ],
)
def test_a_row_for_each_target_class_and_one_where_they_are_the_same(targets, rows):
    net = network()
    with torch.no_grad():
        net[-1].weight.zero_()
        net[-1].bias.copy_(
            torch.tensor([1.0, 0, 0])
        )  # which answers cat: wrong of the first, right of the second
    seen = looked(Attribution(["gradient"], targets=targets), net=net)
    assert [list(asked) for asked in seen["rows"].values()] == rows


@pytest.mark.parametrize("targets", [1, "dog"])
def test_one_class_is_explained_of_all_images_by_number_or_name(targets):
    seen = looked(Attribution(["gradient"], targets=targets))
    expected = gradient(network(), sample().images, class_score(1))
    for (row,), own in zip((asked.values() for asked in seen["rows"].values()), expected, strict=True):
        assert torch.allclose(row.maps["gradient"], own, atol=1e-6)
    with pytest.raises(ValueError, match=r"targets='wolf'; .*by number or name \(cat, dog"):
        Attribution(["gradient"], targets="wolf").check(network(), sample())


def test_captions_name_all_labels_that_are_predicted():
    logits = torch.tensor([[4.0, 0.2, -3.0], [-1.0, -2.0, -2.0]])
    several = replace(
        sample(), labels=None, task="multilabel", targets=torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    )
    lines = prediction_captions(several, logits)
    assert lines[0] == ("true cat\npred cat: 98% + dog: 55%", True)
    assert lines[1][0].endswith("pred none, at most cat: 27%")
    assert not lines[1][1]


def test_without_labels_the_true_class_is_the_predicted_one():
    seen = looked(Attribution(["gradient"], targets="both"), labels=False)["rows"]
    assert [list(asked) for asked in seen.values()] == [["true"], ["true"]]


def seen_by(probe: Saliency, net: nn.Module, images: Sample) -> dict:
    with frozen_eval(net) as borrowed_network:
        return probe.observe(borrowed_network, images, probe.subjects(borrowed_network, images))


@pytest.mark.parametrize("labels", [[0, 0], [2, 0], [2, 1]])
def test_saliency_of_a_class_that_is_true_and_predicted_is_shown_once(labels):
    net, images = network(), sample()
    with torch.no_grad():
        net[-1].bias.copy_(torch.tensor([100.0, 0, 0]))  # which answers cat
    images = replace(images, labels=torch.tensor(labels))
    rows = seen_by(Saliency(), net, images)
    assert [len(row.maps) for row in rows.values()] == [1 + (label != 0) for label in labels]
    assert [row.wrong for row in rows.values()] == [label != 0 for label in labels]
    for row, label in zip(rows.values(), labels, strict=True):
        first, second = row.caption.split("\n")
        assert first == ("true cat" if label == 0 else f"true {images.classes[label]}: 0%")
        assert second == "pred cat: 100%"


def test_columns_of_saliency_are_named_by_the_class_where_both_are_shown():
    net, images = network(), sample()
    with torch.no_grad():
        net[-1].bias.copy_(torch.tensor([0, 0, 100.0]))  # which answers eel: right of the first image
    probe = Saliency()

    def shown(own: Sample) -> list[str]:
        return words(probe.compose(seen_by(probe, net, own), own)[""].pixels)

    both = shown(images)
    titles = [line for line in both if line.startswith(("saliency", "true class", "predicted class"))]
    assert titles == ["saliency of the", "true class", "saliency of the", "predicted class"]
    assert "maps of the true and of the predicted class, one where they are the same" in " ".join(both)
    right = shown(replace(images, labels=torch.tensor([2, 2])))
    assert right.count("saliency") == 1
    assert "maps of the true class" in right
    unknown = shown(sample(labels=False))
    assert unknown.count("saliency") == 1
    assert "maps of the predicted class" in unknown


def test_maps_that_are_0_everywhere_are_named_once_and_left_out(caplog):
    """LayerCAM weights by the positive part of the gradient, and here it has none."""
    net = network()
    with torch.no_grad():
        net[-1].weight.copy_(-net[-1].weight.abs())
    probe = Attribution(["gradient", "layer_cam"], layer="1")
    with caplog.at_level("INFO"):
        first, _ = looked(probe, net=net), looked(probe, net=net)
    reported = [record.message for record in caplog.records if "0 everywhere" in record.message]
    assert len(reported) == 1
    assert reported[0].startswith("Attribution: maps that are 0 everywhere: layer_cam (2 of 2); nothing ")
    whole = looked(Attribution(["gradient"], layer="1"), net=net)
    assert first[""].pixels.shape[2] == whole[""].pixels.shape[2]  # no column, but a line
    assert first[""].pixels.shape[1] > whole[""].pixels.shape[1]


def test_a_saliency_that_is_0_everywhere_is_named_once(caplog):
    net = network()
    with torch.no_grad():
        net[-1].weight.zero_()
    probe = Saliency()
    with caplog.at_level("INFO"), frozen_eval(net) as borrowed_network:
        for _ in range(2):
            seen = probe.observe(borrowed_network, sample(), probe.subjects(borrowed_network, sample()))
            probe.compose(seen, sample())
    reported = [record.message for record in caplog.records if "0 everywhere" in record.message]
    assert len(reported) == 1
    assert "saliency (2 of 2)" in reported[0]


def test_a_sheet_of_all_methods_or_a_picture_of_each():
    whole = looked(Attribution(["gradient", "grad_cam", "occlusion"]))
    assert set(whole) == {"rows", ""}
    each = looked(Attribution(["gradient", "grad_cam", "occlusion"], sheet=False))
    assert set(each) == {"rows", "gradient", "grad_cam", "occlusion"}
    assert each["gradient"].pixels.shape[2] < whole[""].pixels.shape[2]


def test_methods_have_their_own_knobs():
    few = looked(Attribution({"rise": {"masks": 2}}))["rows"]["image 00"]["predicted"].maps["rise"]
    more = looked(Attribution({"rise": {"masks": 40}}))["rows"]["image 00"]["predicted"].maps["rise"]
    assert not torch.equal(few, more)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"methods": ["grad_cma"]}, "no attribution method 'grad_cma'; nearest: grad_cam"),
        ({"methods": []}, "wanted a list of names"),
        ({"methods": {"rise": {"mask": 3}}}, "rise has no 'mask'; it has masks, cells"),
    ],
)
def test_a_wrong_option_is_refused_at_once(asked, message):
    with pytest.raises(ValueError, match=message):
        Attribution(**asked)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (lambda: Attribution(["grad_cam"], layer="7"), "no layer '7'"),
        (lambda: Attribution(["gradient"], score_layer="x"), "no layer 'x'"),
        (lambda: Attribution(["guided_backprop"]), "no ReLU on the way"),
        (lambda: Occlusion(layer="x"), "no layer 'x'"),
        (lambda: Occlusion(window=-1), "wanted a window no larger than the image"),
        (lambda: Occlusion(window=13), "wanted a window no larger than the image"),
        (lambda: Occlusion(stride=0), "steps of at least 1"),
    ],
)
def test_what_the_network_cannot_do_is_reported_before_training(probe, message):
    with pytest.raises(ValueError, match=message), frozen_eval(network(nn.SiLU())) as net:
        probe().check(net, sample())


def test_kept_gradients_are_warned_of_once():
    class Amax(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return maps.amax((2, 3))

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Amax(), nn.Linear(4, 3))
    probe = Attribution(["gradient", "guided_backprop", "deconvnet", "guided_grad_cam"], images=None)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        looked(probe, net=net)
        looked(probe, net=net)
    kept = [str(one.message) for one in found if "kept their own gradient" in str(one.message)]
    assert len(kept) == 1
    assert "1 x Amax" in kept[0]


def test_the_default_methods_leave_out_those_that_do_not_suit_the_network():
    probe = Attribution()
    looked(probe, net=network(nn.SiLU()))
    assert list(probe.methods) == [name for name in USUAL if name != "guided_backprop"]


@pytest.mark.parametrize("probe", [Attribution, Occlusion])
def test_they_look_while_lightning_validates(probe, tmp_path: Path):
    trainer = somebody.quiet(
        tmp_path, probe(on_error="raise", **SCALE), logger=TensorBoardLogger(tmp_path, "", "")
    )
    trainer.validate(somebody.Theirs(), somebody.loader(9), verbose=False)
    assert {tag for tag, _ in somebody.images(tmp_path)} == {probe.__name__}


@pytest.mark.parametrize(("size", "end"), [(0.2, "0.2"), (1e-4, "0.01")])
def test_lost_probabilities_are_on_the_scale_of_the_strongest_down_to_a_hundredth(size: float, end: str):
    values = {SCORE: torch.full((1, 12, 12), 3.0), PROBABILITY: torch.full((1, 12, 12), size)}
    row = MapRow(torch.rand(3, 12, 12), values, "true cat\npred cat: 90%")
    found = Occlusion().compose({"image 00": row}, sample())
    ends = [line for line in words(found[""].pixels) if line in ("3", "1", "0.2", "0.01")]
    assert sorted(ends) == sorted(["3", end])
