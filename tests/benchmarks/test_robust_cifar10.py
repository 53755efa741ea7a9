"""Robust CIFAR-10 from end to end on a small scale: files, training, best weights, AutoAttack, the table."""

from pathlib import Path

import pytest
import torch

from benchmarks.robust_cifar10 import PUBLISHED, SMALL, WAYS, rows_of
from fulgurite.probes.render import write


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The `.*dataloader` does not have many workers")
def test_files_become_a_row_beside_the_published_ones(tmp_path: Path):
    for part, count in (("train", 12), ("test", 1)):
        for place, name in enumerate(("cat", "dog", "frog", "ship")):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                image = torch.full((3, 32, 32), 60 * place + number, dtype=torch.uint8)
                write(image, tmp_path / part / name / f"{number}.png")
    rows = rows_of(tmp_path, {"fast": {**WAYS["fast"], **SMALL, "batch_size": 16}}, images=2)
    (who, way, clean, robust, minutes), *others = rows
    assert (who, way) == ("ours, JPEG, n=2", "fast")
    assert 0 <= robust <= clean <= 100
    assert 0 < minutes < 1
    assert [row[:4] for row in others] == PUBLISHED
