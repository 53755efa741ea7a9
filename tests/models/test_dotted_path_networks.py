"""Networks by dotted path: user code, which runs only with the user's permission."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from fulgurite.cli.codes import image_of
from fulgurite.cli.command import main
from fulgurite.cli.inputs import network_of, readable
from fulgurite.models.dotted_path_networks import trust
from fulgurite.models.networks import build, check_takes

CODE = """
from pathlib import Path
from torch import nn

Path("ran").touch()


class Net(nn.Module):
    def __init__(self, num_classes, in_chans=3):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 8, 3)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))


class Fixed(nn.Module):
    pass


class Blobs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 1)

    def forward(self, images):
        return self.head(self.body(images).relu().mean((2, 3)))


def nothing(classes):
    return classes


def demanding(classes, depth):
    return Net(classes)
"""
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_TRUSTED", raising=False)
    Path("somebodys").mkdir()
    Path("somebodys/__init__.py").touch()
    Path("somebodys/nets.py").write_text(CODE)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "somebodys"]:
        del sys.modules[name]


def test_it_is_made_for_classes_and_channels_and_normalises():
    network = build("somebodys.nets.Net", classes=5, channels=4, mean=[0.5] * 4, std=[0.25] * 4, typed=True)
    assert network(torch.rand(2, 4, 8, 8)).shape == (2, 5)
    assert network.normalise.std.flatten().tolist() == [0.25] * 4
    assert str(Path.cwd()) not in sys.path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("somebodys.nets.Nett", "somebodys.nets has no class or function 'Nett'"),
        ("nobodys.nets.Net", "cannot be imported: No module named 'nobodys'"),
        ("somebodys.nets.Fixed", "takes none of num_classes, classes.*but 3 is wanted"),
        ("somebodys.nets.nothing", "makes a int; wanted an nn.Module"),
        ("somebodys.nets.demanding", "cannot be made of {'classes': 3}: .*depth"),
    ],
)
def test_a_path_that_makes_no_network_raises_a_clear_error(name: str, words: str):
    with pytest.raises(ValueError, match=words):
        build(name, classes=3, typed=True)


def test_a_name_from_a_file_runs_no_code_unless_its_package_is_trusted(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="environment variable FULGURITE_TRUSTED=somebodys"):
        build("somebodys.nets.Net", classes=3)
    assert not Path("ran").exists()
    monkeypatch.setenv("FULGURITE_TRUSTED", "others, somebodys")
    assert build("somebodys.nets.Net", classes=3)(torch.rand(1, 3, 8, 8)).shape == (1, 3)
    with pytest.raises(ValueError, match="has no published weights; give a file of them"):
        build("somebodys.nets.Net", classes=3, pretrained=True)


def pets() -> None:
    for number, name in enumerate(("cats", "dogs")):
        Path("pets", name).mkdir(parents=True)
        for place in range(4):
            Image.new("RGB", (16, 16), (200 * number, 20 * place, 90)).save(f"pets/{name}/{place}.png")


def test_it_is_fine_tuned_from_its_weights_and_as_a_backbone_once_it_is_trusted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    pets()
    torch.save(build("somebodys.nets.Net", classes=5, typed=True).state_dict(), "weights.pt")
    words = ["--path", "pets", "--size", "16", "--every", "0", "--workers", "0", "--epochs", "1"]
    words += ["--strategy", "linear", *QUIET]
    first = [*words, "--network", "somebodys.nets.Net", "--weights", "weights.pt", "--folder", "run"]
    assert main(["fit", "finetune", *first]) == 0
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["network.conv.weight"], torch.load("weights.pt")["conv.weight"])
    Path("ran").unlink()
    for name in [name for name in sys.modules if name.partition(".")[0] == "somebodys"]:
        del sys.modules[name]
    second = [*words, "--backbone", "run", "--folder", "next"]
    assert main(["fit", "finetune", *second]) == 2
    assert "if you trust it, set" in capsys.readouterr().err
    assert not Path("ran").exists()
    monkeypatch.setenv("FULGURITE_TRUSTED", "somebodys")
    assert main(["fit", "finetune", *second]) == 0


def test_the_command_trains_it_and_looks_at_the_run_once_it_is_trusted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    pets()
    words = ["--path", "pets", "--network", "somebodys.nets.Net", "--size", "16", "--every", "0"]
    words += ["--workers", "0", "--epochs", "1", "--folder", "run"]
    assert main(["fit", "folder", *words, *QUIET]) == 0
    image = "pets/cats/0.png"
    resumed = ["fit", "folder", "--resume", "run"]
    for verb in (["validate", "run", *QUIET], ["predict", "run", image], resumed):
        Path("ran").unlink(missing_ok=True)
        for name in [name for name in sys.modules if name.partition(".")[0] == "somebodys"]:
            del sys.modules[name]
        capsys.readouterr()
        assert main(verb) == 2
        assert "if you trust it, set" in capsys.readouterr().err
        assert not Path("ran").exists()
    monkeypatch.setenv("FULGURITE_TRUSTED", "somebodys")
    assert main(["validate", "run", *QUIET]) == 0
    assert main(["predict", "run", image]) == 0


def test_commands_on_photographs_and_the_table_take_it_with_weights_from_a_file(
    capsys: pytest.CaptureFixture,
):
    network = build("somebodys.nets.Net", classes=5, typed=True)
    torch.save(network.state_dict(), "weights.pt")
    Image.new("RGB", (32, 32), "red").save("red.png")
    words = ["--network", "somebodys.nets.Net", "--weights", "weights.pt"]
    assert main(["grad_cam", "red.png", *words, "--target", "3", "--out", "map.png"]) == 0
    assert Path("map.png").exists()
    assert main(["table", *words]) == 0
    assert "head" in capsys.readouterr().out
    assert main(["grad_cam", "red.png", "--network", "somebodys.nets.Net", "--out", "other.png"]) == 2
    assert "has no published weights; give a file of them" in capsys.readouterr().err


def test_one_logit_without_an_argument_is_trained_for_two_classes():
    torch.manual_seed(0)
    network = build("somebodys.nets.Blobs", classes=2, channels=1, typed=True)
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 1, 0])
    z = network.head(network.body(2 * images - 1).relu().mean((2, 3)))[:, 0]
    logits = network(images)
    assert torch.allclose(logits.softmax(1)[:, 1], z.sigmoid(), atol=1e-6)
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
    binary = torch.nn.functional.binary_cross_entropy_with_logits(z, labels.float())
    assert torch.allclose(cross_entropy, binary, atol=1e-6)
    with pytest.raises(ValueError, match="3 is wanted, and its layers are made for 1; give it"):
        build("somebodys.nets.Blobs", classes=3, channels=1, typed=True)
    with pytest.raises(ValueError, match="it takes 1 channel, not 3; --channels 1 reads them so"):
        check_takes(network, 3, 8)


@pytest.mark.parametrize(
    ("name", "words"),
    [("mine.nets.Net", "FULGURITE_TRUSTED=mine "), ("torchvision/resnet18", ""), (None, "")],
)
def test_the_command_that_opens_a_run_again_trusts_its_package(name: str | None, words: str):
    assert trust(name) == words


@pytest.mark.slow
def test_commands_read_images_of_12_bits_as_the_run_was_trained_on(capsys: pytest.CaptureFixture):
    for name, level in (("dark", 500), ("bright", 4000)):
        Path("scans", name).mkdir(parents=True)
        for place in range(8):
            pixels = numpy.full((8, 8), level + place, numpy.uint16)
            Image.fromarray(pixels).save(f"scans/{name}/{place}.png")
    fit = ["fit", "folder", "--path", "scans", "--network", "small_vgg", "--size", "8", "--channels", "1"]
    assert main([*fit, "--epochs", "1", "--every", "0", "--workers", "0", "--folder", "run", *QUIET]) == 0
    args = Namespace(network="run", classes=None, size=None, device="cpu")
    _, _, size, channels = network_of(args)
    (read,) = readable([Path("scans/bright/0.png")], args, size, channels).values()
    assert float(read.mean()) == pytest.approx(4000 / 4095, abs=0.01)
    assert main(["grad_cam", "scans/bright/0.png", "--network", "run", "--out", "map.png"]) == 0
    assert numpy.array(Image.open("map.png").convert("L")).max() > 200
    assert float(image_of(Path("scans/bright/0.png"), args, size, channels).mean()) == pytest.approx(
        float(read.mean()), abs=0.01
    )
    assert (
        main(["dream", "scans/bright/0.png", "--network", "run", "--steps", "1", "--out", "dream.png"]) == 0
    )
    assert numpy.array(Image.open("dream.png").convert("L")).max() > 200


def test_one_logit_of_weights_from_a_file_is_two_classes_on_photographs(capsys: pytest.CaptureFixture):
    network = build("somebodys.nets.Net", classes=1, typed=True)
    torch.save(network.state_dict(), "weights.pt")
    Image.new("RGB", (32, 32), "red").save("red.png")
    Path("names.txt").write_text("sound\nbroken\n")
    words = ["red.png", "--network", "somebodys.nets.Net", "--weights", "weights.pt"]
    words += ["--classes", "names.txt"]
    for target in ("sound", "broken"):
        assert main(["grad_cam", *words, "--target", target, "--out", f"{target}.png"]) == 0
    with torch.no_grad():
        logit = float(network(torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].expand(1, 3, 32, 32)))
    args = Namespace(
        network="somebodys.nets.Net", weights="weights.pt", classes=Path("names.txt"), size=None, device="cpu"
    )
    own, names, _, _ = network_of(args)
    with torch.no_grad():
        both = own(torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].expand(1, 3, 32, 32))
    assert list(names) == ["sound", "broken"]
    assert float(both.softmax(1)[0, 1]) == pytest.approx(torch.tensor(logit).sigmoid().item(), abs=1e-6)


def test_a_network_without_arguments_is_explained_from_a_checkpoint_that_holds_it_under_another_name(
    capsys: pytest.CaptureFixture,
):
    torch.manual_seed(0)
    network = build("somebodys.nets.Blobs", classes=1, channels=1, mean=[0.0], std=[1.0], typed=True)
    state = {name: value for name, value in network.state_dict().items() if "normalise" not in name}
    inside = {f"net.{name}": value for name, value in state.items()} | {"loss.weight": torch.ones(1)}
    torch.save({"state_dict": inside, "epoch": 4}, "theirs.ckpt")
    image = Image.linear_gradient("L").resize((40, 24))
    image.save("scan.png")
    words = ["grad_cam", "scan.png", "--network", "somebodys.nets.Blobs", "--weights", "theirs.ckpt"]
    assert main([*words, "--side", "24"]) == 0
    assert (
        "2 classes, images of 1 x 24 x 24 (--size), values in [0, 1] as they are" in capsys.readouterr().err
    )
    args = Namespace(
        network="somebodys.nets.Blobs", weights="theirs.ckpt", classes=None, size=24, device="cpu"
    )
    loaded, names, size, channels = network_of(args)
    assert (len(names), size, channels, args.margin) == (2, 24, 1, 1)
    pixels = torch.rand(3, 1, 24, 24)
    with torch.no_grad():
        z = network(pixels)
        assert torch.allclose(loaded(pixels), torch.cat([-z / 2, z / 2], 1), atol=1e-6)
        scaled, *_ = network_of(Namespace(**vars(args), mean=[0.5], std=[0.25]))
        z = network((pixels - 0.5) / 0.25)
        assert torch.allclose(scaled(pixels), torch.cat([-z / 2, z / 2], 1), atol=1e-6)
    assert main([*words, "--mean", "0.5"]) == 2
    assert "mean and std go together" in capsys.readouterr().err
    torch.save(
        {"a." + name: value for name, value in state.items()}
        | {"b." + name: value for name, value in state.items()},
        "two.pt",
    )
    assert main([*words[:-1], "two.pt"]) == 2
    assert "holds 2 networks of this kind: a., b." in capsys.readouterr().err
    assert main(["table", "--network", "somebodys.nets.Blobs"]) == 0
    assert "Linear" in capsys.readouterr().out


def test_images_of_four_bands_are_read_from_arrays(tmp_path: Path, capsys: pytest.CaptureFixture):
    network = build("somebodys.nets.Net", classes=3, channels=4, mean=[0.0] * 4, std=[1.0] * 4, typed=True)
    state = network.state_dict()
    torch.save({name: value for name, value in state.items() if "normalise" not in name}, "four.pt")
    Path("scenes").mkdir()
    numpy.save("scenes/one.npy", numpy.random.default_rng(0).random((4, 20, 28), dtype=numpy.float32))
    words = ["--network", "somebodys.nets.Net", "--weights", "four.pt", "--side", "20"]
    for images in ("scenes/one.npy", "scenes"):
        assert main(["grad_cam", images, *words]) == 0
        assert "3 classes, images of 4 x 20 x 20" in capsys.readouterr().err
