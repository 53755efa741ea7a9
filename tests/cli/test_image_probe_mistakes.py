"""Probes of image files from the shell: what is refused, in one line, with nothing written."""

from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import pytest

from fulgurite.cli.command import main
from fulgurite.cli.inputs import check_fits


@pytest.mark.parametrize(
    ("probe", "words", "message"),
    [
        ("grad_cma", ["{a}"], "no command 'grad_cma'; nearest: grad_cam"),
        ("gradient", ["nowhere.png"], "no image nowhere.png"),
        ("gradient", ["{empty}"], "no images in"),
        ("gradient", ["{text}"], "cannot be read as an image"),
        ("gradient", ["{a}", "--network", "torchvision/resnet81"], "nearest: torchvision/resnet18"),
        ("gradient", ["{a}", "--target", "tiger"], "no class 'tiger' among 4"),
        ("gradient", ["{a}", "--target", "4"], "no class 4; wanted a name, or a number from 0 to 3"),
        ("gradient", ["{a}", "--channel", "conv2"], "--channel conv2; wanted LAYER:INDEX"),
        ("gradient", ["{a}", "--channel", "conv9:3"], "no layer 'conv9' in SmallVGG; nearest: conv"),
        ("gradient", ["{a}", "--channel", "conv2:999"], "no channel 999"),
        ("gradient", ["{a}", "--widnow", "3"], "unrecognized arguments: --widnow 3"),
        ("gradient", ["{a}", "--classes", "{a}"], "is not text; wanted the names"),
        ("gradient", ["{a}", "--classes", "{text}"], "1 name for the 4 classes of small_vgg"),
        ("gradient", ["{a}", "--device", "tpu9"], "tpu9"),
        ("gradient", ["{a}", "--size", "0"], "--size 0"),
        ("gradient", ["{a}", "--side", "0"], "--side 0"),
        ("occlusion", ["{a}", "--window", "99"], "wanted a window no larger than the image"),
        ("occlusion", ["{a}", "--window", "big"], "--window"),
        ("occlusion", ["{a}", "--window", '["a",1]'], "wanted a whole number, or two as [HEIGHT,WIDTH]"),
        ("occlusion", ["{a}", "--fill", "green"], "--fill green; wanted one of grey, mean, blur"),
        ("gradient", ["{a}", "--size", "100000"], "--size 100000; wanted a number of pixels, from 1 to 4096"),
        ("gradient", ["{a}", "--side", "50000"], "--side 50000; wanted a number of pixels, from 1 to 4096"),
        ("compare", ["{a}", "--side", "4096"], "1 x 11 tiles of 4096 x 4096 pixels are too large a picture"),
        ("gradient", ["{a}", "--device", "meta"], "--device meta: "),
        ("smoothgrad", ["{a}", "--spread", "1e999"], "--spread inf; wanted a number"),
        ("smoothgrad", ["{a}", "--draws", "few"], "--draws few; wanted a whole number"),
        ("smoothgrad", ["{a}", "--draws", "0"], "wanted at least 1 draw"),
        ("smoothgrad", ["{a}", "--draws", "1000000000"], "--draws 1000000000; wanted at most 100000"),
        ("compare", ["{a}", "--methods", "gradient,lyme"], "no attribution method 'lyme'; nearest: lime"),
        ("grad_cam", ["{a}", "--layer", "conv5"], "no layer 'conv5'"),
        ("gradient", ["{a}", "--out", "{empty}/x.gif"], "wanted a name that ends in .png or .jpg"),
        ("gradient", ["{a}", "--out", "nowhere/x.png"], "there is no folder nowhere"),
        ("gradient", ["{a}", "--out", "/proc/x.png"], "--out /proc/x.png"),
        ("gradient", ["nowhere.png", "--out", "{long}.png"], "nothing can be written there"),
        ("attack", ["{a}"], "required: --eps"),
        (
            "attack",
            ["{a}", "--eps", "wide"],
            "radius='wide'; wanted a number, or a fraction such as \"8/255\"",
        ),
        ("attack", ["{a}", "--eps", "8"], "--eps 8 turns any image into any other: pixels are in [0, 1]"),
        ("attack", ["{a}", "--eps", "300"], "pixels are in [0, 1]; wanted such as 8/255 or 0.1"),
        ("gradient", ["nowhere"], "no image or folder nowhere"),
        ("attack", ["{a}", "--eps", "0.1", "--target", "tiger"], "no class 'tiger' among 4"),
        ("attack", ["{a}", "--eps", "0.1", "--target", "2", "--label", "2"], "are both '2'"),
        ("attack", ["{a}", "--eps", "0.1", "--threat", "l0"], "invalid choice: 'l0'"),
        ("attack", ["{a}", "--eps", "0.1", "--times", "1"], "--times 1; wanted a factor above 1"),
        ("attack", ["{a}", "--eps", "0.1", "--steps", "few"], "--steps few; wanted a whole number"),
        ("attack", ["{a}", "--eps", "0.1", "--steps", "0"], "steps=0"),
        ("attack", ["{a}", "--eps", "0.1", "--queries", "9"], "pgd has no --queries; it has --steps"),
        ("attack", ["{a}", "--eps", "0.1", "--attack", "fab", "--loss", "dlr"], "FAB has no loss to choose"),
        ("attack", ["{a}", "--eps", "0.1", "--step_size", "[1,2]"], "--step_size [1, 2]; wanted a number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_mistake_is_one_line_and_writes_nothing(probe, words, message, weights, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    places = {"a": photos / "a.png", "empty": tmp_path / "empty", "text": tmp_path / "text.png"}
    places["long"] = tmp_path / ("x" * 252)  # 256 bytes with its ending
    words = [word.format(**places) for word in words]
    base = {"--network": "small_vgg", "--weights": str(weights)}
    base |= {"--out": str(tmp_path / "out.png")}
    given = [word for option, value in base.items() if option not in words for word in (option, value)]
    before = sorted(tmp_path.rglob("*"))
    assert main([probe, *words, *given]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("images", "size", "side", "out", "message"),
    [
        (10, 4096, 144, "x.png", None),
        (11, 4096, 144, "x.png", "11 images of 4096 x 4096 pixels are too many at once"),
        (3, 224, 4096, "x.png", "3 x 4 tiles of 4096 x 4096 pixels are too large a picture"),
        (300, 224, 200, "x.jpg", "60000 x 800 pixels are too long for a JPEG"),
        (300, 224, 200, "x.png", None),
    ],
    ids=str,
)
def test_what_cannot_be_held_is_reported_before_it_is_computed(images, size, side, out, message):
    asked = Namespace(side=side, out=Path(out))
    with nullcontext() if message is None else pytest.raises(ValueError, match=message):
        check_fits(asked, images, size, rows=images, columns=4)


def test_a_network_without_published_weights_asks_for_a_file(photos, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert main(["gradient", str(photos / "a.png"), "--network", "small_vgg", "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert "--weights FILE.safetensors" in printed
    assert printed.count("\n") == 1
    assert not out.exists()


def test_a_picture_that_was_there_survives_a_mistake(weights, photos, tmp_path):
    out = tmp_path / "out.png"
    out.write_text("of last week")
    words = ["gradient", photos / "a.png", "--network", "small_vgg", "--weights", weights, "--out", out]
    assert main([str(word) for word in [*words, "--target", "tiger"]]) == 2
    assert out.read_text() == "of last week"
    assert main([str(word) for word in words]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
