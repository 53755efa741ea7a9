"""Short runs of the recipe finetune, each in its own folder."""

from pathlib import Path

import torch
from PIL import Image

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SMALL = {"size": 8, "per_class": 4, "source_epochs": 1, "epochs": 3, "every_stage": 1, "batch_size": 8}


def words(**knobs) -> list[str]:
    return [word for name, value in knobs.items() for word in (f"--{name}", str(value))] + QUIET


def last(run: str) -> dict:
    return torch.load(Path(run) / "checkpoints" / "last.ckpt", weights_only=True)


def pictures(folder: Path, count: int = 8, channels: int = 3) -> Path:
    """Two classes that differ in brightness, each picture with its own noise."""
    generator = torch.Generator().manual_seed(0)
    for place, name in enumerate(("dark", "light")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = torch.randint(60, (40, 40, channels), generator=generator)
            image = (noise + 120 * place).to(torch.uint8).squeeze(-1).numpy()
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder
