"""Options of two spellings, `--layer` and `--layers`, `--target` and `--class`, given twice."""

import argparse

import pytest

from fulgurite.cli.command import main
from fulgurite.cli.image_options import Listed, Parser
from fulgurite.cli.image_probes import probes

WORDS = ["a.png", "--network", "small_vgg"]


def parser() -> Parser:
    own = Parser("look", "Looks.")
    own.add_argument("--layer", default="relu3")
    own.add_argument("--target", action="append")
    own.add_argument("--layers_of_both")
    return own


@pytest.mark.parametrize("second", ["--layer", "--layers"])
def test_two_values_are_an_error_in_either_spelling(second: str):
    with pytest.raises(
        ValueError, match="--layer or --layers is given twice, as relu1 and as relu2; wanted it"
    ):
        parser().parse_args(["--layer", "relu1", second, "relu2"])


def test_a_value_may_be_given_once_more_and_lists_add_up():
    own = parser()
    assert own.parse_args(["--layer", "relu1", "--layers", "relu1"]).layer == "relu1"
    assert own.parse_args([]).layer == "relu3"
    assert own.parse_args(["--class", "a", "--target", "b"]).target == ["a", "b"]
    assert own.parse_args(["--layers_of_both", "a", "--layers_of_both", "b"]).layers_of_both == "b"
    listed = Parser("look", "Looks.")
    listed.add_argument("--layer", action=Listed)
    assert listed.parse_args(["--layer", "a,b", "--layers", "c"]).layer == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["concepts", *WORDS, "--class", "1", "--target", "2"], "--class or --target"),
        (
            ["concepts", *WORDS, "--class", "1", "--layer", "relu1", "--layers", "relu2"],
            "--layer or --layers",
        ),
        (["faithfulness", *WORDS, "--target", "1", "--class", "2"], "--target or --class"),
        (["patches", *WORDS, "--layers", "relu1", "--layer", "relu2"], "--layers or --layer"),
        (["activations", *WORDS, "--layers", "relu1", "--layers", "relu2"], "--layers or --layer"),
        (["grad_cam", *WORDS, "--layer", "relu1", "--layers", "relu2"], "--layer or --layers"),
    ],
    ids=lambda words: words if isinstance(words, str) else words[0],
)
def test_commands_say_so_in_one_line(words: list[str], option: str, capsys: pytest.CaptureFixture):
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert f"{option} is given twice, as " in printed
    assert printed.count("\n") == 1


def test_every_command_on_images_uses_the_parser_that_sees_it(monkeypatch: pytest.MonkeyPatch):
    plain = argparse.ArgumentParser.__init__
    seen = list[type]()

    def made(self: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        seen.append(type(self))
        plain(self, *args, **kwargs)

    monkeypatch.setattr(argparse.ArgumentParser, "__init__", made)
    for name, family in probes().items():
        with pytest.raises(ValueError, match="required"):
            family.parse(name, ["--no_such_option", "1"])
    assert set(seen) == {Parser}
