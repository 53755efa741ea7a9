"""Time of class images in one batch: ours, the bare passes they need, and a call of Lucent for each image.

python -m benchmarks.ascend [--quick] [--threads N ...]      needs `python -m benchmarks.peers`

On one thread, and on all: networks are faster on a second thread, small operations are not. The bare passes
run the network as built; ours uses channels-last memory format while it runs, and shifts, rotates and scales
at each step. Lucent's transforms do the same at its own, smaller ranges; with jitter alone it is fastest.
A second table: an objective of the first stage of a ResNet-18, where the pass stops there, and goes on.
"""

import argparse
import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.peers import missing
from benchmarks.timing import in_turn, show
from fulgurite.models.networks import build
from fulgurite.probes.objectives import Objective, channel
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier
from fulgurite.probes.synthesis.class_images import class_images


@dataclass(frozen=True)
class Case:
    """A network, where its scores are read, the images, and the same layer in Lucent's names."""

    name: str
    layer: str
    images: int
    channels: int
    side: int
    head: str | None  # Lucent makes colour images only

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.side, self.side

    def __str__(self):
        return f"{self.name}, {self.images} x {self.channels} x {self.side} x {self.side}"


CASES = (
    Case("small_vgg", "", 10, 1, 32, None),
    Case("small_vgg", "", 10, 3, 32, "classifier"),
    Case("resnet18_3x3", "", 10, 3, 32, "fc"),
    *(
        Case(f"torchvision/{name}", layer, images, 3, side, head)
        for name, layer, head in (
            ("squeezenet1_0", "classifier.1", "classifier_1"),
            ("resnet18", "", "fc"),
        )
        for side in (64, 128)
        for images in (1, 16)
    ),
)


def bare(network: nn.Module, images: int, shape: Sequence[int], steps: int) -> None:
    """Forward and backward to the images, nothing else; the parameters are frozen."""
    batch = torch.rand(images, *shape).requires_grad_()
    for _ in range(steps):
        torch.autograd.grad(network(batch).diagonal().sum(), batch)


def ours(network: nn.Module, case: Case, steps: int) -> None:
    background = [0.5] * case.channels
    classes = torch.arange(case.images)
    class_images(network, classes, case.shape, background=background, layer=case.layer, steps=steps)


def lucent(network: nn.Module, case: Case, transforms: str, steps: int) -> None:
    """A call of `render_vis` for each image: at our size, with jitter or all transforms, or as it is used."""
    from lucent.optvis import param, render, transform  # pyright: ignore[reportMissingImports]

    options: dict[str, Any] = {}
    if transforms != "its defaults":
        options = {"preprocess": False, "fixed_image_size": case.side}
    if transforms == "jitter":
        options["transforms"] = [transform.jitter(2)]
    for k in range(case.images):
        render.render_vis(
            network,
            f"{case.head}:{k}",
            param_f=lambda: param.image(case.side if transforms != "its defaults" else 128),
            thresholds=(steps,),
            progress=False,
            show_image=False,
            **options,
        )
        for module in network.modules():  # it leaves its hooks behind
            module._forward_hooks.clear()


def steps_of(case: Case, *, quick: bool) -> int:
    """Of ours and of the bare passes: more where a step is short, so that what comes once counts little."""
    few = 8 if case.images == 16 or "resnet" in case.name else 32
    return few if quick else 2 * few if case.images == 16 else 64


def compared(case: Case, *, quick: bool, peers: bool) -> list[list[object]]:
    """The rows of one network: the passes alone, ours, and Lucent if it supports the channels."""
    steps, repeats = steps_of(case, quick=quick), (3 if quick else 5)
    network = build(case.name, classes=max(10, case.images), channels=case.channels).eval()
    frozen = copy.deepcopy(network).requires_grad_(False)
    contestants = {
        "bare passes": partial(bare, frozen, case.images, case.shape, steps),
        "ours": partial(ours, network, case, steps),
        "bare passes again": partial(bare, frozen, case.images, case.shape, steps),
    }
    seconds = in_turn(contestants, repeats=repeats)
    bottom = (seconds.pop("bare passes again") + seconds["bare passes"]) / 2
    if case.head and peers and (lack := missing("lucent")):
        print(f"{case}: {lack}")
    elif case.head and peers and case.images > 1:
        few, theirs = (2 if quick else 4), copy.deepcopy(network)
        ways = ["jitter", "its transforms", *([] if quick else ["its defaults"])]
        others = {
            f"lucent, {way}{' (224 px)' if way == 'its defaults' else ', our size'}": partial(
                lucent, theirs, case, way, few
            )
            for way in ways
        }
        found = in_turn(others, repeats=1 if quick else 3)
        seconds |= {who: value * steps / few for who, value in found.items()}
    return [
        [str(case), who, 1000 * value / steps, value / bottom, value / seconds["ours"]]
        for who, value in seconds.items()
    ]


def stopped(side: int, images: int, *, quick: bool) -> list[list[object]]:
    """The rows of an objective of a ResNet-18's first stage, where the pass stops there and where it goes on.

    Both go back from that stage only.
    """
    network, steps = build("torchvision/resnet18", classes=10).eval(), 4 if quick else 16
    early = channel("layer1", 3)
    late = replace(early, layers=early.layers | {""})  # reads the logits, too, and does not use them

    def run(objective: Objective) -> None:
        ascend(network, objective, Fourier((3, side, side), range(images)), steps=steps)

    seconds = in_turn(
        {"stops at layer1": partial(run, early), "runs to the end": partial(run, late)},
        repeats=3 if quick else 7,
    )
    least = seconds["stops at layer1"]
    what = f"{images} x 3 x {side} x {side}"
    return [[what, who, 1000 * value / steps, value / least] for who, value in seconds.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    quick = "some minutes: fewer steps and repeats, of the real networks only 64 px, Lucent on one thread"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, torch.get_num_threads()], help="of torch"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows, early = list[list[object]](), list[list[object]]()
    for threads in dict.fromkeys(args.threads):
        torch.set_num_threads(threads)
        peers = not args.quick or threads == args.threads[0]
        for case in CASES:
            if not args.quick or case.side <= 64:
                rows += [[threads, *row] for row in compared(case, quick=args.quick, peers=peers)]
        for side in (64,) if args.quick else (64, 128):
            early += [[threads, *row] for row in stopped(side, 16, quick=args.quick)]
    head = ["threads", "network and images", "class images by", "ms a step", "x bare", "x ours"]
    show("Class images; bars: ours at most 1.2 x bare, lucent at least 3 x ours", head, rows)
    head = ["threads", "images", "a channel of layer1 of ResNet-18", "ms a step", "x the first"]
    show("Where the pass ends; bar: at least 1.4 x if it runs to the end", head, early)


if __name__ == "__main__":
    main()
