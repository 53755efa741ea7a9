"""Time of ten class images: one batch of ours, the bare passes they need, and ten calls of Lucent.

python -m benchmarks.ascend [--quick] [--threads N ...]      needs `python -m benchmarks.peers`

On one thread, and on all: networks are faster on a second thread, small operations are not. The bare passes
run the network as built; ours uses channels-last memory format while it runs.
"""

import argparse
import copy
import warnings
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.peers import missing
from benchmarks.timing import in_turn, show
from fulgurite.models.networks import build
from fulgurite.probes.synthesis.class_images import class_images

CLASSES = 10
CASES = (  # network, its classifier in Lucent's names, channels, size; Lucent makes colour images only
    ("small_vgg", None, 1, 32),
    ("small_vgg", "classifier", 3, 32),
    ("resnet18_3x3", "fc", 3, 32),
    ("torchvision/resnet18", "fc", 3, 64),
)


def bare(network: nn.Module, shape: tuple[int, int, int], steps: int) -> None:
    """Forward and backward to ten images, nothing else; the parameters are frozen."""
    images = torch.rand(CLASSES, *shape).requires_grad_()
    for _ in range(steps):
        torch.autograd.grad(network(images).diagonal().sum(), images)


def ours(network: nn.Module, shape: tuple[int, int, int], steps: int) -> None:
    class_images(network, torch.arange(CLASSES), shape, background=[0.5] * shape[0], steps=steps)


def lucent(network: nn.Module, head: str, size: int | None, steps: int) -> None:
    """Ten calls of `render_vis`, with only jitter at our size, or with its defaults, which enlarge to 224."""
    from lucent.optvis import param, render, transform  # pyright: ignore[reportMissingImports]

    equal: dict[str, Any] = {}
    if size:
        equal = {"transforms": [transform.jitter(2)], "preprocess": False, "fixed_image_size": size}
    for k in range(CLASSES):
        render.render_vis(
            copy.deepcopy(network),  # it leaves its hooks behind
            f"{head}:{k}",
            param_f=lambda: param.image(size or 128),
            thresholds=(steps,),
            progress=False,
            show_image=False,
            **equal,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer steps, repeats and peers")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, torch.get_num_threads()], help="of torch"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    for threads in dict.fromkeys(args.threads):
        torch.set_num_threads(threads)
        peers = not args.quick or threads == args.threads[0]
        for case in CASES:
            rows += [[threads, *row] for row in compared(*case, quick=args.quick, peers=peers)]
    head = ["threads", "network and images", "ten class images by", "ms a step", "x bare", "x ours"]
    show("Ten class images; bars: ours at most 1.2 x bare, lucent at least 3 x ours", head, rows)


def compared(
    name: str, head: str | None, channels: int, size: int, *, quick: bool, peers: bool
) -> list[list]:
    """The rows of one network: the passes alone, ours, and Lucent if it supports the channels."""
    steps, repeats = (8 if quick and "resnet" in name else 64), (3 if quick else 9)
    shape = (channels, size, size)
    network = build(name, classes=CLASSES, channels=channels).eval()
    frozen = copy.deepcopy(network).requires_grad_(False)
    contestants = {
        "bare passes": partial(bare, frozen, shape, steps),
        "ours": partial(ours, network, shape, steps),
        "bare passes again": partial(bare, frozen, shape, steps),
    }
    seconds = in_turn(contestants, repeats=repeats)
    bottom = (seconds.pop("bare passes again") + seconds["bare passes"]) / 2
    if head and peers and (lack := missing("lucent")):
        print(f"{name}: {lack}")
    elif head and peers:
        few = 2 if quick else 4
        others = {"lucent, our size and jitter": partial(lucent, network, head, size, few)}
        if not quick:
            others["lucent, its defaults (224 px)"] = partial(lucent, network, head, None, few)
        found = in_turn(others, repeats=1 if quick else 3)
        seconds |= {who: value * steps / few for who, value in found.items()}
    what = f"{name}, {channels} x {size} x {size}"
    return [
        [what, who, 1000 * value / steps, value / bottom, value / seconds["ours"]]
        for who, value in seconds.items()
    ]


if __name__ == "__main__":
    main()
