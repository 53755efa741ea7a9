"""Fine-tuning that is cut off and resumed."""

import json
from pathlib import Path

import pytest
import somebody
from safetensors.torch import save_file
from short_finetunings import QUIET, SMALL, last, pictures, words

from fulgurite.cli.command import main
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


class PowerCutError(Exception):
    pass


def cut_in(epoch: int):
    def hook(self, optimizer):
        if self.current_epoch == epoch:
            raise PowerCutError

    return hook


def interrupted(monkeypatch: pytest.MonkeyPatch, recipe: str, knobs: list[str], epoch: int, folder: str):
    """A run that is cut off within this epoch, and resumed."""
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_before_optimizer_step", cut_in(epoch))
        with pytest.raises(PowerCutError):
            main(["fit", recipe, *knobs, "--folder", folder])
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    assert last(folder)["epoch"] == epoch - 1
    assert main(["fit", recipe, "--resume", folder, *QUIET]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["linear", pytest.param("gradual", marks=pytest.mark.slow)])
def test_a_run_cut_off_at_any_epoch_and_resumed_ends_bit_identical(
    strategy: str, monkeypatch: pytest.MonkeyPatch
):
    knobs = words(strategy=strategy, **SMALL, every=0, smoothing=0.1)
    assert main(["fit", "finetune_digits", *knobs, "--folder", "whole"]) == 0
    monkeypatch.delenv("FULGURITE_RUN")
    whole = last("whole")
    for epoch in (1, 2):
        interrupted(monkeypatch, "finetune_digits", knobs, epoch, f"cut{epoch}")
        resumed = last(f"cut{epoch}")
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
            assert somebody.same(resumed[part], whole[part]), part


@pytest.mark.slow
@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        (["--stages", "2"], "has the factor 1.0, and 0.0 in the run that is resumed"),
        (["--strategy", "full"], "a resumed run keeps its strategy, last"),
        (["--source", "shapes"], "a resumed run keeps its source, digits: its weights have come from there"),
    ],
    ids=str,
)
def test_a_resume_that_is_refused_leaves_the_run_to_be_resumed(
    knobs: list[str], complaint: str, capsys: pytest.CaptureFixture
):
    asked = words(strategy="last", **{**SMALL, "epochs": 1}, every=0)
    assert main(["fit", "finetune_digits", *asked, "--folder", "run"]) == 0
    before = Path("run/run.json").read_bytes()
    again = ["fit", "finetune_digits", "--resume", "run", "--epochs", "2", *QUIET]
    assert main([*again, *knobs]) == 2
    assert complaint in capsys.readouterr().err
    assert Path("run/run.json").read_bytes() == before
    assert main(again) == 0
    assert last("run")["epoch"] == 1
    assert json.loads(Path("run/run.json").read_text())["knobs"]["epochs"] == 2


@pytest.mark.slow
def test_so_it_does_with_probes_worker_processes_and_photographs(monkeypatch: pytest.MonkeyPatch):
    save_file(build("small_vgg", classes=7).state_dict(), "vgg.safetensors")
    asked = {"path": pictures(Path("pets")), "network": "small_vgg", "weights": "vgg.safetensors"}
    asked |= {"strategy": "gradual", "augment": "strong", "size": 16, "epochs": 3, "batch_size": 4}
    ends = []
    for workers, every in ((0, 0), (2, 1)):
        knobs, folder = words(**asked, workers=workers, every=every), f"whole{workers}"
        assert main(["fit", "finetune", *knobs, "--folder", folder]) == 0
        monkeypatch.delenv("FULGURITE_RUN")
        ends.append(last(folder))
    interrupted(monkeypatch, "finetune", knobs, 2, "cut")
    ends.append(last("cut"))
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert somebody.same(ends[0][part], ends[1][part])
        assert somebody.same(ends[0][part], ends[2][part])
