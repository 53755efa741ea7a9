"""Every callback under LightningCLI: by class_path and init_args, as a YAML file has them."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import somebody
import torch
from every_probe import every_probe
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.saliency import Saliency
from fulgurite.callbacks.stylizer_outputs import Stylized
from fulgurite.models.classifier import Classifier

pytestmark = pytest.mark.filterwarnings("ignore:(?s).*deprecat")  # jsonargparse's, of LightningCLI
KINDS = sorted({type(probe) for probe in every_probe()} | {Stylized}, key=lambda kind: kind.__name__)
EVERYWHERE = {
    "every": 2,
    "images": 3,
    "mean": [0.5],
    "std": [0.2],
    "budget": 0.1,
    "theme": "light",
    "seed": 1,
}
THREAT = {"class_path": "fulgurite.Linf", "init_args": {"radius": "8/255"}}
CUES = {"class_path": f"{__name__}.Cues"}
REQUIRED = {
    "AdversarialExamples": {"threat": THREAT},
    "Robustness": {"threat": THREAT},
    "ShapeBias": {"data": CUES},
    "SplitAccuracy": {"data": {"others": CUES}},
}


class Cues(TensorDataset):
    """Images that say which class their texture is of."""

    def __init__(self) -> None:
        super().__init__(torch.rand(6, 3, 12, 12), torch.arange(6) % 3)

    def cue_labels(self, indices: list[int]) -> torch.Tensor:
        return (self.tensors[1][list(indices)] + 1) % 3


class Images(pl.LightningDataModule):
    """A user's data."""

    def train_dataloader(self) -> DataLoader:
        return somebody.loader()

    def val_dataloader(self) -> DataLoader:
        return somebody.loader(12)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_callback_is_what_its_class_path_and_init_args_say(kind: type[ProbeCallback]):
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=pl.Callback)
    options = EVERYWHERE | {"name": "mine", "on_error": "raise"} | REQUIRED.get(kind.__name__, {})
    asked = {"class_path": f"fulgurite.{kind.__name__}", "init_args": options}
    probe = parser.instantiate_classes(parser.parse_object({"callback": asked})).callback
    assert type(probe) is kind
    assert (probe.every, probe.images, probe.mean, probe.theme) == (2, 3, [0.5], "light")
    assert (probe.seed, probe.name, probe.on_error, probe.budget.share) == (1, "mine", "raise", 0.1)


YAML = """
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: {folder}
  callbacks:
    - class_path: fulgurite.Saliency
      init_args: {{images: 3, mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3], on_error: raise}}
    - class_path: fulgurite.Metrics
      init_args: {{theme: light, mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3], on_error: raise}}
"""


def test_a_fit_by_a_yaml_file_shows_what_its_callbacks_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "fit.yaml").write_text(YAML.format(folder=tmp_path))
    monkeypatch.setattr("sys.argv", ["train.py", "fit", "--config", str(tmp_path / "fit.yaml")])
    cli = LightningCLI(somebody.Theirs, Images, save_config_callback=None, seed_everything_default=0)
    assert sum(isinstance(own, Saliency) for own in cli.trainer.callbacks) == 1
    pictures = tmp_path / "probes" / "0" / "pictures"
    assert {file.parent.name for file in pictures.rglob("*.png")} >= {"Saliency", "confusion", "film"}


class Coloured(torch.nn.Sequential):
    """A user's network."""

    def __init__(self, width: int = 2) -> None:
        super().__init__(torch.nn.AvgPool2d(6), torch.nn.Flatten(), torch.nn.Linear(12, width))


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("subclass", [False, True])
def test_a_classifier_can_be_resumed_and_rebuilt_from_its_checkpoint(
    subclass: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    quiet = ["logger=false", "enable_progress_bar=false", "enable_model_summary=false", "accelerator=cpu"]
    words = ["fit", *["--model=fulgurite.Classifier"][:subclass], f"--model.network={__name__}.Coloured"]
    words += ["--model.network.width=3", "--model.classes=3", "--model.lr=0.02"]
    words += [f"--trainer.{word}" for word in quiet]

    def fitted(epochs: int, *more: str) -> LightningCLI:
        own = [f"--trainer.max_epochs={epochs}", f"--trainer.default_root_dir={tmp_path / str(epochs)}"]
        monkeypatch.setattr("sys.argv", ["train.py", *words, *own, *more])
        how = {"save_config_callback": None, "seed_everything_default": 0}
        return LightningCLI(Classifier, Images, subclass_mode_model=subclass, **how)

    first = fitted(1).trainer.checkpoint_callback.best_model_path
    cli = fitted(2, f"--ckpt_path={first}")
    assert cli.trainer.global_step == 6
    again = Classifier.load_from_checkpoint(first)
    assert isinstance(again.network, Coloured)
    assert (again.lr, again.classes, again.network[2].out_features) == (0.02, 3, 3)
