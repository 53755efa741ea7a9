"""Feed-forward style transfer: trained by the command, resumed, shown, and used on files and folders."""

from pathlib import Path

import pytest
import torch
from folder_kinds import painted
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from benchmarks import stylizer as stylizer_benchmark
from fulgurite.cli.command import main
from fulgurite.data.photographs import Photographs
from fulgurite.models.networks import build
from fulgurite.models.stylizer import Stylizer
from fulgurite.models.stylizer_networks import StylizerNetwork, TextureNetwork, stylizer_of
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.feature_objectives import gram, match
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.textures import style_match
from fulgurite.recipes import stylize


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), tmp_path / "judge.safetensors")
    for folder in ("photos", "photos/more"):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png", "c.png"):
            painted(tmp_path / folder / name)
    stripes = Image.new("RGB", (40, 40), (200, 30, 30))
    for x in range(0, 40, 4):
        stripes.paste((20, 20, 220), (x, 0, x + 2, 40))
    stripes.save(tmp_path / "style.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORDS = [
    *("fit", "stylize", "--path", "photos", "--style", "style.png", "--judge", "small_vgg"),
    *("--judge_weights", "judge.safetensors", "--size", "32", "--width", "4", "--batch_size", "2"),
    *(
        "--style_layers",
        "conv1,conv2",
        "--content_layer",
        "conv2",
        "--style_size",
        "32",
        "--val_share",
        "0.3",
    ),
]


def judge() -> nn.Module:
    torch.manual_seed(0)
    return build("small_vgg", classes=4, channels=3).eval()


def stylizer(network: nn.Module, **knobs) -> Stylizer:
    style = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    layers = {"content_layer": "conv2", "style_layers": ["conv1", "conv2"]}
    return Stylizer(network, judge(), style, **{**layers, **knobs})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_command_trains_resumes_shows_and_stylizes(home: Path, capsys):
    assert main([*WORDS, "--folder", "run", "--epochs", "1"]) == 0
    assert main(["fit", "stylize", "--resume", "run", "--epochs", "2"]) == 0
    assert main(["probe", "run"]) == 0
    assert list((home / "run" / "pictures").glob("Stylized*.png"))
    checkpoint = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    assert not any(name.startswith("_judge") for name in checkpoint["state_dict"])
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9)
    capsys.readouterr()
    stylizer_benchmark.main(["run", "--images", "1", "--steps", "9", "--sheet", "sheet.png"])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("style loss"))
    plain, passed, optimised, ratio = map(float, row.split()[2:6])
    assert ratio == pytest.approx(passed / optimised, rel=0.02)
    assert optimised < plain
    with Image.open("sheet.png") as made:
        assert made.size == (3 * 36 + 4, 36 + 4)
    Image.effect_mandelbrot((50, 33), (-2, -1, 1, 1), 50).convert("RGB").save("wide.png")
    (home / "photos" / "bad.png").write_bytes(b"no image")
    Image.new("RGB", (5, 30)).save("photos/small.png")
    weights = ["--weights", "run/checkpoints/best.ckpt"]
    assert main(["stylize", "wide.png", "photos", *weights]) == 1  # done in part
    with Image.open("stylized/wide.png") as made:
        assert made.size == (50, 33)
    assert len(list(Path("stylized").iterdir())) == 7
    assert main(["stylize", "wide.png", *weights, "--size", "20", "--out", "small"]) == 0
    with Image.open("small/wide.png") as made:
        assert made.size == (20, 13)


def test_training_brings_images_nearer_to_the_style_and_leaves_the_judge_alone():
    torch.manual_seed(0)
    model = stylizer(StylizerNetwork(width=4, blocks=1), lr=1e-2)
    images = torch.rand(4, 3, 32, 32)
    before = [value.clone() for value in model._judge[0].state_dict().values()]
    optimizer = torch.optim.Adam(model.network.parameters(), 1e-2)
    first = model._loss([images], "train")
    for _ in range(40):
        optimizer.zero_grad()
        loss = model._loss([images], "train")
        loss.backward()
        optimizer.step()
    assert loss < 0.7 * first
    after = model._judge[0].state_dict().values()
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(one.grad is None for one in model._judge[0].parameters())
    assert len(list(model.parameters())) == len(list(model.network.parameters()))


def test_its_losses_are_those_of_style_transfer():
    style = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images, made = torch.rand(2, 2, 3, 32, 32).unbind()
    model = stylizer(StylizerNetwork(width=4))
    content, found = model.losses(images, made)
    net = judge()
    expected = -values_of(net, match("conv2", outputs(net, images, ["conv2"])["conv2"]), made)
    assert_close(content, expected, rtol=1e-4, atol=1e-6)
    assert_close(
        found, -values_of(net, style_match(net, style, ["conv1", "conv2"]), made), rtol=1e-4, atol=1e-6
    )
    assert_close(model.get_buffer("gram0"), gram(outputs(net, style, ["conv1"])["conv1"]))


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (8, 9)])
def test_an_image_keeps_its_size_and_its_range(size):
    torch.manual_seed(0)
    for network in (StylizerNetwork(width=4, blocks=1), TextureNetwork(width=2, scales=3)):
        made = network(torch.rand(2, 3, *size))
        assert made.shape == (2, 3, *size)
        assert made.min() >= 0
        assert made.max() <= 1


def test_a_network_that_adds_nothing_gives_the_photograph_in_its_own_colours_and_contrast():
    network = StylizerNetwork(width=4, blocks=1)
    torch.nn.init.zeros_(network.up[-1].weight)
    torch.nn.init.zeros_(network.up[-1].bias)
    images = torch.rand(2, 3, 16, 20) * torch.tensor([0.2, 1.0])[:, None, None, None]  # a dark photograph
    plain = network(images).logit().flatten(2)
    assert_close(plain, nn.functional.instance_norm(images.logit(0.02).flatten(2)), rtol=1e-4, atol=1e-4)
    torch.nn.init.constant_(network.colours[1].bias, 2.0)
    assert_close(network(images).logit().flatten(2), plain + 2, rtol=1e-4, atol=1e-4)


def test_a_network_is_identified_by_its_weights():
    one = StylizerNetwork(width=6, blocks=2).eval()
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(stylizer_of(one.state_dict())(images), one(images))
    texture = TextureNetwork(width=3, scales=3).eval()
    found = stylizer_of(texture.state_dict())
    torch.manual_seed(1)
    made = texture(images)
    torch.manual_seed(1)
    assert torch.equal(found(images), made)
    with pytest.raises(ValueError, match="of no stylizer"):
        stylizer_of(judge().state_dict())
    with pytest.raises(ValueError, match="of another stylizer"):
        stylizer_of({**one.state_dict(), "more": torch.ones(1)})


def test_photographs_are_all_images_below_a_folder(home: Path):
    data = Photographs("photos", size=16, val_share=0.3)
    data.setup()
    assert len(data.train) + len(data.val) == 6
    assert len(data.val) == 2
    assert data.train[0][0].shape == (3, 16, 16)
    assert data.tested_on == "validation"


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ({"--style": "none.png"}, "there is no such file; wanted an image of the style"),
        ({"--path": "nowhere"}, "there is no folder nowhere"),
        ({"--kind": "cubist"}, "wanted johnson or texture"),
        ({"--style_layers": "nine"}, "nine"),
        ({"--content_layer": "nine"}, "nine"),
        ({"--weight": "-1"}, "no negative weights"),
        ({"--width": "0"}, "width=0"),
        ({"--size": "7"}, "size=7; wanted at least 8 pixels"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(home: Path, capsys, words, printed):
    asked = [*WORDS, "--epochs", "1"]
    for option, value in words.items():
        asked = [*asked, option, value]
    assert main(asked) == 2
    error = capsys.readouterr().err
    assert printed in error
    assert error.count("\n") == 1
    assert not Path("runs").exists() or not list(Path("runs/stylize").iterdir())


def test_crops_that_are_too_small_for_the_second_network_are_refused(home: Path):
    name = "torchvision/squeezenet1_0"
    save_file(build(name, classes=7).state_dict(), "squeezenet.safetensors")
    with pytest.raises(
        ValueError, match=r"SqueezeNet cannot take 3 x 8 x 8: .*; wanted images of a size that it takes"
    ):
        stylize.recipe(
            path="photos", style="style.png", judge=name, judge_weights="squeezenet.safetensors", size=8
        )


def test_photographs_are_never_overwritten(home: Path, capsys):
    torch.save(StylizerNetwork(width=4, blocks=1).state_dict(), "weights.ckpt")
    before = Path("photos/a.png").read_bytes()
    assert main(["stylize", "photos/a.png", "--weights", "weights.ckpt", "--out", "more/../photos"]) == 2
    assert "a.png would be overwritten" in capsys.readouterr().err
    assert Path("photos/a.png").read_bytes() == before


def test_results_of_equal_names_have_their_folders_in_front_and_are_never_one_file(home: Path, capsys):
    torch.save(StylizerNetwork(width=4, blocks=1).state_dict(), "weights.ckpt")
    for name in ("b b/a.png", "p/q/c.png", "p_q/c.png"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_bytes(Path("photos/a.png").read_bytes())
    assert main(["stylize", "photos/a.png", "b b/a.png", "--weights", "weights.ckpt"]) == 0
    assert sorted(file.name for file in Path("stylized").iterdir()) == ["b_b_a.png", "photos_a.png"]
    assert main(["stylize", "p", "p_q", "--weights", "weights.ckpt"]) == 2
    assert "several results would be called stylized/p_q_c.png.png" in capsys.readouterr().err


def test_nothing_is_left_of_photographs_that_are_too_small(home: Path, capsys):
    torch.save(StylizerNetwork(width=4, blocks=1).state_dict(), "weights.ckpt")
    Image.new("RGB", (300, 2)).save("thin.png")
    assert main(["stylize", "thin.png", "--weights", "weights.ckpt"]) == 2
    assert "thin.png has a side of 2 px" in capsys.readouterr().err
    assert not Path("stylized").exists()


def test_weights_of_another_network_stylize_nothing(home: Path, capsys):
    assert main(["stylize", "photos", "--weights", "judge.safetensors"]) == 2
    assert "of no stylizer" in capsys.readouterr().err
    assert not Path("stylized").exists()
