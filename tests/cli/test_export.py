"""Export of a run: files that compute the same, with cards, and what cannot be exported."""

import csv
import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from fulgurite.cli.command import main
from fulgurite.cli.trained_network import restored
from fulgurite.data.digits import Digits
from fulgurite.models.export import exported, largest_difference
from fulgurite.models.networks import normalised
from fulgurite.probes.render import picture, write
from fulgurite.recipes import run as runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["fit", "digits", "--epochs", "1", "--size", "8", "--network", "all_conv", "--every", "0"]
    assert main([*words, "--folder", str(folder), "--trainer.enable_progress_bar", "false"]) == 0
    images = Digits(size=8).parts()[2].images[:6]
    (folder.parent / "photographs").mkdir()
    for place, image in enumerate(images):
        write(picture(image), folder.parent / "photographs" / f"{place}.png")
    return folder


def predicted(place: Path, run: Path, out: Path) -> list[list[str]]:
    words = ["predict", str(place), str(run.parent / "photographs"), "--top", "3", "--out", str(out)]
    assert main(words) == 0
    return list(csv.reader(out.read_text().splitlines()))


def check_same(place: Path, run: Path, folder: Path) -> None:
    ours, theirs = predicted(run, run, folder / "a.csv"), predicted(place, run, folder / "b.csv")
    assert len(ours) == 7
    for own, other in zip(ours[1:], theirs[1:], strict=True):
        assert own[:2] == other[:2]
        assert [float(own[k]) for k in (2, 4, 6)] == pytest.approx(
            [float(other[k]) for k in (2, 4, 6)], abs=1e-5
        )


def test_weights_with_a_card_classify_without_the_run(run: Path, tmp_path: Path, capsys):
    assert main(["export", str(run), "--to", "safetensors", "--out", str(tmp_path / "net.safetensors")]) == 0
    assert "on 16 images differ by 0 of the largest" in capsys.readouterr().out
    with safetensors.safe_open(tmp_path / "net.safetensors", "pt") as file:
        card = json.loads(file.metadata()["fulgurite"])
    assert card["network"] == "all_conv"
    assert card["images"]["classes"] == list("0123456789")
    assert card["metrics"].keys() >= {"test/accuracy"}
    assert card["command"].startswith("fulgurite fit digits --network all_conv")
    page = (tmp_path / "net.safetensors.md").read_text()
    assert f"| test/accuracy | {card['metrics']['test/accuracy']:.4f} |" in page
    assert "[n, 1, 8, 8]" in page
    check_same(tmp_path / "net.safetensors", run, tmp_path)


def test_probabilities_are_by_the_temperature_that_was_fitted_to_these_weights(
    run: Path, tmp_path: Path, capsys
):
    content = json.loads((run / "test.json").read_text())
    temperature = content["calibration"]["temperature"]
    own, photographs = restored(run, runs.checkpoint(run, "best")), run.parent / "photographs"
    logits = own.network(torch.stack([own.image(file) for file in sorted(photographs.iterdir())])).detach()
    assert (logits.softmax(1) - (logits / temperature).softmax(1)).abs().max() > 0.01

    def largest(*words: str) -> torch.Tensor:
        out = tmp_path / "found.csv"
        assert main(["predict", str(run), str(photographs), "--out", str(out), *words]) == 0
        return torch.tensor([float(row[2]) for row in list(csv.reader(out.read_text().splitlines()))[1:]])

    for words, divisor in {(): temperature, ("--temperature", "3"): 3, ("--checkpoint", "last"): 1}.items():
        assert torch.allclose(largest(*words), (logits / divisor).softmax(1).amax(1), atol=1e-5), words
        assert (f"probabilities by temperature {divisor:.3g}" in capsys.readouterr().out) == (divisor != 1)
    views = largest("--tta", "1")
    assert torch.allclose(views, (logits / temperature).softmax(1).amax(1), atol=1e-5)
    assert main(["predict", str(run), str(photographs), "--temperature", "0"]) == 2
    assert "--temperature 0.0; wanted a finite number above 0" in capsys.readouterr().err
    content["calibration"]["temperature"] = "warm"
    (run / "test.json").write_text(json.dumps(content))
    assert main(["predict", str(run), str(photographs)]) == 2
    assert "its temperature is 'warm'; wanted a finite number above 0" in capsys.readouterr().err
    content["calibration"]["temperature"] = temperature
    (run / "test.json").write_text(json.dumps(content))


def test_an_exported_program_takes_any_number_of_images(run: Path, tmp_path: Path):
    assert main(["export", str(run), "--to", "pt2", "--out", str(tmp_path / "net.pt2")]) == 0
    text = {"fulgurite.json": ""}
    network = torch.export.load(tmp_path / "net.pt2", extra_files=text).module()
    assert json.loads(text["fulgurite.json"])["network"] == "all_conv"
    own = restored(run, runs.checkpoint(run, "best")).network
    for count in (1, 3):
        images = torch.rand(count, 1, 8, 8)
        assert torch.allclose(network(images), own(images), atol=1e-5)


@pytest.mark.slow
def test_onnx_computes_the_same_and_classifies_without_the_run(run: Path, tmp_path: Path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", str(run), "--out", str(tmp_path / "net.onnx")]) == 0
    check_same(tmp_path / "net.onnx", run, tmp_path)
    assert "## Use\n\n```\nimport onnxruntime" in (tmp_path / "net.onnx.md").read_text()
    words = ["predict", str(tmp_path / "net.onnx"), str(run.parent / "photographs")]
    assert main([*words, "--explain"]) == 2
    assert "--explain follows gradients through layers" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"ONNX lacks the operator prims\.bessel_j0, which the network uses"):
        exported(Bessel(), torch.rand(2, 3, 8, 8), "onnx", {})


class Bessel(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(images).mean((2, 3))


class Flow(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) * (1 if images.sum() > 0 else -1)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


def test_a_file_has_no_other_checkpoint(tmp_path: Path, capsys):
    (tmp_path / "net.onnx").write_bytes(b"")
    assert main(["predict", str(tmp_path / "net.onnx"), ".", "--checkpoint", "last"]) == 2
    assert "--checkpoint last: " in capsys.readouterr().err


def test_normalisation_is_in_the_file():
    network = normalised(Linear(), mean=(0.4,) * 3, std=(0.2,) * 3)
    images = torch.rand(4, 3, 2, 2)
    content = exported(network, images, "pt2", {})
    assert largest_difference(content, "pt2", network, images) < 1e-6
    other = normalised(Linear(), mean=(0.5,) * 3, std=(0.2,) * 3)
    other.head.load_state_dict(network.head.state_dict())
    assert largest_difference(content, "pt2", other, images) > 1e-2
    nn.init.constant_(other.head.weight, torch.nan)
    assert not largest_difference(content, "pt2", other, images) <= 1


def test_a_forward_pass_that_depends_on_values_is_reported():
    with pytest.raises(
        ValueError, match=r"torch\.export cannot follow the forward pass of Flow: Could not g"
    ):
        exported(Flow(), torch.rand(2, 3, 8, 8), "pt2", {})


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["RUN", "--out", "net.txt"], "--out net.txt; wanted a name that ends in .onnx"),
        (["RUN", "--to", "pt2", "--check", "nowhere"], "--check nowhere: there is no such file or folder"),
        (["RUN", "--to", "pt2", "--check", "."], "--check .: there are no images in it"),
        (["RUN", "--to", "pt2", "--out", "nowhere/net.pt2"], "there is no folder nowhere"),
        (["nowhere"], "nowhere is not a folder; wanted the folder of a run"),
    ],
)
def test_what_cannot_be_exported_is_reported_and_nothing_is_written(
    run: Path, tmp_path: Path, monkeypatch, capsys, words, complaint
):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *(str(run) if word == "RUN" else word for word in words)]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "metadata", "complaint"),
    [
        ("net.safetensors", {}, "has no card of a run; wanted a file that export RUN has written"),
        ("net.safetensors", {"fulgurite": '{"run": {"recipe": 1}}'}, "is damaged"),
        ("net.safetensors", {"fulgurite": "["}, "has no card of a run"),
        ("net.onnx", b"cut off", "net.onnx is no ONNX network that onnxruntime can run"),
        ("net.pt2", None, "may hold code and is not read here"),
        ("gone.safetensors", None, "there is no file"),
    ],
)
def test_a_file_of_another_program_is_reported(tmp_path: Path, capsys, name, metadata, complaint):
    if isinstance(metadata, bytes):
        pytest.importorskip("onnxruntime")
        (tmp_path / name).write_bytes(metadata)
    elif metadata is not None:
        content = safetensors.torch.save({"a": torch.ones(1)}, metadata=metadata or None)
        (tmp_path / name).write_bytes(content)
    elif name.endswith("pt2"):
        (tmp_path / name).write_bytes(b"PK")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / name), str(tmp_path / "a.png")]) == 2
    assert complaint in capsys.readouterr().err
