"""The layer table from the shell."""

import pytest
import torch
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.cli.layer_table import summary
from fulgurite.models.networks import build
from fulgurite.recipes import digits


def test_the_table_of_a_network(capsys):
    assert main(["table", "--network", "torchvision/alexnet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (first,) = [line for line in lines if line.startswith("features.0 ")]
    assert " ".join(first.split()[1:]) == "Conv2d 64 x 55 x 55 23,296 193,600 0.6 MB 70,276,800"
    (total,) = [line for line in lines if line.startswith("total ")]
    assert total.split()[1] == "61,100,840"


def test_stages_with_receptive_fields_at_another_size(tmp_path, capsys):
    file = tmp_path / "weights.safetensors"
    save_file(build("small_vgg", classes=4, channels=1).state_dict(), file)
    words = ["table", "--network", "small_vgg", "--weights", str(file), "--size", "32", "--stages"]
    assert main([*words, "--receptive_fields"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-3:] == ["receptive", "field", "stride"]
    assert lines[1].split()[:6] == ["image", "1", "x", "32", "x", "32"]
    assert lines[2].split()[-2:] == ["3", "1"]  # the first convolution, with what follows it
    (classifier,) = [line for line in lines if line.startswith("classifier ")]
    assert classifier.rstrip().split()[-1].replace(",", "").isdecimal()


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--network", "torchvision/resnet1"], "no network 'torchvision/resnet1'; nearest: "),
        (["--network", "runs/none"], "no network 'runs/none', and no such folder of a run (what looks at "),
        (["--network", "small_vgg", "--size", "0"], "--size 0; wanted a number of pixels, from 1 to 4096"),
        (
            ["--network", "torchvision/alexnet", "--size", "8"],
            "AlexNet cannot be run on an image of shape 3 x 8",
        ),
        ([], "the following arguments are required: --network"),
        (["--network", "small_vgg", "--out", "a.png"], "unrecognized arguments: --out a.png"),
    ],
)
def test_what_cannot_be_is_reported_in_a_line(words, reported, capsys):
    assert main(["table", *words]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {reported}")
    assert printed.count("\n") == 1


def test_weights_of_another_network_are_an_error(tmp_path, capsys):
    file = tmp_path / "weights.safetensors"
    save_file(build("small_cnn", classes=4, channels=1).state_dict(), file)
    assert main(["table", "--network", "small_vgg", "--weights", str(file)]) == 2
    reported = capsys.readouterr()
    assert not reported.out
    assert reported.err.startswith(f"error: the weights in {file} do not fit this SmallVGG: ")
    assert reported.err.count("\n") == 1


def test_a_run_begins_with_its_stages():
    recipe = digits.recipe(every=0)
    state = torch.get_rng_state()
    lines = summary(recipe).splitlines()
    assert lines[0] == "SmallVGG, for one image:"
    assert lines[2].split()[:6] == ["image", "1", "x", "32", "x", "32"]
    parameters = sum(own.numel() for own in recipe.network.parameters())
    assert lines[-1].split()[:2] == ["total", f"{parameters:,}"]
    assert len(lines) < 14
    assert torch.equal(state, torch.get_rng_state())
