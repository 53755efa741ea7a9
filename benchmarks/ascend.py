"""What ten class images cost: ours in one batch, the bare passes they need, and Lucent called ten times.

python -m benchmarks.ascend [--quick] [--threads N]      needs `pip install torch-lucent`

On one thread unless told: a network gains by a second one, what is small does not; on two threads and a small
network, ours is farther from the bare passes (about 1.3 x, where it is 1.1 x on one).
"""

import argparse
import copy
import warnings
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from benchmarks.timing import in_turn, show
from fulgurite.models.networks import build
from fulgurite.probes.synthesis.class_images import class_images

CLASSES = 10
CASES = (  # network, its classifier as Lucent names it, channels, size; Lucent paints in colour only
    ("small_vgg", None, 1, 32),
    ("resnet18_3x3", "fc", 3, 32),
    ("torchvision/resnet18", "fc", 3, 64),
)


def bare(network: nn.Module, shape: tuple[int, int, int], steps: int) -> None:
    """Forward and backward to ten images, nothing else; the parameters are frozen."""
    images = torch.rand(CLASSES, *shape).requires_grad_()
    for _ in range(steps):
        torch.autograd.grad(network(images).diagonal().sum(), images)


def ours(network: nn.Module, shape: tuple[int, int, int], steps: int) -> None:
    class_images(network, torch.arange(CLASSES), shape, ground=[0.5] * shape[0], steps=steps)


def lucent(network: nn.Module, head: str, size: int | None, steps: int) -> None:
    """Ten calls of `render_vis`, jitter alone at our size, or its defaults, which enlarge to 224."""
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
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer steps and repeats")
    default = 1
    parser.add_argument("--threads", type=int, default=default, help=f"of torch; {default}")
    asked = parser.parse_args()
    quick = asked.quick
    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore")
    steps, repeats = (32, 3) if quick else (64, 9)
    rows = []
    for name, head, channels, size in CASES:
        shape = (channels, size, size)
        network = build(name, classes=CLASSES, channels=channels).eval()
        frozen = copy.deepcopy(network).requires_grad_(False)
        contestants = {
            "bare passes": partial(bare, frozen, shape, steps),
            "ours": partial(ours, network, shape, steps),
            "bare passes again": partial(bare, frozen, shape, steps),
        }
        seconds = in_turn(contestants, repeats=repeats)
        few = max(2, steps // 8)
        if head and find_spec("lucent") is None:
            print(f"no Lucent beside {name}: pip install torch-lucent")
        elif head:
            peers = {"lucent, our size and jitter": partial(lucent, network, head, size, few)}
            if not quick:
                peers["lucent, its defaults (224 px)"] = partial(lucent, network, head, None, few)
            seconds |= {
                who: value * steps / few for who, value in in_turn(peers, repeats=1 if quick else 3).items()
            }
        bottom = (seconds.pop("bare passes again") + seconds["bare passes"]) / 2
        for who, value in seconds.items():
            what = f"{name}, {channels} x {size} x {size}"
            rows.append([what, who, 1000 * value / steps, value / bottom, value / seconds["ours"]])
    head_row = ["network and images", "ten class images by", "ms a step", "x bare", "x ours"]
    title = f"Ten class images, {steps} steps; bars: ours at most 1.2 x bare, lucent at least 3 x ours"
    show(title, head_row, rows)


if __name__ == "__main__":
    main()
