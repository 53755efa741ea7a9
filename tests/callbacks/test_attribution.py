from pathlib import Path

import pytest
import somebody
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from fulgurite.callbacks.attribution import USUAL, Attribution
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.occlusion import Occlusion
from fulgurite.probes.frozen_eval import frozen_eval

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
    ("targets", "rows"), [("true", ["true"]), ("predicted", ["predicted"]), ("both", ["true", "predicted"])]
)
def test_a_row_for_each_class_asked_about(targets, rows):
    seen = looked(Attribution(["gradient"], targets=targets))
    assert [list(asked) for asked in seen["rows"].values()] == [rows, rows]


def test_without_labels_the_true_class_is_the_predicted_one():
    seen = looked(Attribution(["gradient"], targets="both"), labels=False)["rows"]["image 00"]
    assert torch.equal(seen["true"][1], seen["predicted"][1])


def test_a_sheet_of_all_methods_or_a_picture_of_each():
    whole = looked(Attribution(["gradient", "grad_cam", "occlusion"]))
    assert set(whole) == {"rows", ""}
    each = looked(Attribution(["gradient", "grad_cam", "occlusion"], sheet=False))
    assert set(each) == {"rows", "gradient", "grad_cam", "occlusion"}
    assert each["gradient"].pixels.shape[2] < whole[""].pixels.shape[2]


def test_methods_have_their_own_knobs():
    few = looked(Attribution({"rise": {"masks": 2}}))["rows"]["image 00"]["predicted"][1]
    more = looked(Attribution({"rise": {"masks": 40}}))["rows"]["image 00"]["predicted"][1]
    assert not torch.equal(few, more)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"methods": ["grad_cma"]}, "no attribution method 'grad_cma'; nearest: grad_cam"),
        ({"methods": []}, "wanted a list of names"),
        ({"methods": {"rise": {"mask": 3}}}, "rise has no 'mask'; it has masks, cells"),
    ],
)
def test_a_wrong_wish_is_told_at_once(asked, told):
    with pytest.raises(ValueError, match=told):
        Attribution(**asked)


@pytest.mark.parametrize(
    ("probe", "told"),
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
def test_what_the_network_cannot_do_is_told_before_training(probe, told):
    with pytest.raises(ValueError, match=told), frozen_eval(network(nn.SiLU())) as net:
        probe().check(net, sample())


def test_the_usual_choice_goes_without_what_the_network_is_not_made_for():
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
