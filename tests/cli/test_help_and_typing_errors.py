"""The command's help, its list of recipes, and one line for a typing error."""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from fulgurite.cli import command
from fulgurite.cli.command import main
from fulgurite.cli.errors import exit_status, one_line
from fulgurite.data.datasets import LabelledDataset

TRAIN = Path(__file__).parents[2] / "train.py"
MODULES = sorted(file.stem for file in (TRAIN.parent / "recipes").glob("*.py") if file.stem != "__init__")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


def test_help_lists_recipes_with_a_line_each_and_knobs_with_their_meaning(capsys: pytest.CaptureFixture):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"digits +Handwritten digits", printed)
    assert re.search(r"cifar10 .*\n +digits .*\n(.*\n)* +folder ", printed)
    with pytest.raises(SystemExit) as end:
        main(["fit", "digits", "--help"])
    assert end.value.code == 0
    assert re.search(r"--noise NOISE +augmentation", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("fti digits", "no command 'fti'; nearest: fit"),
        ("nope", "no command 'nope'; nearest: compare$"),
        ("fit digit", "no recipe 'digit'; nearest: digits"),
        ("fit digits --epoch 3", "no option --epoch; nearest: --epochs"),
        ("fit digits --epochs three", "--epochs: wanted a whole number; got three"),
        ("fit digits --budget much", "--budget: wanted a finite number; got much$"),
        ("fit digits --theme blue", "--theme: wanted dark, light; got blue$"),
        ("fit digits --print_page", "no option --print_page; (?!.*print_shtab)"),
        ("test . --minimal pgd", "--minimal: wanted deepfool, ddn, fmn, cw, szegedy, fab; got pgd$"),
        ("test . --images 1e3", "--images: wanted a whole number; got 1e3$"),
        ("test . --images 2.5", "--images: wanted a whole number; got 2.5$"),
        ("validate . --tta 3", "validate has no --tta; wanted test RUN --tta"),
        ("fit digits --epochs 0", "epochs=0; wanted at least 1"),
        ("fit digits --every -1", "every=-1; wanted epochs from one run of the probes to the next, or 0"),
        ("fit digits --every 0 --budget -1", "a budget of -1 and a floor"),
        ("fit digits --lr 0", "wanted a finite learning rate above 0"),
        ("fit digits --budget 0", "a budget of 0 .* wanted a share"),
        ("fit digits --network small_vg", "no network 'small_vg'; nearest: small_vgg"),
        ("fit digits --trainer.device 2", "no option --trainer.device; nearest: --trainer.devices"),
        (
            "fit digits --trainer.devices two",
            "--trainer.devices two; wanted auto, .* or how many",
        ),
        (
            "fit digits --trainer.max_epochs two",
            "--trainer.max_epochs two; wanted a whole number",
        ),
        ("fit digits --trainer.accelerator tpu", "refuses: .*torch_xla|TPU"),
        ("fit digits --trainer.accumulate_grad_batches 0", "accumulate_grad_batches 0; wanted .* at least 1"),
        (
            "fit digits --trainer.num_nodes 2",
            "num_nodes 2 would wait for other machines .*torchrun",
        ),
        ("fit digits --trainer.devices 100000", "devices 100000; wanted auto, .* how many, up to"),
        ("fit digits --trainer.profiler os.path", "profiler os.path; wanted one of simple, advanced"),
        ("fit digits --trainer.plugins os.path", "plugins takes objects of Python"),
        ("fit digits --size 100000", "size is the side of an image in pixels, from 1 to 512; got 100000"),
        ("fit folder --path . --size 100000", "from 1 to 4096; got 100000"),
        ("fit digits --trainer.logger x", "--trainer.logger belongs to the recipe"),
        ("fit digits --trainer.max_epochs 0", "max_epochs 0 trains nothing"),
        ("fit digits --trainer.limit_train_batches 0", "limit_train_batches 0 trains nothing"),
        ("fit digits --folder=", "--folder without a name"),
        ("fit digits --folder /proc/run", "error: /proc/run: No such file"),
        (f"fit digits --epochs {10**30}", "wanted at most 1000000"),
        ("fit digits --seed -1", "--seed -1; wanted a whole number from 0"),
        ("fit digits --lr nan", "--lr: wanted a finite number; got nan"),
        ("fit digits --shift 1e9", "shift is from 0 to 32 pixels"),
        ("fit digits --noise 1e300", "noise from 0 to 10"),
        ("fit digits --network timm/vit_tiny_patch16_224", "cannot take 1 x 32 x 32: Input height"),
        ("fit digits --lr -1 --folder deep/down", "lr=-1.0, .*a finite learning rate above 0"),
        ("fit digits --folder /proc/nope", "/proc"),
        ("fit digits --network torchvision/squeezenet1_0 --size 8", "cannot take 1 x 8 x 8"),
        ("fit digits --resume nowhere", "nowhere is not a folder; wanted the folder of a run"),
        ("fit cifar10 --dataset CIFAR11", "no set 'CIFAR11'.*nearest: CIFAR10"),
        ("fit folder", "missing: --path VALUE"),
        ("fit folder --path nowhere", "no folder nowhere"),
        ("probe", "missing: the folder of a run"),
        ("probe nowhere", "nowhere is not a folder"),
        ("probe .", "holds no run.json"),
    ],
)
def test_a_typing_error_is_one_line_and_leaves_nothing(
    words: str, complaint: str, capsys: pytest.CaptureFixture, tmp_path: Path
):
    assert main(words.split()) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert re.search(complaint, printed[-1])
    assert not list(tmp_path.rglob("run.json"))
    assert not (tmp_path / "deep").exists()


def test_modules_next_to_the_command_are_not_importable(monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(command, "main", lambda: seen.extend(sys.path))
    monkeypatch.syspath_prepend(TRAIN.parent)
    with pytest.raises(SystemExit):
        runpy.run_path(str(TRAIN), run_name="__main__")
    assert seen
    assert str(TRAIN.parent) not in seen


@pytest.mark.slow
def test_a_misspelt_word_in_the_shell_is_one_line():
    done = subprocess.run(
        [sys.executable, TRAIN, "fit", "digitz"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == ["error: no recipe 'digitz'; nearest: digits, robust_digits"]


def test_recipes_and_nothing_else_are_offered(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out.split("recipes, for fit:\n")[1].split("\n\n")[0]
    offered = {line.split()[0] for line in printed.splitlines()}
    modules = {name: importlib.import_module(f"fulgurite.recipes.{name}") for name in MODULES}
    assert offered == {name for name, module in modules.items() if callable(getattr(module, "recipe", None))}
    assert {"digits", "finetune", "stages", "robust_folder"} <= offered
    assert main(["fit", "fitted_head"]) == 2


def test_an_operator_that_is_not_deterministic_is_reported_in_a_line(capsys):
    def run() -> int:
        raise RuntimeError(
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off ..."
        )

    assert exit_status(run) == 2
    reported = capsys.readouterr().err
    assert reported.count("\n") == 1
    assert reported.startswith("error: adaptive_avg_pool2d_backward_cuda is not deterministic on this device")
    assert "replace that layer" in reported


class Unreadable(LabelledDataset):
    """Images of which none can be read."""

    labels, classes = torch.zeros(2, dtype=torch.int64), ("a",)

    def __getitem__(self, index):
        raise ValueError(f"image {index} cannot be read")


@pytest.mark.slow
def test_what_a_process_that_loads_images_says_is_told_without_its_traceback(capsys):
    loader = DataLoader(Unreadable(), num_workers=1)
    assert exit_status(lambda: len(list(loader))) == 2
    assert capsys.readouterr().err == "error: image 0 cannot be read\n"


def test_the_message_of_a_worker_may_have_several_lines():
    reported = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\nKeyError: 1\n\nDuring ...\nValueError: one\nand two\n'
    )
    assert one_line(ValueError(reported)) == "one and two"
    assert one_line(ValueError("Caught ValueError")) == "Caught ValueError"
