"""`import fulgurite`: the version and the public names, loaded when they are first used."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_words import words
from processes import Script

import fulgurite
from fulgurite import PUBLIC
from fulgurite.cli.command import main
from fulgurite.probes.attribution import show
from fulgurite.probes.render import to_pil


def test_the_version_is_that_of_the_package():
    assert fulgurite.__version__ == version("fulgurite")


@pytest.mark.parametrize("name", [name for names in PUBLIC.values() for name in names])
def test_a_public_name_is_there_and_documented(name: str):
    assert name in dir(fulgurite)
    found = getattr(fulgurite, name)
    assert name in (found.__name__, found.__qualname__)
    assert found.__doc__


@pytest.fixture
def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(5)
    )


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_number_is_a_class_and_numbers_are_a_class_of_each_image(network: torch.nn.Module):
    network(IMAGES)
    for function in (fulgurite.grad_cam, fulgurite.gradient, fulgurite.occlusion):
        wanted = function(network, IMAGES, fulgurite.class_score(3))
        assert torch.equal(function(network, IMAGES, 3), wanted)
        assert torch.equal(function(network, IMAGES, objective=3), wanted)
        each = fulgurite.class_score(torch.tensor([3, 1]))
        found = function(network, IMAGES, torch.tensor([3, 1]))
        assert torch.equal(found, function(network, IMAGES, each))
        assert not torch.equal(found, wanted)
    made = fulgurite.ascend(network, 2, fulgurite.Pixels(IMAGES), steps=3)
    again = fulgurite.ascend(network, fulgurite.class_score(2), fulgurite.Pixels(IMAGES), steps=3)
    assert torch.equal(made, again)


@pytest.mark.parametrize(
    "objective", [[3, 7], (1, 2), 1.5, True, torch.tensor([0.5]), torch.tensor([True, False])], ids=repr
)
def test_what_may_mean_two_things_is_no_objective(network: torch.nn.Module, objective: object):
    with pytest.raises(ValueError, match=r"objective.*wanted"):
        fulgurite.grad_cam(network, IMAGES, objective)


@pytest.mark.parametrize(
    ("images", "reported"),
    [
        (IMAGES * 255, "reach from .* to 25.*images / 255"),
        ((IMAGES * 255).byte(), r"torch.uint8; wanted floats in \[0, 1\]: images / 255"),
        ((IMAGES - 0.45) / 0.22, "these look normalised.*fulgurite.normalised"),
        (IMAGES * 2 - 1, "these look normalised"),
    ],
    ids=["0 to 255", "bytes", "ImageNet", "-1 to 1"],
)
@pytest.mark.parametrize("name", ["grad_cam", "saliency", "rise", "attribute", "activation_maps", "show"])
def test_images_of_another_range_are_reported(
    network: torch.nn.Module, name: str, images: torch.Tensor, reported: str
):
    network(IMAGES)
    args = {"attribute": ("gradient", network, images, 3), "show": (IMAGES[:, :1], images)}
    with pytest.raises(ValueError, match=reported):
        getattr(fulgurite, name)(*args.get(name, (network, images, 3)))


@pytest.mark.parametrize("name", ["grad_cam", "fgsm", "predict", "invert", "attribute", "ascend", "record"])
def test_arguments_in_another_order_are_reported_with_their_order(network: torch.nn.Module, name: str):
    args = ("gradient", IMAGES, network) if name == "attribute" else (IMAGES, network)
    order = {
        "attribute": "name, network, images",
        "ascend": "network, objective",
        "record": "network, layers",
    }
    wanted = order.get(name, "network, images")
    with pytest.raises(ValueError, match=rf"that is a Tensor; wanted a torch.nn.Module: \({wanted}, "):
        getattr(fulgurite, name)(*args)


@pytest.mark.parametrize("name", ["grad_cam", "predict", "saliency", "activation_maps"])
def test_channels_in_another_place_or_number_are_reported(network: torch.nn.Module, name: str):
    network(IMAGES)
    args = {"predict": (), "activation_maps": (["0"],)}.get(name, (3,))
    for images, said in (
        (
            IMAGES.permute(0, 2, 3, 1),
            r"\(2, 8, 8, 3\), .* takes 3 channels; .*: images.permute\(0, 3, 1, 2\)$",
        ),
        (IMAGES[:, :1], r"\(2, 1, 8, 8\), but the network takes 3 channels; wanted \[n, 3, height, width\]$"),
    ):
        with pytest.raises(ValueError, match=said):
            getattr(fulgurite, name)(network, images, *args)


def test_maps_that_cannot_be_shown_are_reported():
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 2 maps; wanted finite"):
        fulgurite.show(torch.stack([IMAGES[0, :1], IMAGES[0, :1] * torch.nan]), IMAGES)
    with pytest.raises(
        ValueError, match=r"maps of 3 channels for images of 1 channel; .*show\(maps, images\)"
    ):
        fulgurite.show(IMAGES, IMAGES[:, :1])
    with pytest.raises(ValueError, match=r"the maps come first: \(maps, images\)"):
        fulgurite.show(IMAGES, IMAGES[:, :1] - 0.5)


@pytest.mark.parametrize("name", ["outputs", "invert", "fooled_photographs"])
def test_an_empty_batch_is_reported_where_it_has_no_answer(network: torch.nn.Module, name: str):
    network(IMAGES)
    args = {"outputs": ["1"], "invert": "1", "fooled_photographs": torch.zeros(0, dtype=torch.long)}
    with pytest.raises(ValueError, match="no images; the batch is empty"):
        getattr(fulgurite, name)(network, IMAGES[:0], args[name])


@pytest.mark.parametrize("images", [IMAGES.numpy(), [*IMAGES]], ids=["array", "list"])
def test_images_that_are_no_tensor_are_reported(network: torch.nn.Module, images: object):
    for name in ("grad_cam", "activation_maps", "deep_dream"):
        with pytest.raises(ValueError, match=r"images that are a .*; wanted a tensor"):
            getattr(fulgurite, name)(network, images, 3)


def test_images_without_pixels_are_reported(network: torch.nn.Module):
    with pytest.raises(ValueError, match=r"images of shape \(2, 3, 0, 8\), which have no pixels"):
        fulgurite.grad_cam(network, IMAGES[:, :, :0], 3)


def test_an_argument_that_a_probe_does_not_have_is_reported_with_the_nearest():
    for knob, near in {"imagess": "images", "scal": "scale"}.items():
        with pytest.raises(TypeError, match=f"Saliency has no argument '{knob}'; nearest: {near}"):
            fulgurite.Saliency(**{knob: 3})


def test_what_rounding_has_left_outside_is_taken(network: torch.nn.Module):
    network(IMAGES)
    assert fulgurite.saliency(network, IMAGES + 1e-4, 3).shape == (2, 1, 8, 8)


def test_maps_are_shown_next_to_their_images(network: torch.nn.Module):
    network(IMAGES)
    maps = {
        "grad_cam": fulgurite.grad_cam(network, IMAGES, 3),
        "gradient": fulgurite.gradient(network, IMAGES, 3),
    }
    both = fulgurite.show(maps, IMAGES, captions=["one", "two"])
    one = fulgurite.show(maps["grad_cam"], IMAGES)
    assert both.width > one.width > 2 * 160
    assert one.height > 2 * 160
    # warm where the map is positive, and no colour where it is 0
    positive = torch.zeros(1, 1, 8, 8)
    positive[..., :4] = 1
    pixels = torch.from_numpy(np.array(fulgurite.show(positive, torch.full((1, 3, 8, 8), 0.5)))).float()
    left, right = pixels[60, -150], pixels[60, -20]
    assert left[0] > left[2] + 50
    assert (right - right.mean()).abs().max() < 20
    with pytest.raises(ValueError, match="1 caption for 2 images"):
        fulgurite.show(maps, IMAGES, captions=["one"])
    with pytest.raises(ValueError, match="2 maps for 1 image;"):
        fulgurite.show(maps["grad_cam"], IMAGES[:1])


def test_one_map_and_one_image_are_shown_without_a_batch():
    wanted = fulgurite.show(IMAGES[:1, :1], IMAGES[:1]).tobytes()
    assert fulgurite.show(IMAGES[0, :1], IMAGES[0]).tobytes() == wanted
    assert fulgurite.show(IMAGES[:1, :1], IMAGES[0]).tobytes() == wanted
    with pytest.raises(ValueError, match="1 map for 2 images; wanted one for each"):
        fulgurite.show(IMAGES[0, :1], IMAGES)


@pytest.mark.parametrize(
    ("size", "of"),
    [
        ((8, 8), (8, 8)),
        ((7, 10), (224, 300)),  # of stride 32
        ((7, 7), (224, 224)),
        ((8, 17), (299, 600)),  # Inception's, which cuts the edges
        ((20, 48), (28, 56)),  # two convolutions of 5 x 5 without padding
        ((448, 448), (224, 224)),
        ((1, 1), (64, 64)),
    ],
)
def test_coarse_maps_of_the_images_proportions_are_shown(size: tuple[int, int], of: tuple[int, int]):
    fulgurite.show(torch.ones(1, 1, *size), torch.zeros(1, 3, *of))


@pytest.mark.parametrize(
    ("size", "of"), [((64, 32), (64, 64)), ((224, 300), (300, 224)), ((7, 14), (224, 224))]
)
def test_maps_of_other_proportions_are_refused(size: tuple[int, int], of: tuple[int, int]):
    said = f"mine of {size[0]} x {size[1]} for images of {of[0]} x {of[1]} .*wanted the same proportions"
    with pytest.raises(ValueError, match=said):
        fulgurite.show({"mine": torch.ones(1, 1, *size)}, torch.zeros(1, 3, *of))


@pytest.mark.parametrize(
    ("out", "said"),
    [("x.xyz", "ends in .png"), ("x", "ends in .png"), ("gone/x.png", "there is no folder .*gone")],
)
def test_where_no_picture_can_be_written_nothing_is_shown(tmp_path: Path, out: str, said: str):
    with pytest.raises(ValueError, match=said):
        fulgurite.show(IMAGES[:, :1], IMAGES, out=tmp_path / out)
    assert not [*tmp_path.iterdir()]


def test_what_is_shown_has_a_scale_and_the_numbers_of_its_images(tmp_path: Path):
    maps = torch.linspace(-0.25, 0.25, 128).view(2, 1, 8, 8)
    fulgurite.show({"mine": maps}, IMAGES, out=tmp_path / "maps.svg")
    drawn = (tmp_path / "maps.svg").read_text()
    assert all(f">{word}<" in drawn for word in ("image 0", "image 1", "mine", "-0.25", "0.25"))
    assert "over the image: orange is positive, blue negative" in drawn  # of what raises the score, if it is
    fulgurite.show({"mine": maps}, IMAGES, scale="tile", out=tmp_path / "tiles.svg")
    assert "each map has its own scale" in (tmp_path / "tiles.svg").read_text()


def test_what_is_shown_has_a_title_that_says_what_is_known_of_it():
    maps, one = torch.rand(2, 1, 8, 8), torch.rand(1, 1, 8, 8)
    assert "Attribution map" in shown(one, IMAGES[:1])
    assert "Attribution maps of 2 images" in shown(maps, IMAGES)
    found = shown({"grad_cam": maps, "rise": maps}, IMAGES)
    assert "Attribution maps of 2 images: grad cam, rise" in found
    assert "over the image: orange raises the score, blue lowers it" in found
    assert "Attribution maps: gradient 0, gradient 1" in shown(
        {"gradient": torch.rand(2, 1, 3, 8, 8)}, IMAGES[:1]
    )
    assert not [line for line in shown(maps, IMAGES, title="") if "Attribution" in line]


def shown(maps, images: torch.Tensor, **how) -> list[str]:
    """The lines of text in what `show` draws."""
    found = list[str]()

    def kept(pixels: torch.Tensor):
        found.extend(words(pixels))
        return to_pil(pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(show, "to_pil", kept)
        show.show(maps, images, **how)
    return found


def test_every_public_name_is_in_the_documentation():
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    assert not [name for names in PUBLIC.values() for name in names if f"`{name}`" not in page]


def test_importing_loads_no_torch():
    code = "import sys, fulgurite.synthesis; print('torch' in sys.modules, 'lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_star_imports_every_public_name():
    room: dict = {}
    exec("from fulgurite import *", room)
    names = {name for own in PUBLIC.values() for name in own}
    assert names <= room.keys()
    assert room["grad_cam"] is fulgurite.grad_cam
    assert room["concepts"] is fulgurite.concepts


def test_another_name_is_an_attribute_error():
    for name, near in {
        "gradcam": "; nearest: grad_cam",
        "Salency": "; nearest: Saliency",
        "_xyz": "",
    }.items():
        with pytest.raises(AttributeError, match=f"no attribute '{name}'{near}" + "$" * (not near)):
            getattr(fulgurite, name)


def test_there_is_one_command(pytestconfig: pytest.Config, tmp_path: Path, capsys: pytest.CaptureFixture):
    module = tmp_path / "module.py"
    module.write_text("import runpy\nrunpy.run_module('fulgurite', run_name='__main__', alter_sys=True)\n")
    started = [Script(script, "--help") for script in (module, pytestconfig.rootpath / "train.py")]
    assert main(["--help"]) == 0
    wanted = capsys.readouterr().out
    assert "fit" in wanted
    for done in (one.ended(60) for one in started):
        assert (done.returncode, done.stdout) == (0, wanted), done.stderr
