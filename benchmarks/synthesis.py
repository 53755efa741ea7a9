"""Quality of class images and inversions on small CIFAR-10 networks, judged by other networks.

python -m benchmarks.synthesis [--quick] [--epochs 20] [--networks FOLDER] [--sheets FOLDER]

FULGURITE_DATA names the folder with CIFAR-10 as JPEG: 5000 images to train on, 1000 to validate. Three
networks are trained by the recipes `folder` and `robust_folder`, 45 s an epoch on one core: a standard one
(A), a twin with another seed (B), and a robust one (R, Madry within an L2 radius of 0.5). With `--networks`
they are saved there, and loaded from there the next time.

A's own confidence is no measure of its images: it is confident of all. The bar: by R's predictions, plain
pixels are the worst, priors and random transforms better, synthesis for robust networks best. After 8 epochs
(accuracy 56 and 46 %) R recognises nearly all of them, and does not order them (docs/results.md).
Costs of a step are in `benchmarks.ascend`, class images of ImageNet in `benchmarks.class_images`.
"""

import argparse
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from lightning.pytorch import Trainer
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.io import write_png
from torchvision.utils import make_grid

from benchmarks.timing import show
from fulgurite.data.folder import Folder
from fulgurite.models.networks import build
from fulgurite.models.weights import load, read
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.class_image_methods import maco, mahendran, robust, yosinski
from fulgurite.probes.synthesis.class_images import class_images, simonyan
from fulgurite.probes.synthesis.inversion import Inversion, invert
from fulgurite.probes.synthesis.optimizers import adam
from fulgurite.recipes import folder, robust_folder

DATA = "cifar10_jpeg_small_5000_1000.zip"
SIDE, SEEDS = 32, 4
LAYERS = ("conv1", "conv2", "conv3", "hidden", "")


def trained(name: str, data: str, kept: Path, epochs: int) -> nn.Module:
    """The network of this name: loaded if it was saved, else trained by its recipe."""
    file = kept / f"{name}_{epochs}_epochs.safetensors"
    network = build("small_vgg", classes=10).eval()
    if not file.exists():
        knobs = {
            "path": data,
            "network": "small_vgg",
            "size": SIDE,
            "epochs": epochs,
            "batch_size": 64,
            "lr": 4e-3,
            "workers": 0,
            "every": 0,
            "seed": int(name == "B"),
        }
        if name == "R":
            recipe = robust_folder.recipe(**{**knobs, "threat": "l2", "radius": 0.5, "steps": 3, "lr": 4e-3})
        else:
            recipe = folder.recipe(**knobs)
        Trainer(
            max_epochs=recipe.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        ).fit(recipe.model, recipe.data)
        kept.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in recipe.network.state_dict().items()}, file)
    load(network, read(file), source=str(file))
    return network


def accuracy(network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]) -> float:
    """The share of images that the network classifies as their class."""
    return float((predict(network, images).argmax(1) == labels).float().mean())


def total_variation_of(images: Float[Tensor, "n c h w"]) -> float:
    """The mean square of differences of neighbouring pixels, times two directions."""
    return sum(float(images.diff(dim=dim).square().mean()) for dim in (2, 3))


def without_priors(
    network: nn.Module,
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    *,
    background: Sequence[float],
    seeds: Sequence[int],
    steps: int,
) -> Float[Tensor, "n c h w"]:
    """Pixels that maximise the class's score and nothing else, from the background and noise."""
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    start = torch.tensor(list(background))[:, None, None] + 0.1 * noise
    return ascend(network, class_score(classes), Pixels(start.clamp(0, 1)), steps=steps, by=adam(0.02))


def methods(
    images: Float[Tensor, "m c h w"], labels: Int[Tensor, "m"], *, steps: int
) -> Mapping[str, Callable[..., Tensor]]:
    """How class images are made, by name."""
    few = {"steps": steps}
    return {
        "pixels without priors": partial(without_priors, **few),
        "simonyan: pixels, L2": partial(simonyan, **few),
        "mahendran: pixels, TV, jitter": partial(mahendran, **few),
        "yosinski: blur": partial(yosinski, **few),
        "fourier, affine (default)": partial(class_images, **few),
        "maco": partial(maco, images=images, **few),
        "robust: PGD from a Gaussian": partial(robust, images=images, labels=labels, **few),
    }


def by_recipe(
    networks: Mapping[str, nn.Module],
    images: Float[Tensor, "m c h w"],
    labels: Int[Tensor, "m"],
    sheets: Path | None,
    *,
    quick: bool,
) -> list[list[object]]:
    """A line for each method of class images: predictions of A, B and R for A's images; R's own last."""
    classes = torch.arange(10).repeat(1 if quick else SEEDS)
    background = images.mean((0, 2, 3)).tolist()
    rows = list[list[object]]()
    for made_with in ("A", "R"):
        for name, method in methods(images, labels, steps=16 if quick else 128).items():
            if made_with == "R" and not name.startswith(("robust", "fourier")):
                continue
            seeds = torch.arange(len(classes)).tolist()
            found = method(networks[made_with], classes, (3, SIDE, SIDE), background=background, seeds=seeds)
            if sheets is not None:
                drawn(found[:10], sheets / f"{made_with}_{name.split(':')[0].split(',')[0]}.png")
            shares = [accuracy(network, found, classes) for network in networks.values()]
            certain = predict(networks["R"], found).softmax(1).gather(1, classes[:, None]).median().item()
            rows.append([made_with, name, *shares, certain, total_variation_of(found)])
    return rows


def by_layer(
    networks: Mapping[str, nn.Module], images: Float[Tensor, "n c h w"], sheets: Path | None, *, quick: bool
) -> list[list[object]]:
    """A line for each layer: relative error and PSNR of inversions from A and from R, and R's lead in dB."""
    rows = list[list[object]]()
    for layer in LAYERS:
        found = {
            name: invert(networks[name], images, layer, seeds=[0], steps=30 if quick else 300)
            for name in ("A", "R")
        }
        cells = [cell for inversion in found.values() for cell in numbers(inversion)]
        rows.append([layer or "logits", *cells, cells[3] - cells[1]])
        if sheets is not None:
            both = torch.cat([images, *(inversion.images[0] for inversion in found.values())])
            drawn(both, sheets / f"inverted_{layer or 'logits'}.png", len(images))
    return rows


def numbers(inversion: Inversion) -> tuple[float, float]:
    """Relative error in percent, and PSNR in dB."""
    means = inversion.means()
    return 100 * means["relative_error"], means["psnr"]


def drawn(images: Float[Tensor, "n c h w"], file: Path, columns: int = 10) -> None:
    """A sheet of images, three times enlarged."""
    file.parent.mkdir(parents=True, exist_ok=True)
    large = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    large = large.repeat_interleave(3, 2).repeat_interleave(3, 3)
    write_png(make_grid(large, nrow=columns, padding=3), str(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two epochs and few steps: does it run")
    parser.add_argument("--epochs", type=int, help="of each network; 20 without it")
    parser.add_argument("--networks", type=Path, help="a folder to keep the networks in")
    parser.add_argument("--sheets", type=Path, help="a folder for pictures")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as own:
        with zipfile.ZipFile(Path(os.environ["FULGURITE_DATA"]) / DATA) as archive:
            archive.extractall(own)
        if (Path(own) / "test").exists():
            (Path(own) / "test").rename(Path(own) / "val")
        data = Folder(own, size=SIDE, augment=False)
        data.setup("fit")
        kept = args.networks or Path(own) / "networks"
        epochs = args.epochs or (2 if args.quick else 20)
        networks = {name: trained(name, own, kept, epochs) for name in "ABR"}
        images, labels = (torch.cat(part) for part in zip(*data.val_dataloader(), strict=True))
    shares = {name: accuracy(network, images, labels) for name, network in networks.items()}
    accuracies = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    head = ["made with", "class images", "A right", "B right", "R right", "R's median p", "TV a pixel"]
    rows = by_recipe(networks, images, labels, args.sheets, quick=args.quick)
    natural = total_variation_of(images)
    show(
        f"Class images of CIFAR-10, 32 px; accuracy {accuracies}; photographs' variation {natural:.3f}",
        head,
        rows,
    )
    head = ["inverted from", "A: error %", "A: PSNR", "R: error %", "R: PSNR", "R above A, dB"]
    show(
        f"Inversions of eight images, {30 if args.quick else 300} passes; bars, of 300: conv1 below 1 % and "
        "above 40 dB, R 2 dB above A in the deeper half",
        head,
        by_layer(
            networks,
            images[:8] if args.quick else images[:: len(images) // 8][:8],
            args.sheets,
            quick=args.quick,
        ),
    )


if __name__ == "__main__":
    main()
