"""Hashes of results of probes, attacks and trainings at a fixed seed, to compare two commits bit for bit.

Run it at either commit and compare the lines: python -m benchmarks.output_hashes > before.txt
"""

import hashlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from fulgurite.models.networks import build
from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import L1, L2, Linf
from fulgurite.probes.attribution.methods import METHODS, OF_ATTENTION, attribute
from fulgurite.probes.objectives import class_score, unit
from fulgurite.probes.representation.similarity import cka
from fulgurite.probes.synthesis.class_images import class_images, simonyan

KNOBS = {"draws": 4, "steps": 4, "masks": 20, "samples": 40, "segments": 12, "window": 12, "stride": 8}
RUNS = (
    "fit digits --epochs 2 --every 1",
    "fit robust_digits --epochs 2 --every 0",
    "fit finetune_digits --source_epochs 2 --epochs 2 --every 0",
)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for results in (maps(), attacks(), synthesis(), trained()):
        for name, values in results:
            print(f"{digest(values)}  {name}", flush=True)


def maps() -> Iterator[tuple[str, Tensor]]:
    for network, side in (("small_vgg", 32), ("torchvision/resnet18", 64)):
        torch.manual_seed(0)
        net, images = build(network, classes=10), torch.rand(3, 3, side, side)
        args = [class_score(torch.tensor([3, 7, 1])), class_score(2)]
        for method in METHODS.keys() - OF_ATTENTION:
            if method == "cam" and network == "small_vgg":
                continue  # its head does not average feature maps
            torch.manual_seed(1)
            yield f"{network} {method}", attribute(method, net, images, args, **KNOBS)
    yield "unit", attribute("guided_backprop", net, images, unit("layer2", 5))
    yield "cka", torch.tensor(cka(images.view(9, -1), images.view(9, -1)[:, ::7]))


def attacks() -> Iterator[tuple[str, Tensor]]:
    torch.manual_seed(0)
    net, images, labels = build("small_vgg", classes=10), torch.rand(8, 3, 32, 32), torch.arange(8)
    few: dict[Callable[..., Tensor], dict[str, int]] = {
        fgsm: {},
        pgd: {"steps": 5, "restarts": 2},
        apgd: {"steps": 8},
        fab: {"steps": 6},
        square: {"queries": 40},
    }
    for threat in (Linf("4/255"), L2(0.5), L1(8.0)):
        for attack, knobs in few.items():
            torch.manual_seed(1)
            yield f"{attack.__name__} {threat}", attack(net, images, labels, threat, **knobs)


def synthesis() -> Iterator[tuple[str, Tensor]]:
    torch.manual_seed(0)
    net = build("small_vgg", classes=10, channels=1)
    for method in (class_images, simonyan):
        yield method.__name__, method(net, torch.arange(4), (1, 32, 32), background=[0.0], steps=8)


def trained() -> Iterator[tuple[str, Tensor]]:
    for words in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            command(*words.split(), "--folder", f"{folder}/run", "--trainer.enable_progress_bar", "false")
            state = torch.load(Path(folder, "run/checkpoints/last.ckpt"), weights_only=True)
            yield words, torch.cat([value.flatten().double() for value in state["state_dict"].values()])


def command(*words: str) -> None:
    """The command, in either location of its package; its output is discarded."""
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        status = import_module("fulgurite.cli.command").main(words)
    finally:
        sys.stdout = out
    if status:
        raise SystemExit(f"{' '.join(words)}: exit status {status}")


def digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().contiguous().numpy().tobytes()).hexdigest()[:16]


if __name__ == "__main__":
    main()
