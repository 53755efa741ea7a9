"""Lists in options: once with commas, or several times."""

import argparse
from pathlib import Path

import jsonargparse
import pytest

from fulgurite.cli import options
from fulgurite.cli.image_options import Listed
from fulgurite.cli.inputs import classes_of
from fulgurite.cli.known_recipes import recipe_of
from fulgurite.models.strategies import Strategy


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layer", action=Listed)
    parser.add_argument("--weights", action=Listed, type=Path)
    return parser.parse_args(words)


def test_a_list_has_commas_or_the_option_several_times():
    wanted = ["layer1", "layer2:3", "layer3"]
    assert parsed("--layer", "layer1,layer2:3, layer3").layer == wanted
    assert parsed("--layer", "layer1", "--layer", "layer2:3,layer3").layer == wanted
    assert parsed().layer is None
    assert parsed("--weights", "a.ckpt,b.ckpt").weights == [Path("a.ckpt"), Path("b.ckpt")]


def test_a_file_whose_name_holds_a_comma_is_one(tmp_path: Path):
    (tmp_path / "a,b.ckpt").touch()
    assert parsed("--weights", str(tmp_path / "a,b.ckpt")).weights == [tmp_path / "a,b.ckpt"]


def test_classes_are_listed_by_names_and_numbers_each_once():
    names = ["tench", "tabby, tabby cat", "koala"]
    assert classes_of(["koala,0"], names) == [2, 0]
    assert classes_of(["Tabby, tabby cat", "2", "koala"], names) == [1, 2]
    with pytest.raises(ValueError, match="no class 'koalla' among 3; nearest: koala"):
        classes_of(["tench,koalla"], names)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--layers", "features.5,features"], ["features.5", "features"]),
        (["--layers=features.5, features"], ["features.5", "features"]),
        (["--layers", "[features.5,features]"], ["features.5", "features"]),
        (["--layers", "features"], ["features"]),
        (["--layers", "null"], None),
        ([], None),
    ],
    ids=str,
)
def test_lists_of_recipes_are_written_with_commas(words, wanted):
    assert options.for_fit("stages", recipe_of("stages"), words, None).knobs["layers"] == wanted


def test_a_value_that_is_in_no_list_is_told_with_those_that_are():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--strategies", type=list[Strategy] | None)
    assert options.parsed(parser, ["--strategies", "last,full"]).strategies == ["last", "full"]
    with pytest.raises(ValueError, match=r"wanted names with commas, of .*last.*; got linea,full"):
        options.parsed(parser, ["--strategies", "linea,full"])
