"""Cost of attribution, class images and attacks on a GPU: ours, the bare passes, and the peers.

python -m benchmarks.gpu [--quick] [--only WORD ...]      --quick is what a machine without a GPU takes

The bound is the number of passes that a method needs, times the cost of one in the bare network, in float32,
as built, at the user's batch size. MB is the peak of allocated memory above that before. Peers (`python -m
benchmarks.peers`) are left out where they are not installed. Training is in `benchmarks.gpu_training`, which
this runs last.
"""

import argparse
import copy
import gc
import statistics
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.attacks import resnet20
from benchmarks.gpu_training import training_rows
from benchmarks.peers import missing
from benchmarks.timing import show
from fulgurite.models.networks import build
from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.gradient_pass import FAST, PLAIN, GradientPass
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.attribution.methods import attribute
from fulgurite.probes.objectives import class_score
from fulgurite.probes.synthesis.class_images import class_images

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
THREAT = Linf("8/255")
NONE_FALLS = Linf(1e-6)  # each image takes the full budget of an attack
GRADIENT_PASSES = {
    "ours": PLAIN,
    "ours, folded": FAST,
    "ours, bf16": GradientPass(channels_last=True, dtype=torch.bfloat16),
    "ours, bf16, compiled": GradientPass(channels_last=True, dtype=torch.bfloat16, compiled=True),
}


class Sizes(NamedTuple):
    """The sizes of a benchmark: photographs, images of 32 px, steps and queries."""

    photographs: int
    side: int
    small: int
    steps: int
    copies: int
    queries: int
    repeats: int


FULL = Sizes(photographs=16, side=224, small=512, steps=20, copies=50, queries=500, repeats=7)
QUICK = Sizes(photographs=2, side=64, small=8, steps=2, copies=4, queries=8, repeats=1)


class Cost(NamedTuple):
    seconds: float
    megabytes: float


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def cost(run: Callable[[], object], repeats: int) -> Cost:
    """Median seconds after a warm-up; long work is run only twice, without a warm-up."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if DEVICE.type == "cuda" else 0
    seconds: list[float] = []
    for turn in range(repeats + 1):
        wait()
        started = perf_counter()
        run()
        wait()
        seconds.append(perf_counter() - started)
        if turn == 1 and seconds[0] > 1:
            break
    peak = torch.cuda.max_memory_allocated() - held if DEVICE.type == "cuda" else 0
    return Cost(statistics.median(seconds[1:]), peak / 2**20)


def rows(
    what: str, contestants: dict[str, Callable[[], object]], bound: float, repeats: int
) -> Iterator[list]:
    """A line for each: milliseconds, times the bound, times ours, megabytes."""
    first = 0.0
    for who, run in contestants.items():
        try:
            took = cost(run, repeats)
        except Exception as error:  # a peer's, or a lack of memory: the table goes on
            yield [what, who, f"{type(error).__name__}: {str(error)[:60]}", "", "", ""]
            continue
        first = first or took.seconds
        yield [what, who, 1000 * took.seconds, took.seconds / bound, took.seconds / first, took.megabytes]


def bare(network: nn.Module, images: Tensor) -> None:
    pixels = images.clone().requires_grad_()
    torch.autograd.grad(network(pixels).sum(), pixels)


@torch.no_grad()
def forward(network: nn.Module, images: Tensor) -> None:
    network(images)


def bare_cam(network: nn.Module, images: Tensor) -> None:
    """A forward pass, and back from the score to the last maps."""
    stem = ["normalise", "conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    with torch.no_grad():
        for name in stem:
            images = network.get_submodule(name)(images)
    maps = images.requires_grad_()
    score = network.get_submodule("fc")(network.get_submodule("avgpool")(maps).flatten(1)).sum()
    torch.autograd.grad(score, maps)


def captum_of(name: str, network: nn.Module, images: Tensor, labels: Tensor, copies: int) -> object:
    from captum import attr  # pyright: ignore[reportMissingImports]

    if name == "gradient":
        return attr.Saliency(network).attribute(images, target=labels, abs=False)
    if name == "guided_backprop":
        return attr.GuidedBackprop(network).attribute(images, target=labels)
    if name == "grad_cam":
        return attr.LayerGradCam(network, network.get_submodule("layer4")).attribute(images, target=labels)
    if name == "integrated_gradients":
        return attr.IntegratedGradients(network).attribute(images, target=labels, n_steps=copies)
    tunnel = attr.NoiseTunnel(attr.Saliency(network))
    return tunnel.attribute(images, nt_samples=copies, stdevs=0.15, target=labels, abs=False)


def attribution_rows(sizes: Sizes) -> Iterator[list]:
    torch.manual_seed(0)
    network = build("torchvision/resnet50", classes=1000).eval().to(DEVICE).requires_grad_(False)
    images = torch.rand(sizes.photographs, 3, sizes.side, sizes.side, device=DEVICE)
    labels = torch.arange(len(images), device=DEVICE)
    back, ahead, cam = (
        cost(partial(run, network, images), sizes.repeats).seconds for run in (bare, forward, bare_cam)
    )
    copies = {"steps": sizes.copies}, {"draws": sizes.copies // 2}, {"masks": 2 * sizes.copies}
    # the cost of a pass, how many passes, and the arguments
    cases: list[tuple[str, float, int, dict[str, int]]] = [
        ("gradient", back, 1, {}),
        ("guided_backprop", back, 1, {}),
        ("grad_cam", cam, 1, {}),
        ("integrated_gradients", back, sizes.copies, copies[0]),
        ("smoothgrad", back, sizes.copies // 2, copies[1]),
        ("occlusion", ahead, 225, {}),
        ("rise", ahead, 2 * sizes.copies, copies[2]),
    ]
    for name, bound, times, knobs in cases:
        run = partial(attribute, name, network, images, class_score(labels), **knobs)
        contestants: dict[str, Callable[[], object]] = {"ours": run}
        if name not in ("occlusion", "rise") and not missing("captum"):
            contestants["captum"] = partial(captum_of, name, network, images, labels, times)
        yield from rows(f"{name}, {len(images)} x {sizes.side} px", contestants, bound * times, sizes.repeats)
    steps = max(8, sizes.steps)
    for count in (1, len(images)):
        shape, background = (3, sizes.side, sizes.side), [0.5] * 3
        few = cost(partial(bare, network, images[:count]), sizes.repeats).seconds
        class_images_run: Callable[..., Any] = partial(
            class_images, network, labels[:count], shape, background=background, steps=steps
        )
        what = f"class images, {count} x {sizes.side} px, a step"
        for line in rows(what, {"ours": class_images_run}, few * steps, sizes.repeats):
            yield [*line[:2], line[2] / steps if isinstance(line[2], float) else line[2], *line[3:]]


def bare_pgd(network: nn.Module, images: Tensor, labels: Tensor, steps: int, dtype: torch.dtype) -> None:
    for _ in range(steps):
        pixels = images.detach().requires_grad_()
        with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
            logits = network(pixels)
        torch.autograd.grad(F.cross_entropy(logits.float(), labels, reduction="sum"), pixels)


def pgd_rows(sizes: Sizes) -> Iterator[list]:
    for name, make in (
        ("ResNet-20", resnet20),
        ("PreAct ResNet-18", partial(build, "preact_resnet18", classes=10)),
    ):
        torch.manual_seed(0)
        network = make().eval().to(DEVICE).requires_grad_(False)
        images = torch.rand(sizes.small, 3, 32, 32, device=DEVICE)
        labels = torch.randint(10, (len(images),), device=DEVICE)
        steps = sizes.steps
        bound = cost(partial(bare_pgd, network, images, labels, steps, torch.float32), 3).seconds
        contestants: dict[str, Callable[[], object]] = {
            who: partial(pgd, network, images, labels, THREAT, steps=steps, gradient_pass=gradient_pass)
            for who, gradient_pass in GRADIENT_PASSES.items()
        }
        last = laid_out(network)
        lastly = images.contiguous(memory_format=torch.channels_last)
        contestants["bare passes, channels last, bf16"] = partial(
            bare_pgd, last, lastly, labels, steps, torch.bfloat16
        )
        if not missing("torchattacks"):
            import torchattacks  # pyright: ignore[reportMissingImports]

            theirs = torchattacks.PGD(
                network, eps=THREAT.epsilon, alpha=2.5 * THREAT.epsilon / steps, steps=steps
            )
            contestants["torchattacks"] = partial(theirs, images, labels)
        yield from rows(
            f"PGD-{steps}, {name}, {len(images)} x 32 px", contestants, bound, min(sizes.repeats, 3)
        )


def laid_out(network: nn.Module) -> nn.Module:
    """A copy, laid out channels last."""
    return copy.deepcopy(network).to(memory_format=torch.channels_last)


def ensemble_rows(sizes: Sizes) -> Iterator[list]:
    """Each attack of the ensemble on images that it cannot fool, at a tenth of its default length."""
    torch.manual_seed(0)
    network = build("resnet18_3x3", classes=10).eval().to(DEVICE).requires_grad_(False)
    images = torch.rand(sizes.small, 3, 32, 32, device=DEVICE)
    with torch.no_grad():
        labels = network(images).argmax(1)
    queries, steps = sizes.queries, max(sizes.steps // 2, 2)
    back = cost(partial(bare_pgd, network, images, labels, 1, torch.float32), 3).seconds
    ahead = cost(partial(forward, network, images), 3).seconds
    call = {
        "APGD-CE": (apgd, {"steps": steps}),
        "FAB-T": (fab, {"steps": steps}),
        "Square": (square, {"queries": queries}),
    }
    bounds = {"APGD-CE": steps * back, "FAB-T": 9 * steps * (back + ahead), "Square": queries * ahead}
    for name, (attack, knobs) in call.items():
        contestants: dict[str, Callable[[], object]] = {
            "ours": partial(attack, network, images, labels, NONE_FALLS, **knobs)
        }
        if not missing("pyautoattack"):
            contestants["pyautoattack"] = partial(reference, name, network, images, labels, steps, queries)
        yield from rows(f"{name}, ResNet-18, {len(images)} x 32 px", contestants, bounds[name], 1)


def reference(
    name: str, network: nn.Module, images: Tensor, labels: Tensor, steps: int, queries: int
) -> None:
    from pyautoattack import AutoAttack  # pyright: ignore[reportMissingImports]

    word = {"APGD-CE": "apgd-ce", "FAB-T": "fab-t", "Square": "square"}[name]
    attack = AutoAttack(
        network,
        norm="Linf",
        eps=NONE_FALLS.epsilon,
        seed=0,
        device=str(DEVICE),
        version="custom",
        attacks=[word],  # pyright: ignore[reportArgumentType]
    )
    attack.verbose = False
    attack.apgd.n_iter, attack.fab.n_iter, attack.square.n_queries = steps, steps, queries
    attack.fab.n_restarts = attack.square.n_restarts = attack.apgd.n_restarts = 1
    attack.run_standard_evaluation(images, labels, batch_size=len(images))


PARTS = {"attribution": attribution_rows, "pgd": pgd_rows, "ensemble": ensemble_rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smallest sizes, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "training"], help="some of the tables")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    card = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "no GPU: the smallest sizes, on the CPU"
    quick = args.quick or DEVICE.type == "cpu"
    head = ["what", "by", "ms", "x bound", "x ours", "MB"]
    for name, part in PARTS.items():
        if args.only is None or name in args.only:
            show(f"{name} on: {card}", head, list(part(QUICK if quick else FULL)))
    if args.only is None or "training" in args.only:
        show(f"training on: {card}", ["what", "by", "s", "x by hand"], training_rows(DEVICE, quick=quick))


if __name__ == "__main__":
    main()
