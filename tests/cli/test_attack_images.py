"""Attacks on images from the command line."""

import zipfile

import pytest

from fulgurite.cli.attack import ATTACKS
from fulgurite.cli.command import main

FAST = {
    "pgd": ["--steps", 3],
    "fgsm": [],
    "apgd": ["--steps", 4],
    "fab": ["--steps", 3, "--target_classes", 2],
    "square": ["--queries", 20],
}


@pytest.mark.parametrize("threat", ["linf", "l2", "l1"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_is_made_from_the_shell(attack, threat, ask, photos, capsys):
    eps = {"linf": 0.5, "l2": 20, "l1": 900}[threat]
    words = ["--attack", attack, "--threat", threat, "--eps", eps, "--side", 32]
    seen = ask("attack", photos, *words, *FAST[attack])
    assert seen.width > 4 * 32
    assert seen.height > 3 * 32
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:3]] == ["a", "b", "c"]
    assert all(line.endswith(("succeeded", "failed")) or "rounded to 8 bits" in line for line in printed[:3])
    succeeded = sum(", succeeded" in line for line in printed[:3])
    assert f"{succeeded} of 3 rows succeeded" in printed[3]
    if attack in ("pgd", "apgd"):
        assert succeeded == 3


def answers(printed: str) -> tuple[str, str]:
    """What the network answered before and after."""
    before, after = printed.splitlines()[0].removeprefix("a: ").split(" -> ")
    return before.split(":")[0], after.split(":")[0]


@pytest.mark.parametrize("target", [0, 1, 2, 3])
def test_an_image_is_turned_into_any_class(target, ask, photos, capsys):
    ask("attack", photos / "a.png", "--eps", "128/255", "--target", target)
    printed = capsys.readouterr().out
    assert answers(printed)[1] == str(target)
    assert "1 of 1 rows succeeded" in printed or "so it was before" in printed


def test_what_an_image_was_before_is_no_success(ask, photos, capsys):
    ask("attack", photos / "a.png", "--eps", 0.5)
    guess, other = answers(capsys.readouterr().out)
    ask("attack", photos / "a.png", "--eps", 0.5, "--target", guess)
    printed = capsys.readouterr().out
    assert "so it was before" in printed
    assert "0 of 1 rows succeeded" in printed
    ask("attack", photos / "a.png", "--eps", 0.5, "--label", other)
    assert "so it was before" in capsys.readouterr().out


def test_an_attack_that_may_move_nothing_fails(ask, photos, capsys):
    ask("attack", photos / "a.png", "--eps", 0)
    printed = capsys.readouterr().out
    assert len(set(answers(printed))) == 1
    assert ", failed" in printed
    assert "0 of 1 rows succeeded" in printed


@pytest.mark.slow
def test_a_photograph_becomes_a_koala(real_data, tmp_path, capsys):
    with zipfile.ZipFile(real_data / "imagenet_samples_200_short256_q90.zip") as photographs:
        names = [name for name in photographs.namelist() if "king_penguin" in name or "banana" in name]
        files = [photographs.extract(name, tmp_path) for name in names]
    weights = real_data / "squeezenet1_0_imagenet_fp16.safetensors"
    words = ["--network", "torchvision/squeezenet1_0", "--weights", weights, "--out", tmp_path / "koala.png"]
    asked = [*files, *words, "--target", "koala", "--eps", "2/255"]
    assert main(["attack", *map(str, asked)]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 rows succeeded" in printed
    assert printed.count("-> koala: 100%, succeeded\n") == 2
