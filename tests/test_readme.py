"""The README's programs run as they stand there."""

import ast
import re
import sys
import types
from pathlib import Path

import pytest
import somebody
import torch
from lightning.pytorch.loggers import TensorBoardLogger

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


@pytest.fixture
def yours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `yours` whose data are normalised by the README's mean and std."""
    scale = [torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]

    class Data(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int):
            image = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(index))
            return {"image": (image - scale[0]) / scale[1], "label": index % 3}

    loader = torch.utils.data.DataLoader(Data(), batch_size=4)
    module = types.ModuleType("yours")
    vars(module).update(YourModule=somebody.Theirs, train_loader=loader, val_loader=loader)
    monkeypatch.setitem(sys.modules, "yours", module)
    monkeypatch.chdir(tmp_path)


def test_one_image_and_one_question_give_maps_of_the_shapes_that_stand_beside_them():
    room: dict = {"__name__": "readme"}
    exec(compile(BLOCKS[0], "README.md", "exec"), room)
    asked = re.findall(r"^(\w+\(.*\))  # (\[[\d, ]+\])", BLOCKS[0], re.MULTILINE)
    assert len(asked) == 2
    for words, shape in asked:
        maps = eval(words, room)
        assert list(maps.shape) == ast.literal_eval(shape)
        assert maps.isfinite().all()
        assert maps.std() > 0  # a unit may be inactive, and its map 0


def test_an_attack_and_its_sanity_checks_run(capsys):
    room: dict = {"__name__": "readme"}
    exec(compile(BLOCKS[1], "README.md", "exec"), room)
    shifts = (room["moved"] - room["images"]).abs()
    assert 0 < shifts.max() <= 8 / 255 + 1e-6
    assert room["report"].stages[-1].name == "PGD"
    assert len(room["checks"]) == 9
    said = capsys.readouterr().out
    assert "95 % interval" in said
    assert "stochastic network" in said


def test_a_strategy_of_your_own_learns_by_its_table():
    room: dict = {"__name__": "readme"}
    exec(compile(BLOCKS[2], "README.md", "exec"), room)
    groups = room["model"].finetuning.groups(1.0)
    learning = {group["name"]: group["factor"] for group in groups if not group["frozen"]}
    assert learning == {"fc": 1.0, "fc spared": 1.0}


@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval", "ignore:.*bottleneck")
def test_the_callbacks_run_in_your_training(yours: None, tmp_path: Path):
    assert len(BLOCKS[3].strip().splitlines()) <= 14
    exec(compile(BLOCKS[3], "README.md", "exec"), {"__name__": "readme"})
    run = tmp_path / "runs" / "lightning_logs" / "version_0"
    assert {tag for tag, _ in somebody.images(run)} >= {"Saliency", "ClassImages", "Embeddings/pca"}


def test_the_probe_of_your_own_runs(tmp_path: Path):
    room: dict = {"__name__": "readme"}
    exec(compile(BLOCKS[4], "README.md", "exec"), room)
    scale = {"mean": somebody.MEAN, "std": somebody.STD}
    trainer = somebody.quiet(
        tmp_path, room["Silence"](on_error="raise", **scale), logger=TensorBoardLogger(tmp_path, "", "")
    )
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    values = somebody.scalars(tmp_path)["Silence/features.2"]
    assert [step for step, _ in values] == [0, 3, 6]
    assert all(0 < value < 1 for _, value in values)
