"""Image grids during training: what is logged and kept, and what is refused."""

from pathlib import Path

import pytest
import somebody
import torch
from drawn_words import words
from torch import nn

from fulgurite.callbacks.embeddings import Embeddings
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.image_grid import ImageGrid

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


def fitted(folder: Path, probe: ProbeCallback, **options) -> None:
    torch.manual_seed(0)
    somebody.quiet(folder, probe, **options).fit(somebody.Theirs(), somebody.loader(), somebody.loader(24))


def test_each_epoch_has_a_map_a_grid_and_their_quality(tmp_path: Path):
    probe = ImageGrid(**SCALE)
    fitted(tmp_path, probe)
    pictures, numbers = somebody.images(tmp_path), somebody.scalars(tmp_path)
    for name in ("map", "grid"):
        assert {(f"ImageGrid/{name}", step) for step in (0, 3, 6)} <= set(pictures)
    assert all(0 < value <= 1 for _, value in numbers["ImageGrid/trustworthiness"])
    assert len(numbers["ImageGrid/neighbours kept"]) == 3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [ImageGrid, Embeddings])
def test_a_map_begins_with_the_last_one_and_stays_where_codes_do(tmp_path: Path, kind, seed):
    torch.manual_seed(seed)
    # nothing is learnt, so that codes stay as they are
    probe = kind(**SCALE)
    module = somebody.Theirs(frozen=True)
    nn.init.zeros_(module.head.weight)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.0)
    somebody.quiet(tmp_path, probe, max_epochs=1).fit(module, somebody.loader(), somebody.loader(24))
    first, last = probe.memory.first["map"], probe.memory.last["map"]
    size = float((first.amax(0) - first.amin(0)).amax())
    assert float((first - last).norm(dim=1).mean()) < 0.1 * size


def test_without_four_images_it_stays_out_of_the_training(tmp_path: Path, caplog):
    somebody.quiet(tmp_path, ImageGrid(**{**SCALE, "on_error": "warn"}), max_epochs=1).fit(
        somebody.Theirs(), somebody.loader(), somebody.loader(3)
    )
    assert "ImageGrid stays out: 3 images on a grid; wanted at least 4" in caplog.text
    assert not [tag for tag, _ in somebody.images(tmp_path) if tag.startswith("ImageGrid")]


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"images": 3}, "3 images on a grid; wanted 4 to 1600"),
        ({"layer": "haed"}, "no layer 'haed' in Theirs"),
    ],
)
def test_what_fits_no_grid_ends_training_before_it_starts(wanted, complaint, tmp_path: Path):
    with pytest.raises(ValueError, match=complaint):
        fitted(tmp_path, ImageGrid(**wanted, **SCALE))


def test_classes_without_names_stand_in_the_legend_by_their_numbers():
    labels = torch.arange(12) % 3 + 4
    sample = Sample(torch.rand(12, 3, 4, 4), labels, (), torch.device("cpu"))
    found = Embeddings().compose({"000000": torch.randn(12, 5)}, sample)
    assert {"4", "5", "6"} <= {word for line in words(found["pca"].pixels) for word in line.split()}
