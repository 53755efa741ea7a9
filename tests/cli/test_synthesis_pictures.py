"""Images made for a network, from the shell: what their pictures say, and Ctrl-C while they are drawn."""

import re
import signal
from pathlib import Path

import pytest
from drawn_words import words

from fulgurite.cli import held_interruptions, synthesis
from fulgurite.cli.command import main
from fulgurite.probes.synthesis import watch

FEW = ["--steps", "2", "--size", "16", "--side", "32"]


@pytest.fixture
def run(weights: Path, photos: Path, monkeypatch):
    """Run a command on the small network and two photographs, in their folder."""
    monkeypatch.chdir(photos.parent)
    (photos / "more" / "c.png").unlink()

    def status(probe: str, *asked: object, few: list[str] = FEW) -> int:
        network = ["--network", "small_vgg", "--weights", str(weights)]
        return main([probe, *(str(word) for word in asked), *network, *few])

    return status


@pytest.fixture
def drawn(run, monkeypatch):
    """The words in the picture that a command draws."""
    found = []
    write = lambda pixels, *rest, **more: found.extend(words(pixels))  # noqa: E731
    monkeypatch.setattr("fulgurite.cli.several_networks.write_picture", write)

    def told(*asked: object, few: list[str]) -> list[str]:
        assert run(*asked, few=few) == 0
        return found

    return told


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        (["--target", 2], ["2", "score S", "probability P%", "distance D%"]),
        (["--channel", "conv3:1"], ["channel conv3:1", "activation S", "distance D%"]),
    ],
    ids=["class", "channel"],
)
def test_an_accentuated_picture_says_what_its_numbers_are(asked, lines, drawn, capsys):
    few = ["--steps", "4", "--size", "16", "--side", "160"]
    found = drawn("accentuate", "photos/a.png", *asked, "--near", "conv1", few=few)
    printed = capsys.readouterr().out.split()
    was, now = printed[-3], printed[-1]
    begun = [line.replace("S", was) for line in lines[:-1]]
    made = [line.replace("S", now) for line in lines]
    numberless = [
        re.sub(r"(probability|distance) \d+%", lambda found: f"{found[1]} {found[1][0].upper()}%", line)
        for line in found
    ]
    assert {"image", "accentuated", *begun, *made} <= set(numberless)
    assert "distance: of the output of conv1 from the image's, relative to its length" in " ".join(found)


def test_each_caricature_has_its_own_measure(drawn):
    few = ["--steps", "8", "--size", "16", "--side", "64"]
    found = drawn("caricature", "photos", "--layers", "conv2,conv3", few=few)
    gains = [float(line.removesuffix(" x")) for line in found if line.endswith(" x")]
    assert len(gains) == 4
    assert min(gains) > 1.02  # 1 is the image itself
    assert "inner product of its features with the image's" in " ".join(found)


@pytest.mark.parametrize(("images", "repeats"), [("photos", 2), ("photos/a.png", 1)])
def test_inversions_have_a_curve_of_each_number_that_they_have(images, repeats, drawn):
    words_ = [images, "--layers", "conv1,logits", "--repeats", repeats]
    found = drawn("invert", *words_, few=["--steps", "2", "--size", "16"])
    plotted = {"relative error, %", "PSNR, dB"}
    several = {"error over the mean distance of two images, %", "spread of pixels over repeats"}
    assert {*found} & (plotted | several) == (plotted | several if repeats == 2 else plotted)


@pytest.mark.parametrize("presses", [2, 3])
def test_what_was_reached_is_written_in_spite_of_another_ctrl_c(presses, run, monkeypatch, capsys):
    update, sheet = watch.Bar.update, synthesis.sheet

    def interrupted(bar, values):
        monkeypatch.setattr(watch.Bar, "update", update)
        signal.raise_signal(signal.SIGINT)

    def slow(*args, **options):
        for _ in range(presses - 1):
            signal.raise_signal(signal.SIGINT)
        return sheet(*args, **options)

    monkeypatch.setattr(watch.Bar, "update", interrupted)
    monkeypatch.setattr(synthesis, "sheet", slow)
    status = run("caricature", "photos", "--layers", "conv2,conv3")
    output = capsys.readouterr().err
    assert synthesis.INTERRUPTED in output
    assert held_interruptions.HELD in output
    assert (status, Path("caricature.png").exists()) == ((0, True) if presses == 2 else (130, False))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_at_the_first_network_ends_with_it(run, monkeypatch, capsys):
    def interrupted(bar, values):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(watch.Bar, "update", interrupted)
    second = ["--network", "small_vgg", "--weights", "weights.safetensors"]
    own = ["--layers", "conv2", "--layers", "conv2"]
    assert run("caricature", "photos", *second, *own) == 0
    output = capsys.readouterr()
    assert output.err.count(synthesis.INTERRUPTED) == 1
    assert held_interruptions.HELD not in output.err
    assert "2 networks" not in output.out
    assert Path("caricature.png").exists()
