"""Transfer of adversarial images between five networks for CIFAR-10.

python -m benchmarks.attack_transfer [--quick] [--networks FOLDER] [--threads N]

Needs FULGURITE_DATA, a folder with CIFAR-10 as JPEGs. Five networks of different architectures are trained
on its 50,000 images by the recipe cifar10 (40 minutes on one core), and attacked on 500 test images by PGD
of 20 steps within 8/255 in Linf; a cell is the share of the images that the target classifies correctly when
clean, but not when attacked. Then the same by MI-FGSM with input diversity, and for each target on the four
other networks together. The quick form trains on the small set of 5000 images.

Bars: each network is fooled by all of its own images; and by those of each other network more often than by
random noise of the same size, by more than the 95 % interval of the difference on the same images.
"""

import argparse
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.timing import show
from fulgurite.data.folder_in_memory import FolderInMemory
from fulgurite.models.networks import build
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.attacks.transferable_attacks import diverse
from fulgurite.probes.robustness.transfer_matrix import TransferMatrix, transfer_matrix
from fulgurite.recipes import cifar10
from fulgurite.recipes.advice import ahead
from fulgurite.recipes.quick_fit import quick_fit, quiet
from fulgurite.recipes.recipe import classifier_of

CIFAR, SMALL_CIFAR = "cifar10_jpeg_imagefolder.tar.xz", "cifar10_jpeg_small_5000_1000.zip"
THREAT = Linf("8/255")
NETWORKS = {
    "small_vgg": 12,
    "all_conv": 6,
    "small_cnn": 12,
    "strided_cnn": 20,
    "torchvision/shufflenet_v2_x0_5": 6,
}
"""With the epochs after which its own images fool each: with fewer, a few images withstand."""
ATTACKS = {
    "PGD-20": partial(pgd, steps=20),
    "MI-FGSM with input diversity": diverse(partial(pgd, steps=10, momentum=1.0, start="image")),
}


def taught(place: Path, kept: Path | None, *, quick: bool) -> dict[str, nn.Module]:
    """The networks, trained on the images there, or with saved weights."""
    return {
        name: _taught(name, place, kept, epochs=1 if quick else epochs) for name, epochs in NETWORKS.items()
    }


def _taught(name: str, place: Path, kept: Path | None, *, epochs: int) -> nn.Module:
    file = None if kept is None else kept / f"{name.replace('/', '_')}.safetensors"
    if file is not None and file.is_file():
        return build(name, classes=10, weights=file).eval()
    with quiet():
        how: dict[str, Any] = {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01, "batch_size": 64}
        recipe = cifar10.recipe(files=str(place), network=name, epochs=epochs, workers=0, every=0, **how)
        fitted = quick_fit(recipe, part="test")
    network = classifier_of(recipe).network.eval()
    print(f"{name}: {fitted.accuracy:.1%} of the test images, {fitted.seconds:.0f} s", flush=True)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, file)
    return network


def test_images(place: Path, count: int) -> tuple[Tensor, Tensor]:
    """This many of the test images, spread evenly over all."""
    *_, test = FolderInMemory(place, augment=False).parts()
    step = len(test) // count
    return test.images[::step].float() / 255, test.labels[::step]


def matrix_rows(found: TransferMatrix) -> list[list]:
    """In percent: clean accuracy, each source, and noise."""
    rows: list[list] = [["clean accuracy", *(100 * share for share in found.clean())]]
    for name, shares in zip(found.sources, found.success(), strict=True):
        rows.append([name, *(100 * share for share in shares)])
    return rows


def bars(found: TransferMatrix) -> list[str]:
    """Whether each network is fooled by its own images, and by those of the others more than by noise."""
    own = {name: found.success()[place][place] for place, name in enumerate(found.names)}
    weakest = min(own, key=own.__getitem__)
    above = {
        f"{source} to {target}": ahead(*(found.fooled[row, column][found.right[column]] for row in (k, -1)))
        for k, source in enumerate(found.names)
        for column, target in enumerate(found.names)
        if k != column
    }
    least = min(above, key=lambda pair: above[pair].low)
    return [
        f"its own images fool {weakest} in {own[weakest]:.1%}; bar: 100 %: "
        f"{'met' if own[weakest] == 1 else 'missed'}",
        f"of {len(above)} pairs the least above noise, {least}: {100 * above[least].mean:+.1f} ± "
        f"{100 * above[least].half:.1f} points; bar: above 0 by more than the interval: "
        f"{'met' if above[least].low > 0 else 'missed'}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one epoch of 5000 images, 100 test images")
    parser.add_argument("--networks", type=Path, help="a folder where trained networks are kept")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = Path(os.environ.get("FULGURITE_DATA", ""))
    archive = folder / (SMALL_CIFAR if args.quick else CIFAR)
    if not archive.is_file():
        parser.error(f"no {archive.name} where FULGURITE_DATA points")
    with tempfile.TemporaryDirectory() as found:
        place = Path(found)
        if args.quick:
            zipfile.ZipFile(archive).extractall(place)
        else:
            with tarfile.open(archive) as images_of_all:
                images_of_all.extractall(place, filter="data")
        networks = taught(place, args.networks, quick=args.quick)
        images, labels = test_images(place, 100 if args.quick else 500)
    report(networks, images, labels)


def report(networks: Mapping[str, nn.Module], images: Tensor, labels: Tensor) -> None:
    """Print a table for each attack, and the bars of the first."""
    for name, attack in ATTACKS.items():
        found = _matrix(networks, images, labels, attack, ensemble=name != "PGD-20")
        show(
            f"{name} within 8/255 on {len(images)} test images: sources by row, targets by column; % fooled",
            ["source", *found.names],
            matrix_rows(found),
        )
        if name == "PGD-20":
            print("\n" + "\n".join(bars(found)))


def _matrix(
    networks: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    attack: Callable[..., Tensor],
    *,
    ensemble: bool,
) -> TransferMatrix:
    return transfer_matrix(networks, images, labels, THREAT, attack, ensemble=ensemble)


if __name__ == "__main__":
    main()
