"""What ten class images cost: ours in one batch, the passes they cannot do without, and Lucent called ten times.

python -m benchmarks.ascend [--quick]      needs `pip install torch-lucent`
"""

import argparse
import copy
import warnings

import torch
from torch import nn

from benchmarks.timing import in_turn, show
from fulgurite.models.networks import build
from fulgurite.probes.synthesis.class_images import class_images

CLASSES = 10
GROUND = [0.5] * 3


def bare(network: nn.Module, size: int, steps: int) -> None:
    """Forward and backward to ten images, nothing else; the parameters are frozen."""
    images = torch.rand(CLASSES, 3, size, size).requires_grad_()
    for _ in range(steps):
        torch.autograd.grad(network(images).diagonal().sum(), images)


def ours(network: nn.Module, size: int, steps: int) -> None:
    class_images(network, torch.arange(CLASSES), (3, size, size), ground=GROUND, steps=steps)


def lucent(network: nn.Module, head: str, size: int | None, steps: int) -> None:
    """Ten calls of `render_vis`, with jitter alone at our size, or with all its defaults, which enlarge to 224."""
    from lucent.optvis import param, render, transform

    equal = {"transforms": [transform.jitter(2)], "preprocess": False, "fixed_image_size": size} if size else {}
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
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer steps and repeats, no defaults of Lucent")
    quick = parser.parse_args().quick
    warnings.filterwarnings("ignore")
    steps, repeats = (16, 5) if quick else (64, 7)
    rows = []
    for name, head, size in (("small_vgg", "classifier", 32), ("torchvision/resnet18", "fc", 64)):
        network = build(name, classes=CLASSES, channels=3).eval()
        frozen = copy.deepcopy(network).requires_grad_(False)
        seconds = in_turn(
            {
                "bare passes": lambda net=frozen, size=size: bare(net, size, steps),
                "ours": lambda net=network, size=size: ours(net, size, steps),
                "bare passes again": lambda net=frozen, size=size: bare(net, size, steps),
                "lucent, our size and jitter": lambda net=network, head=head, size=size: lucent(net, head, size, steps),
            },
            repeats=repeats,
        )
        if not quick:
            few = 4
            seconds |= {
                who: value * steps / few
                for who, value in in_turn(
                    {"lucent, its defaults": lambda net=network, head=head: lucent(net, head, None, few)}, repeats=1
                ).items()
            }
        bottom = (seconds.pop("bare passes again") + seconds["bare passes"]) / 2
        rows += [
            [name, size, who, 1000 * value / steps, value / bottom, value / seconds["ours"]]
            for who, value in seconds.items()
        ]
    head_row = ["network", "px", "ten class images by", "ms a step", "x bare", "x ours"]
    show(f"Ten class images, {steps} steps; bars: ours at most 1.2 x bare, lucent at least 3 x ours", head_row, rows)


if __name__ == "__main__":
    main()
