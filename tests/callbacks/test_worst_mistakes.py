"""Worst mistakes during training: planted wrong labels and duplicates are named by their files."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import somebody
import task_networks
import torch
from drawn_words import words
from torch.utils.data import DataLoader

from fulgurite.callbacks.framework.captions import row_names
from fulgurite.callbacks.framework.image_names import image_names
from fulgurite.callbacks.framework.observation import prepared_network
from fulgurite.callbacks.framework.sample import fetch
from fulgurite.callbacks.framework.session import Session
from fulgurite.callbacks.worst_mistakes import WorstMistakes, gradient_sheet

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


class Planted(somebody.Blobs):
    """Blobs, one of them labelled wrongly, one the copy of another, one of a training image; with files."""

    def __init__(self):
        super().__init__(30)
        self.files = [f"folder/{place:02d}.png" for place in range(30)]
        self.labels = self.labels.clone()
        self.labels[7] = (self.labels[7] + 1) % 3
        self.images[20] = self.images[11]
        self.labels[20] = self.labels[11]
        self.images[25] = somebody.Blobs(24).images[4]
        self.labels[25] = somebody.Blobs(24).labels[4]


@pytest.mark.slow
def test_planted_mistakes_and_duplicates_are_in_the_tables(tmp_path: Path):
    torch.manual_seed(0)
    probe = WorstMistakes(pictures=tmp_path / "pictures", **SCALE)
    logged = []
    compose = probe.compose
    probe.compose = lambda *args: logged.append(compose(*args)) or logged[-1]
    data = DataLoader(Planted(), batch_size=8)
    somebody.quiet(tmp_path, probe, max_epochs=12).fit(somebody.Theirs(), somebody.loader(), data)
    last = logged[-1]
    assert last["worst"].rows[0][0] == "folder/07.png"
    assert last["suspects"].rows[0][0] == "folder/07.png"
    assert last["suspects"].rows[0][1] == "blue"
    assert last["suspects"].rows[0][3] == "green"
    pairs = {tuple(row[:2]) for row in last["duplicates"].rows}
    assert {("folder/11.png", "folder/20.png"), ("folder/25.png", "training image 4")} <= pairs
    assert len(pairs) <= 4
    numbers = somebody.scalars(tmp_path)
    assert numbers["WorstMistakes/mistakes"][-1][1] == len(last["worst"].rows)
    assert ("WorstMistakes", 36) in somebody.images(tmp_path)


@pytest.mark.parametrize("attribute", ["files", "samples", "read"])
def test_images_are_called_by_their_files_also_in_subsets(attribute: str):
    data = somebody.Blobs(12)
    files = [f"{k}.png" for k in range(12)]
    named = {"files": files, "samples": [(file, 0) for file in files], "read": SimpleNamespace(files=files)}
    setattr(data, attribute, named[attribute])
    loader = DataLoader(torch.utils.data.Subset(data, [5, 3, 8, 1]), batch_size=2)
    scale = {"mean": somebody.MEAN, "std": somebody.STD}
    sample = fetch(loader, None, classes=data.classes, device=torch.device("cpu"), **scale)
    assert image_names(sample) == ["5.png", "3.png", "8.png", "1.png"]
    assert image_names(sample[[2, 0]]) == ["8.png", "5.png"]
    bare = fetch(somebody.loader(8), 4, classes=(), device=torch.device("cpu"), **scale)
    assert image_names(bare) == ["0", "2", "4", "6"]


def test_rows_are_called_by_the_shortest_name_that_is_plain():
    data = somebody.Blobs(5)
    data.files = ["in/a/12.npy", "in/b/12.npy", "in/a/13.npy", "in/a/red.npy", "7"]
    loader = DataLoader(data, batch_size=5)
    scale = {"mean": somebody.MEAN, "std": somebody.STD}
    sample = fetch(loader, None, classes=data.classes, device=torch.device("cpu"), **scale)
    assert [*row_names(sample).values()] == ["a/12.npy", "b/12.npy", "a/13.npy", "red", "image 7"]


def test_the_sheet_says_what_its_images_and_marks_are():
    scale = {"mean": somebody.MEAN, "std": somebody.STD}
    sample = fetch(
        somebody.loader(9), 3, classes=("red", "green", "blue"), device=torch.device("cpu"), **scale
    )
    likely = torch.tensor([[0.1, 0.9, 0], [0.8, 0.2, 0], [0.3, 0.3, 0.4]])
    maps = {place: torch.full((12, 12), value) for place, value in enumerate((1.0, 0.5, 0.0))}
    found = words(gradient_sheet([1, 0], maps, likely, sample, blocks=1))
    assert {"image 0", "true red: 10%", "image 3", "pred red: 80%"} <= set(found)
    assert {"gradient of pred", "1", "captions in red: misclassified"} <= set(found)
    assert "gradient of the score of the predicted class" in " ".join(found)
    assert "image 6" not in found


def test_nothing_to_show_is_reported():
    with pytest.raises(ValueError, match="most=0, duplicates_in=1000; wanted at least 1 image"):
        WorstMistakes(most=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (0, "no mistakes: these are the least certain of the correct ones"),
        (2, "2 mistakes; the others are the least certain of the correct ones"),
        (16, None),
    ],
)
def test_correct_images_on_the_sheet_are_called_so(wrong: int, said: str | None):
    model, data = task_networks.Linear(1), task_networks.Dots(task_networks.red)
    data.present[:wrong, 0] = ~data.present[:wrong, 0]
    probe, loader = WorstMistakes(duplicates_in=0, on_error="raise"), DataLoader(data, batch_size=8)
    Session().prepare(probe, task_networks.trainer_for(model, loader), model)
    with prepared_network(probe, model) as network:
        found = probe.compose(
            probe.observe(network, probe.sample, probe.subjects(network, probe.sample)), probe.sample
        )
    assert float(found["mistakes"].value) == wrong
    lines = " ".join(words(found[""].pixels))
    assert (said in lines) if said else ("the correct ones" not in lines)
