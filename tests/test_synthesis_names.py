"""`fulgurite.synthesis`: all that images are made of, in one place."""

from pathlib import Path

import pytest
import torch

import fulgurite
from fulgurite import PUBLIC, synthesis
from fulgurite.probes.synthesis.class_image_methods import METHODS


@pytest.mark.parametrize("name", [name for name in synthesis.__all__ if name != "NAMES"])
def test_a_name_is_there_and_documented(name: str):
    found = getattr(synthesis, name)
    assert found is getattr(fulgurite, name, found)
    if callable(found):
        assert name in (found.__name__, found.__qualname__)
        assert found.__doc__
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    assert f"`{name}`" in page[page.index("`fulgurite.synthesis`") :]


def test_nothing_public_is_missing():
    public = {name for module, names in PUBLIC.items() if "probes.synthesis." in module for name in names}
    assert public <= {*synthesis.__all__}
    wrapped = [getattr(getattr(synthesis, name), "__wrapped__", None) for name in dir(synthesis)]
    assert all(method in wrapped for method in METHODS.values())


@pytest.mark.parametrize("name", ["maco", "robust"])
def test_methods_of_class_images_check_their_pixels(name: str):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    options = {"images": torch.full((2, 3, 8, 8), 200.0), "background": [0.5] * 3}
    options |= {"labels": torch.tensor([0, 1])} if name == "robust" else {}
    with pytest.raises(ValueError, match=r"images / 255"):
        getattr(synthesis, name)(network, torch.tensor([0]), (3, 8, 8), **options)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'fulgurite\.synthesis' has no attribute 'yosinsky'"):
        _ = synthesis.yosinsky
