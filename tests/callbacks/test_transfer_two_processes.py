"""Weight change and linear probes of stages are the same in two processes as in one."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
import somebody
import torch
import torch.nn.functional as F
from processes import two_of
from torch import nn

from fulgurite.callbacks.transfer import Drift, StageProbes

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


def scalars(folder: Path) -> dict[str, list[float]]:
    return {tag: [value for _, value in values] for tag, values in somebody.scalars(folder).items()}


class Shrinking(somebody.Theirs):
    """Learns nothing: its weights decay, the same in any number of processes."""

    def __init__(self):
        super().__init__()
        self.features[1] = nn.Identity()

    def training_step(self, batch, _):
        return 0 * F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, weight_decay=0.5)


def main(folder: Path, processes: int) -> None:
    torch.manual_seed(0)
    probes = [kind(images=300, on_error="raise", **SCALE) for kind in (Drift, StageProbes)]
    strategy = {"strategy": "ddp", "devices": processes} if processes > 1 else {"devices": 1}
    trainer = somebody.quiet(folder, *probes, limit_train_batches=2, **strategy)
    trainer.fit(Shrinking(), somebody.loader(300), somebody.loader(300))


@pytest.mark.slow
@pytest.mark.ranks
def test_two_processes_see_what_one_sees(tmp_path: Path):
    done = two_of(__file__, tmp_path / "two", 2)
    assert done.returncode == 0, done.stderr
    main(tmp_path / "one", 1)
    one, two = scalars(tmp_path / "one"), scalars(tmp_path / "two")
    looked = [tag for tag in one if tag.startswith(("Drift/", "StageProbes/"))]
    assert len(looked) >= 6
    for tag in looked:
        assert two[tag] == pytest.approx(one[tag], abs=1e-5), tag
    # four steps, each a twentieth shorter
    assert one["Drift/moved/head"][-1] == pytest.approx(1 - 0.95**4, rel=1e-5)
    pictures = somebody.images(tmp_path / "one")
    assert pictures.keys() == somebody.images(tmp_path / "two").keys()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
