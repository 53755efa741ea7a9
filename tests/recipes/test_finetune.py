"""Fine-tuning recipes: frozen parts stay, a power cut changes nothing, unused weights are listed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import somebody
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.torch import save_file
from short_finetunings import QUIET, SMALL, last, pictures, words

from fulgurite.cli.command import main
from fulgurite.data.folder import Folder
from fulgurite.models.networks import build
from fulgurite.models.stages import stages_of
from fulgurite.models.weights import ends
from fulgurite.recipes.finetune import recipe as finetune
from fulgurite.recipes.finetune_digits import recipe as finetune_digits
from fulgurite.recipes.fitted_head import fit_head

STRATEGIES = ["linear", "last", "layerwise", "gradual", "full", "scratch"]
TRAIN = Path(__file__).parents[2] / "train.py"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


def state(network) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


# the head


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "torchvision/resnet18", "small_vgg"])
def test_a_fitted_head_classifies_the_training_images_at_once(name, tmp_path):
    data = Folder(pictures(tmp_path / "photos"), size=32, augment=False, workers=0)
    torch.manual_seed(0)
    network = build(name, classes=2)
    before = state(network)
    fit_head(network, data)
    images, labels = (torch.stack([torch.as_tensor(one[k]) for one in data.train]) for k in (0, 1))
    with torch.no_grad():
        assert torch.equal(network.eval()(images).argmax(1), labels)
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    _, (head,) = ends(network)
    assert moved == {f"{head}.weight", f"{head}.bias"}


def test_a_head_with_another_input_is_not_changed(tmp_path):
    data = Folder(pictures(tmp_path / "photos"), size=32, augment=False, workers=0)
    network = build("torchvision/densenet121", classes=2)
    before = state(network)
    with pytest.raises(ValueError, match="is not linear in the output of features"):
        fit_head(network, data)
    assert somebody.same(before, state(network))


def test_a_fitted_head_is_what_training_begins_with(tmp_path):
    photos = pictures(tmp_path / "photos")
    save_file(build("small_cnn", classes=3).state_dict(), tmp_path / "known.safetensors")
    knobs = {"path": str(photos), "network": "small_cnn", "size": 8, "workers": 0, "every": 0}
    known = str(tmp_path / "known.safetensors")
    made = finetune(**knobs, weights=known, fitted_head=True)
    made.data.setup()
    images, labels = next(iter(made.data.val_dataloader()))
    with torch.no_grad():
        assert torch.equal(made.model.network.eval()(images).argmax(1), labels)
    with pytest.raises(ValueError, match="leave out fitted_head"):
        finetune(**knobs, strategy="scratch", fitted_head=True)


# frozen


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_frozen_stays_bit_identical_under_every_strategy(strategy: str, tmp_path: Path):
    recipe = finetune_digits(strategy=strategy, **{**SMALL, "epochs": 2}, every=0)
    network = recipe.model.network
    before, stages = state(network), stages_of(network, shape=(1, 8, 8))
    somebody.quiet(tmp_path, logger=False).fit(recipe.model, recipe.data)
    changed = {name for name, value in state(network).items() if not torch.equal(value, before[name])}
    learning = {"linear": 1, "last": 2, "gradual": 2}.get(strategy, len(stages))
    patterns = [stage.pattern for stage in stages[-learning:]]
    assert changed == {name for name in before if any(re.match(pattern, name) for pattern in patterns)}


def test_probes_change_nothing_and_tell_groups_drift_and_stages(tmp_path: Path):
    ends = []
    for every in (0, 3):
        recipe = finetune_digits(strategy="gradual", **SMALL, every=every)
        watch = [probe for probe in recipe.probes if probe.name in ("Saliency", "Drift", "StageProbes")]
        for probe in watch:
            probe.on_error = "raise"
        logger = TensorBoardLogger(tmp_path / str(every), name="", version="")
        trainer = somebody.quiet(tmp_path, *watch, logger=logger, max_epochs=3)
        trainer.fit(recipe.model, recipe.data)
        ends.append(state(recipe.model))
    assert somebody.same(*ends)
    reported = somebody.scalars(tmp_path / "3")
    # only the start is looked at while all but the head is frozen
    assert [value for _, value in reported["Drift/frozen/hidden"]] == [1.0, 0.0]
    assert [value for _, value in reported["Drift/frozen/conv1|norm1"]] == [1.0, 1.0]
    assert reported["Drift/moved/conv1"][-1][1] == 0 < reported["Drift/moved/classifier"][-1][1]
    assert any(tag.startswith("StageProbes/") for tag in reported)


def test_the_fresh_head_does_not_depend_on_the_backbone():
    by_digits, by_shapes = (
        finetune_digits(source=source, **{**SMALL, "size": 16}, every=0).model.network
        for source in ("digits", "shapes")
    )
    assert torch.equal(by_digits.classifier.weight, by_shapes.classifier.weight)
    assert not torch.equal(by_digits.conv1.weight, by_shapes.conv1.weight)
    assert len(by_digits.classifier.weight) == 5


# weights


def test_unused_weights_are_listed_by_name(caplog: pytest.LogCaptureFixture):
    save_file(build("small_vgg", classes=2).state_dict(), "vgg.safetensors")
    asked = {"path": pictures(Path("pets")), "network": "small_vgg", "weights": "vgg.safetensors", "every": 0}
    asked |= {"size": 16, "channels": 1, "epochs": 1, "workers": 0, "class_weights": True}
    assert main(["fit", "finetune", *words(**asked), "--folder", "run"]) == 0
    reported = re.search(r"weights of vgg\.safetensors: .*", caplog.text)[0]
    assert re.search(r"adapted to the channels: conv1\.weight (\d+)x3x3x3 for \1x1x3x3", reported)
    assert re.search(r"fresh: .*classifier\.weight 2x\d+ for 2x\d+", reported)


@pytest.mark.slow
def test_the_network_of_a_run_is_taken_over_and_of_a_run_on_top_of_it(caplog: pytest.LogCaptureFixture):
    first = words(size=8, epochs=1, every=0, batch_size=512)
    assert main(["fit", "digits", *first, "--folder", "first"]) == 0
    best = torch.load(Path("first") / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    path = pictures(Path("pets"), channels=1)
    asked = {"path": path, "size": 16, "channels": 1, "epochs": 1, "every": 0, "workers": 0}
    for run, backbone in (("second", "first"), ("third", "second")):
        knobs = words(**asked, backbone=backbone, strategy="linear")
        assert main(["fit", "finetune", *knobs, "--folder", run]) == 0
        own = last(run)["state_dict"]
        shared = {name for name in own if name.startswith("network.") and "classifier" not in name}
        assert all(torch.equal(own[name], best[name]) for name in shared)
        assert len(own["network.classifier.weight"]) == 2
    assert main(["fit", "finetune", *words(**asked, backbone="first", strategy="scratch")]) == 0
    assert "fresh weights; first only names the network" in caplog.text


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ("--weights a.pt --backbone b", "weights=a.pt and backbone=b are two sources of weights; choose one"),
        ("--weights a.pt --strategy scratch", "fresh weights; leave out weights=a.pt"),
        ("--weights gone.pt", "no file of weights at gone.pt"),
        ("--weights text.safetensors", "text.safetensors cannot be read"),
        (
            "--weights other.safetensors",
            r"do not fit this SmallVGG: 1 missing: hidden.weight; 1 not the netw",
        ),
        ("--backbone nowhere", "nowhere is not a folder; wanted the folder of a run"),
        ("--backbone odd", "odd is a run of 'mine', which names no network"),
        ("--strategy gradul", "--strategy: .*gradul"),
        ("--strategy last --stages 9", "stages=9; this SmallVGG has 4 before its head"),
        ("--smoothing 1", "smoothing=1.0; wanted a share"),
        ("--augment wild", "no augmentation 'wild'"),
        ("--weights nan.safetensors", r"not finite: \d+ of \d+ in \S+ are NaN or infinite"),
        ("--decay 0 --weights gone.pt", "decay=0.0; wanted a share of the next stage's rate, above 0"),
        ("--every_stage 0 --weights gone.pt", "every_stage=0; wanted at least 1 epoch"),
        ("--epochs 0 --weights gone.pt", "epochs=0; wanted at least 1"),
        ("--lr -1 --weights gone.pt", "lr=-1.0; wanted a learning rate above 0"),
        ("--smoothing 1 --weights gone.pt", "smoothing=1.0; wanted a share"),
        ("--patience 0 --weights gone.pt", "patience=0; wanted at least 1"),
        ("--folds 3", "folds=3 without fold; say which of them validates, from 0 to 2: --fold 0"),
        ("--fold 7", "numbered from 0 to 4"),
        ("--per_class 99", "wanted 99 training images of every class"),
        ("--patience 0", "patience=0; wanted at least 1"),
        ("--network small_vgg", "nobody publishes weights for small_vgg; .*--weights FILE"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    knobs: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    Path("text.safetensors").write_text("these are not weights")
    weights = {name.replace("hidden", "concealed"): own for name, own in state(build_small()).items()}
    weights["hidden.bias"] = weights.pop("concealed.bias", torch.zeros(1))
    save_file(weights, "other.safetensors")
    save_file(build_small().state_dict(), "right.safetensors")
    save_file({name: own / 0 for name, own in build_small().state_dict().items()}, "nan.safetensors")
    Path("odd").mkdir()
    (Path("odd") / "run.json").write_text(json.dumps({"recipe": "mine", "knobs": {}, "trainer": {}}))
    asked = ["--path", str(pictures(tmp_path / "pets")), "--size", "16", "--workers", "0", "--every", "0"]
    if not re.search("--weights|--backbone|--network", knobs):
        asked += ["--weights", "right.safetensors"]
    if "--backbone" not in knobs and "--network" not in knobs:
        asked += ["--network", "small_vgg"]
    assert main(["fit", "finetune", *asked, *knobs.split(), "--folder", "run", *QUIET]) == 2
    assert re.search(complaint, capsys.readouterr().err.strip().splitlines()[-1])
    assert not Path("run").exists()


def build_small():
    return build("small_vgg", classes=2)


def test_a_backbone_of_another_network_than_asked_is_refused(capsys: pytest.CaptureFixture):
    Path("first").mkdir()
    note = {"recipe": "digits", "knobs": {"network": "small_cnn"}, "trainer": {}}
    (Path("first") / "run.json").write_text(json.dumps(note))
    asked = {"path": pictures(Path("pets")), "network": "small_vgg", "backbone": "first"}
    assert main(["fit", "finetune", *words(**asked)]) == 2
    assert "first is a run of small_cnn, not of small_vgg; leave out" in capsys.readouterr().err


# two processes


@pytest.mark.slow
@pytest.mark.ranks
def test_two_processes_tune_as_one_does():
    save_file(build("small_cnn", classes=7).state_dict(), "cnn.safetensors")
    path = pictures(Path("pets"), count=20)
    for number in range(5):  # an odd number to validate on
        shutil.copy(path / "dark" / f"{number}.png", path / "dark" / f"again{number}.png")
    asked = {"path": path, "network": "small_cnn", "weights": "cnn.safetensors"}
    asked |= {"strategy": "gradual", "size": 16, "epochs": 3, "every": 0, "workers": 0, "class_weights": True}
    for processes in (1, 2):
        ranks = ["--trainer.accelerator", "cpu", "--trainer.devices", str(processes)]
        ranks += ["--trainer.strategy", "ddp"] * (processes > 1)
        knobs = words(**asked, batch_size=8 // processes, folder=processes)
        command = [sys.executable, str(TRAIN), "fit", "finetune", *knobs, *ranks]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
    one, two = last("1"), last("2")
    groups = [ends["optimizer_states"][0]["param_groups"] for ends in (one, two)]
    assert somebody.same(*groups)
    assert {group["frozen"] for group in groups[0]} == {False}
    for name, value in one["state_dict"].items():
        assert torch.allclose(value.float(), two["state_dict"][name].float(), atol=1e-4), name
    alone, together = (somebody.scalars(Path(folder)) for folder in "12")
    for tag in ("val/loss", "val/accuracy", "validation/loss", "validation/accuracy"):
        assert together[tag][-1][1] == pytest.approx(alone[tag][-1][1], abs=1e-4), tag
