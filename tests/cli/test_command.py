"""The command: fit, resume, validate, test and probe."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import somebody
import torch
from PIL import Image
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fulgurite.cli.checkpointing import Patience
from fulgurite.cli.command import main
from fulgurite.models.networks import build

SMALL = ["--epochs", "2", "--size", "8", "--batch_size", "128"]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
TRAIN = Path(__file__).parents[2] / "train.py"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["fit", "digits", *SMALL, *QUIET, "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["fit", "digits", *SMALL, *QUIET, "--every", "0", "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def blind(trained: Path, tmp_path: Path) -> Path:
    """A run without probes, which takes a fraction of the time."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def weights(run: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]


def test_a_run_s_folder_records_what_was_trained(run: Path):
    printed = json.loads((run / "run.json").read_text())
    assert printed["recipe"] == "digits"
    assert printed["knobs"]["size"] == 8
    assert printed["knobs"]["lr"] == 4e-3
    assert printed["versions"]["torch"] == torch.__version__.split("+")[0]
    assert printed["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", printed["commit"])
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list(run.glob("events.*"))


def test_tensorboard_has_a_layout_the_command_and_the_knobs_with_what_came_out(run: Path):
    events = EventAccumulator(str(run), size_guidance={"tensors": 0})
    events.Reload()
    assert {"learning rate", "train/loss", "val/accuracy", "test/accuracy"} <= set(events.Tags()["scalars"])
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [group.title for group in layout.category] == ["training", "probes", "seconds of each probe"]
    assert [chart.title for chart in layout.category[0].chart] == ["loss", "accuracy", "learning rate"]
    assert [chart.title for chart in layout.category[1].chart] == [
        "Metrics",
        "Metrics of each class",
        "ClassImages",
    ]
    for chart in layout.category[0].chart:
        tags = [
            tag for tag in events.Tags()["scalars"] for word in chart.multiline.tag if re.match(word, tag)
        ]
        assert tags
    page = events.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "fit digits" in page
    assert f"| torch | {torch.__version__.split('+')[0]} |" in page
    assert "multiply-adds" in page
    started = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    assert started.session_start_info.hparams["lr"].number_value == 0.004
    assert "lr: 0.004" in (run / "hparams.yaml").read_text()
    # the model's own would be there twice, with a number that nobody measured
    assert "hp_metric" not in events.Tags()["scalars"]


def test_probe_restores_exactly_what_was_trained(run: Path):
    assert main(["probe", str(run), "--checkpoint", "last", *QUIET]) == 0
    during, after = somebody.images(run), somebody.images(run / "probe")
    last = max(step for tag, step in during if tag == "Saliency")
    assert {step for _, step in after} == {last}
    for tag in ("Saliency", "ClassImages", "Filters/conv1", "Metrics/confusion", "Embeddings/pca"):
        assert torch.equal(during[tag, last], after[tag, last]), tag
        with Image.open(run / "pictures" / f"{tag.replace('/', '_')}.png") as picture:
            assert picture.size == during[tag, last].shape[:0:-1]
    with Image.open(run / "pictures" / "ClassImages_film.gif") as film:
        looks = film.n_frames
    assert (run / "pictures" / "ClassImages_film.png").exists()
    assert looks == len({step for tag, step in during if tag == "ClassImages"})


def test_validate_and_test_measure_the_best_weights(blind: Path, capsys: pytest.CaptureFixture):
    assert main(["validate", str(blind), *QUIET]) == 0
    assert "val/accuracy" in capsys.readouterr().out
    assert main(["test", str(blind), *QUIET]) == 0
    assert "test/accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_a_resumed_run_continues_where_it_stopped(run: Path):
    before = weights(run)
    assert main(["fit", "digits", "--resume", str(run), "--epochs", "3", *QUIET]) == 0
    reported = json.loads((run / "run.json").read_text())["knobs"]
    assert (reported["epochs"], reported["size"]) == (3, 8)
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 2
    assert any(not torch.equal(before[key], checkpoint["state_dict"][key]) for key in before)
    steps = sorted(step for tag, step in somebody.images(run) if tag == "Saliency")
    assert steps == [0, 10, 20, 30]
    film = next(
        picture
        for (tag, step), picture in somebody.images(run).items()
        if (tag, step) == ("Filters/film", 30)
    )
    assert film.shape[2] > 4 * 50
    listed = (run / "projector_config.pbtxt").read_text()
    assert listed.count("tensor_name") == 4  # the start, the last of both trainings, and the last one again


def test_what_was_written_after_the_last_checkpoint_is_purged_on_resume(blind: Path):
    state = torch.load(blind / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 20
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(blind) as writer:
        writer.add_scalar("val/loss", 99.0, 25)
    assert main(["fit", "digits", "--resume", str(blind), "--epochs", "3", *QUIET]) == 0
    assert all(value < 99 for _, value in somebody.scalars(blind)["val/loss"])


def test_a_resume_with_another_architecture_leaves_the_run_as_it_was(
    blind: Path, capsys: pytest.CaptureFixture
):
    before = {path: path.read_bytes() for path in blind.rglob("*") if path.is_file()}
    assert main(["fit", "digits", "--resume", str(blind), "--network", "all_conv"]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed[-1]) < 1000
    assert "do not fit" in printed[-1]
    assert {path: path.read_bytes() for path in blind.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("knob", [["--lr", "-1"], ["--weight_decay", "-1"]], ids=str)
def test_a_refused_resume_leaves_the_run_to_be_resumed(blind: Path, knob: list[str]):
    before = (blind / "run.json").read_text()
    assert main(["fit", "digits", "--resume", str(blind), *knob, *QUIET]) == 2
    assert (blind / "run.json").read_text() == before
    assert main(["fit", "digits", "--resume", str(blind), "--epochs", "3", *QUIET]) == 0


@pytest.mark.parametrize("knob", [["--lr", "3"], ["--weight_decay", "0.5"]], ids=str)
def test_options_fixed_by_the_checkpoint_cannot_be_changed(
    blind: Path, knob: list[str], capsys: pytest.CaptureFixture
):
    before = {path: path.read_bytes() for path in blind.rglob("*") if path.is_file()}
    assert main(["fit", "digits", "--resume", str(blind), *knob, "--epochs", "3", *QUIET]) == 2
    assert f"a resumed run keeps its {knob[0][2:]}, " in capsys.readouterr().err
    assert {path: path.read_bytes() for path in blind.rglob("*") if path.is_file()} == before


def test_a_resumed_run_has_the_patience_that_it_is_asked_for_now():
    before, now = Patience("val/accuracy", patience=2), Patience("val/accuracy", patience=5)
    before.wait_count = 1
    now.load_state_dict(before.state_dict())
    assert (now.wait_count, now.patience) == (1, 5)


def test_a_best_checkpoint_that_is_cut_off_is_one_line(blind: Path, capsys: pytest.CaptureFixture):
    best = blind / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:1000])
    note = (blind / "run.json").read_bytes()
    again = ["fit", "digits", "--resume", str(blind), "--epochs", "3", *QUIET]
    assert main(again) == 2
    assert "best.ckpt cannot be read: it is cut off" in capsys.readouterr().err.strip().splitlines()[-1]
    assert (blind / "run.json").read_bytes() == note
    best.unlink()
    assert main(again) == 0


@pytest.mark.parametrize(
    "damage", [{"knobs": 3}, {"recipe": 7}, {"knobs": {"epochs": "foo"}}, {"size": 1}], ids=str
)
def test_a_damaged_note_is_reported(blind: Path, damage: dict, capsys: pytest.CaptureFixture):
    printed = json.loads((blind / "run.json").read_text())
    (blind / "run.json").write_text(json.dumps(printed | damage))
    for words in (["probe", str(blind)], ["fit", "digits", "--resume", str(blind)]):
        assert main(words) == 2
        assert "damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_without_probes_can_be_probed(blind: Path):
    assert main(["probe", str(blind), *QUIET]) == 0
    assert (blind / "pictures" / "Saliency.png").exists()


@pytest.mark.slow
def test_a_folder_in_which_nothing_was_ever_finished_is_used_again(run: Path):
    shutil.rmtree(run / "checkpoints")
    assert main(["fit", "digits", *SMALL, *QUIET, "--epochs", "1", "--folder", str(run)]) == 0
    assert sorted(step for tag, step in somebody.images(run) if tag == "Saliency") == [0, 10]


def test_missing_best_weights_are_not_silently_replaced_by_the_last(blind: Path, capsys):
    (blind / "checkpoints" / "best.ckpt").unlink()
    for verb in ("test", "validate", "probe"):
        assert main([verb, str(blind), *QUIET]) == 2
        assert "no checkpoint 'best' in" in (printed := capsys.readouterr().err)
        assert "--checkpoint last takes the last one" in printed
    assert main(["test", str(blind), "--checkpoint", "last", *QUIET]) == 0


def test_a_run_without_a_checkpoint_is_reported(blind: Path, capsys: pytest.CaptureFixture):
    shutil.rmtree(blind / "checkpoints")
    for verb in (["probe", str(blind)], ["fit", "digits", "--resume", str(blind)]):
        assert main(verb) == 2
        assert "no checkpoint" in capsys.readouterr().err
    assert (blind / "run.json").exists()


def test_a_checkpoint_of_another_architecture_is_reported_with_shapes(
    blind: Path, capsys: pytest.CaptureFixture
):
    other = build("all_conv", classes=10, channels=1)
    save_file(other.state_dict(), blind / "other.safetensors")
    assert main(["probe", str(blind), "--checkpoint", str(blind / "other.safetensors")]) == 2
    printed = capsys.readouterr().err
    assert re.search(r"missing.*hidden|norm2.bias 32 for 64", printed)
    wider = build("small_vgg", classes=7, channels=1)
    save_file(wider.state_dict(), blind / "wider.safetensors")
    assert main(["probe", str(blind), "--checkpoint", str(blind / "wider.safetensors")]) == 2
    assert re.search(
        r"classifier.weight.*7.*128.*10.*128|classifier.weight.*10.*128.*7.*128", capsys.readouterr().err
    )


def test_a_run_is_not_overwritten(blind: Path, capsys: pytest.CaptureFixture):
    before = weights(blind)
    assert main(["fit", "digits", *SMALL, "--folder", str(blind)]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert all(torch.equal(before[key], value) for key, value in weights(blind).items())


def test_a_knob_that_the_recipe_no_longer_has_is_reported(blind: Path, capsys: pytest.CaptureFixture):
    printed = json.loads((blind / "run.json").read_text())
    printed["knobs"]["flavour"] = "mint"
    (blind / "run.json").write_text(json.dumps(printed))
    assert main(["probe", str(blind)]) == 2
    assert "flavour" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.ranks
def test_two_processes_judge_each_of_an_odd_number_of_images_once(blind: Path, capsys: pytest.CaptureFixture):
    ranks = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command = [sys.executable, TRAIN, "validate", blind, *ranks, *QUIET]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "DistributedSampler" not in done.stderr
    assert main(["validate", str(blind), "--trainer.accelerator", "cpu", *QUIET]) == 0
    reported = [
        [float(number) for number in re.findall(r"val/\w+\s+│\s+([\d.]+)", printed)]
        for printed in (capsys.readouterr().out, done.stdout)
    ]
    assert len(reported[0]) == 2
    assert reported[0][0] * 179 == pytest.approx(round(reported[0][0] * 179), abs=1e-3)
    assert reported[1] == pytest.approx(reported[0], rel=1e-5)
