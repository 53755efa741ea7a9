"""Recipes that pass their knobs on: one signature, one documentation, and what is refused."""

import inspect
from importlib import import_module
from typing import Any

import pytest

from fulgurite.cli.known_recipes import recipe_names
from fulgurite.recipes.knobs import passes_on, those_of


def bake(flour: int, *, heat: int, minutes: int = 40) -> dict[str, int]:
    """Bake.

    Args:
        flour: positional, so no knob.
        heat: how hot,
            in degrees.
        minutes: how long.
    """
    return {"flour": flour, "heat": heat, "minutes": minutes}


@passes_on(bake, heat=180)
def cake(*, sugar: int = 1, **knobs: Any) -> dict[str, int]:
    """Bake a cake.

    Args:
        sugar: how sweet.
        minutes: until it is brown.
    """
    return {"sugar": sugar, **bake(2, **those_of(bake, knobs))}


def test_knobs_come_with_their_defaults_and_go_where_they_belong():
    assert cake() == {"sugar": 1, "flour": 2, "heat": 180, "minutes": 40}
    assert cake(sugar=3, heat=200) == {"sugar": 3, "flour": 2, "heat": 200, "minutes": 40}


def test_signature_and_docstring_are_merged_and_own_descriptions_have_priority():
    assert str(inspect.signature(cake)) == "(*, sugar: int = 1, heat: int = 180, minutes: int = 40)"
    reported = inspect.getdoc(cake) or ""
    assert reported.startswith("Bake a cake.\n\nArgs:\n    sugar: how sweet.\n    heat: how hot,\n")
    assert "minutes: until it is brown." in reported
    assert "flour" not in reported


def test_an_unknown_knob_is_refused():
    with pytest.raises(TypeError, match="salt"):
        cake(salt=1)
    with pytest.raises(TypeError, match="salt"):
        passes_on(bake, salt=1)(lambda **knobs: knobs)


def test_what_is_settled_is_no_knob():
    @passes_on(bake, without=["heat"])
    def bread(**knobs: Any) -> dict[str, int]:
        return bake(1, heat=250, **knobs)

    assert list(inspect.signature(bread).parameters) == ["minutes"]
    with pytest.raises(TypeError, match="heat"):
        bread(heat=1)


@pytest.mark.parametrize("name", recipe_names())
def test_every_knob_of_every_recipe_is_documented(name: str):
    recipe = import_module(f"fulgurite.recipes.{name}").recipe
    _, _, section = (inspect.getdoc(recipe) or "").partition("\nArgs:\n")
    for knob, parameter in inspect.signature(recipe).parameters.items():
        assert f"    {knob}: " in f"\n{section}", knob
        assert parameter.annotation is not inspect.Parameter.empty
