"""The programs of the README and of the documentation run unchanged, and links lead to files."""

import ast
import re
import sys
import types
from pathlib import Path

import pytest
import somebody
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from simulated_time import simulate

import fulgurite
from fulgurite.callbacks.framework.probe_callback import ProbeCallback

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {page.name: re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) for page in PAGES}

# of which a test below says more than that they run
TESTED = [
    *(("README.md", 0), ("attribution.md", 0), ("attacks.md", 0), ("finetuning.md", 0)),
    *(("own_code.md", 0), ("own_probe.md", 0), ("python.md", 0)),
]
OTHERS = [
    (page, number)
    for page, blocks in BLOCKS.items()
    for number in range(len(blocks))
    if (page, number) not in TESTED
]


def ran(page: str, number: int = 0) -> dict:
    """The names of a program after it has run."""
    room: dict = {"__name__": "readme"}
    exec(compile(BLOCKS[page][number], page, "exec"), room)
    return room


@pytest.fixture
def yours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `yours` whose data are normalised by the documentation's mean and std."""
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


@pytest.mark.parametrize(("page", "number"), OTHERS)
def test_a_program_runs(page: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    room: dict = {"__name__": "readme"}  # a program may go on from those above it
    for program in BLOCKS[page][: number + 1]:
        exec(compile(program, page, "exec"), room)


def test_the_readme_is_short():
    assert len(PAGES[0].read_text().splitlines()) <= 150


def test_the_table_of_questions_has_every_callback():
    rows = [line for line in PAGES[0].read_text().splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    found = {name: getattr(fulgurite, name) for name in fulgurite.__all__}
    probes = [name for name, own in found.items() if isinstance(own, type) and issubclass(own, ProbeCallback)]
    assert len(probes) > 30
    assert {*probes} - named == {"ProbeCallback"}


LINKED = [
    *PAGES,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs" / "notebooks").glob("*.py")),
]


def anchors(page: Path) -> set[str]:
    """What links can lead to within a page: its headings, as they are written in addresses."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path):
    for file, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", prose(page)):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*bottleneck")
def test_the_first_ten_lines_train_and_show_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert len([line for line in BLOCKS["README.md"][0].splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    room = ran("README.md")
    assert room["trainer"].callback_metrics["val/accuracy"] > 0.8
    tags = {tag for tag, _ in somebody.images(tmp_path / "lightning_logs" / "version_0")}
    assert tags >= {"Saliency", "ClassImages", "Embeddings/pca"}


def test_one_image_and_one_question_give_maps_of_the_shapes_that_stand_beside_them():
    room = ran("attribution.md")
    asked = re.findall(r"^(\w+\(.*\))  # (\[[\d, ]+\])", BLOCKS["attribution.md"][0], re.MULTILINE)
    assert len(asked) == 2
    for words, shape in asked:
        maps = eval(words, room)
        assert list(maps.shape) == ast.literal_eval(shape)
        assert maps.isfinite().all()
        assert maps.std() > 0  # a unit may be inactive, and its map 0


def test_maps_are_shown_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    maps = ran("python.md")["maps"]
    assert [len(own) for own in maps.values()] == [2, 2, 2]
    with Image.open("maps.png") as picture:
        assert min(picture.size) > 2 * 120


def test_an_attack_and_its_sanity_checks_run(capsys):
    room = ran("attacks.md")
    shifts = (room["moved"] - room["images"]).abs()
    assert 0 < shifts.max() <= 8 / 255 + 1e-6
    assert room["report"].stages[-1].name == "PGD"
    assert len(room["checks"]) == 9
    printed = capsys.readouterr().out
    assert "95 % interval" in printed
    assert "stochastic network" in printed


def test_a_strategy_of_your_own_learns_by_its_table():
    groups = ran("finetuning.md")["model"].finetuning.groups(1.0)
    learning = {group["name"]: group["factor"] for group in groups if not group["frozen"]}
    assert learning == {"fc": 1.0, "fc spared": 1.0}


@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval", "ignore:.*bottleneck")
def test_the_callbacks_run_in_your_training(yours: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    simulate(monkeypatch)  # a clock that stands still: the budget leaves nothing out
    assert len(BLOCKS["own_code.md"][0].strip().splitlines()) <= 14
    ran("own_code.md")
    run = tmp_path / "runs" / "lightning_logs" / "version_0"
    assert {tag for tag, _ in somebody.images(run)} >= {"Saliency", "ClassImages", "Embeddings/pca"}


def test_the_probe_of_your_own_runs(tmp_path: Path):
    room = ran("own_probe.md")
    scale = {"mean": somebody.MEAN, "std": somebody.STD}
    trainer = somebody.quiet(
        tmp_path, room["Silence"](on_error="raise", **scale), logger=TensorBoardLogger(tmp_path, "", "")
    )
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    values = somebody.scalars(tmp_path)["Silence/features.2"]
    assert [step for step, _ in values] == [0, 3, 6]
    assert all(0 < value < 1 for _, value in values)
