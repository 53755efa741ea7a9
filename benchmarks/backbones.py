"""Six small networks ranked for ants and bees without training, and all of them measured.

python -m benchmarks.backbones [--quick] [--size N]

Needs FULGURITE_DATA, a folder with the photographs, SqueezeNet's weights and a small CIFAR-10. The networks:
SqueezeNet trained on ImageNet, two networks trained on CIFAR-10, one trained on shapes, and two that are
untrained. H-Score and LogME rank them; accuracy is that of a logistic classifier of the features, in three
folds.
"""

import argparse
import os
import tempfile
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from fulgurite.cli.advise_networks import rank_networks
from fulgurite.data.folder import Folder
from fulgurite.data.shapes import Shapes
from fulgurite.models.networks import build
from fulgurite.recipes.transfer import seeded

PHOTOGRAPHS, CIFAR = "hymenoptera_short256_q85.zip", "cifar10_jpeg_small_5000_1000.zip"
SQUEEZENET = "squeezenet1_0_imagenet_fp16.safetensors"


def sources(folder: Path, place: Path, *, quick: bool) -> list[str]:
    """The six networks with their weights, as values of `--networks`."""
    epochs = 1 if quick else 8
    zipfile.ZipFile(folder / CIFAR).extractall(place / "cifar")
    cifar = Folder(str(place / "cifar" / "train"), size=32, augment=False, batch_size=64, workers=0)
    shapes = Shapes(classes=10, size=32, channels=3, images=500 if quick else 3000, held_out=100)
    known = {"cifar": held(cifar), "shapes": held(shapes)}
    taught = {
        "cifar all_conv": taught_by(known["cifar"], "all_conv", epochs),
        "cifar small_vgg": taught_by(known["cifar"], "small_vgg", epochs),
        "shapes small_vgg": taught_by(known["shapes"], "small_vgg", epochs),
        "nothing torchvision/resnet18": taught_by(known["cifar"], "torchvision/resnet18", 0),
        "nothing small_vgg": taught_by(known["cifar"], "small_vgg", 0),
    }
    names = [f"torchvision/squeezenet1_0={folder / SQUEEZENET}"]
    for name, state in taught.items():
        task, network = name.split(" ")
        file = place / f"{task}_{network.replace('/', '_')}.safetensors"
        save_file(state, file)
        names.append(f"{network}={file}")
    return names


def held(data: Folder | Shapes) -> tuple[Tensor, Tensor]:
    data.setup()
    parts = list(torch.utils.data.DataLoader(data.train, 64, collate_fn=data.train.collate))
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def taught_by(known: tuple[Tensor, Tensor], name: str, epochs: int) -> dict[str, Tensor]:
    """The weights of a network trained on these images, mirrored at random."""
    seeded(0)
    images, labels = known
    network = build(name, classes=int(labels.max()) + 1, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    count = max(1, epochs * -(-len(images) // 64))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            batch = images[rows].flip(-1) if torch.rand(()) < 0.5 else images[rows]
            optimizer.zero_grad()
            F.cross_entropy(network(batch), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return {name: value.clone().contiguous() for name, value in network.state_dict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="sources that have learnt for an epoch")
    parser.add_argument("--size", type=int, default=128, help="of the photographs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(os.environ.get("FULGURITE_DATA", ""))
    if not (folder / PHOTOGRAPHS).is_file():
        print(f"no {PHOTOGRAPHS} where FULGURITE_DATA points")
        return
    with tempfile.TemporaryDirectory() as place:
        zipfile.ZipFile(folder / PHOTOGRAPHS).extractall(Path(place) / "photographs")
        networks = sources(folder, Path(place), quick=args.quick)
        photographs = str(Path(place) / "photographs")
        found = rank_networks(
            path=photographs, networks=",".join(networks), size=args.size, measured=len(networks)
        )
        print("\n".join(found.lines()).replace(f"{place}/", "").replace(f"{folder}/", ""))


if __name__ == "__main__":
    main()
