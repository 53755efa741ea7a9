"""Time and memory of attribution methods: ours, the bare passes, and peers at their defaults.

python -m benchmarks.attribution [--quick] [--threads N]      needs `python -m benchmarks.peers`

The bound is the number of images that a method needs, times the cost of one in the bare network, as built, at
its best batch size. Memory is the peak of the process above its memory after one bare pass; each row of that
table is measured in a separate process.
"""

import argparse
import copy
import gc
import io
import multiprocessing
import statistics
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from benchmarks.peers import missing
from benchmarks.timing import in_turn, show
from fulgurite.models.networks import build
from fulgurite.probes.attribution.methods import attribute
from fulgurite.probes.objectives import class_score

NAME, LAYER = "torchvision/resnet18", "layer4"
SMALL, LARGE = 64, 224
# the methods at 64 px: images, passes for each image, whether they go back, peers, and what --quick asks for
CASES: tuple[tuple[str, int, int, bool, tuple[str, ...], dict[str, int]], ...] = (
    ("gradient", 8, 1, True, (), {}),
    ("guided_backprop", 8, 1, True, ("captum", "pytorch-grad-cam"), {}),
    ("grad_cam", 8, 1, False, ("captum", "pytorch-grad-cam"), {}),
    ("smoothgrad", 8, 25, True, (), {}),
    ("integrated_gradients", 8, 50, True, (), {}),
    ("occlusion", 1, 225, False, ("captum",), {}),
    ("score_cam", 1, 512, False, ("pytorch-grad-cam",), {}),
    ("lime", 1, 1000, False, (), {"samples": 200}),
    ("rise", 1, 4000, False, (), {"masks": 200}),
)
# at 224 px: images, passes for each
LARGE_CASES = (("integrated_gradients", 1, 50), ("smoothgrad", 4, 25))


def network_and(count: int, size: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = build(NAME, classes=1000).eval()
    return network, torch.rand(count, 3, size, size), torch.arange(count)


def bare(network: nn.Module, images: Tensor, back: bool) -> None:
    """A forward pass, and with `back` a backward pass to the images; the parameters are frozen."""
    with torch.set_grad_enabled(back):
        images = images.clone().requires_grad_(back)
        score = network(images).sum()
    if back:
        torch.autograd.grad(score, images)


def bare_cam(network: nn.Module, images: Tensor) -> None:
    """A forward pass, and a backward pass from the score to the last maps, which Grad-CAM needs."""
    stem = ["normalise", "conv1", "bn1", "relu", "maxpool"]
    with torch.no_grad():
        for name in (*stem, "layer1", "layer2", "layer3", LAYER):
            images = network.get_submodule(name)(images)
    maps = images.requires_grad_()
    score = network.get_submodule("fc")(network.get_submodule("avgpool")(maps).flatten(1)).sum()
    torch.autograd.grad(score, maps)


def ours(name: str, network: nn.Module, images: Tensor, labels: Tensor, **knobs: int) -> None:
    attribute(name, network, images, class_score(labels), **knobs)


def captum(name: str, network: nn.Module, images: Tensor, labels: Tensor) -> None:
    from captum import attr  # pyright: ignore[reportMissingImports]

    if name == "smoothgrad":
        tunnel = attr.NoiseTunnel(attr.Saliency(network))
        tunnel.attribute(images, nt_samples=25, stdevs=0.15, target=labels, abs=False)
    elif name == "grad_cam":
        attr.LayerGradCam(network, network.get_submodule(LAYER)).attribute(images, target=labels)
    elif name == "occlusion":
        attr.Occlusion(network).attribute(images, (3, 8, 8), strides=(3, 4, 4), target=labels, baselines=0.5)
    else:
        kind = {"guided_backprop": attr.GuidedBackprop, "integrated_gradients": attr.IntegratedGradients}[
            name
        ]
        kind(network).attribute(images, target=labels)


def pytorch_grad_cam(name: str, network: nn.Module, images: Tensor, labels: Tensor) -> None:
    import pytorch_grad_cam as pgc  # pyright: ignore[reportMissingImports]
    from pytorch_grad_cam.utils.model_targets import (  # pyright: ignore[reportMissingImports]
        ClassifierOutputTarget,
    )

    if name == "guided_backprop":
        guided = pgc.GuidedBackpropReLUModel(network, images.device)
        for image, label in zip(images, labels.tolist(), strict=True):  # it takes one image per call
            guided(image[None], label)
    else:
        kind = {"grad_cam": pgc.GradCAM, "score_cam": pgc.ScoreCAM}[name]
        layers = [network.get_submodule(LAYER)]
        with redirect_stderr(io.StringIO()), kind(model=network, target_layers=layers) as cam:
            cam(images, targets=[ClassifierOutputTarget(label) for label in labels.tolist()])


PEERS = {"captum": captum, "pytorch-grad-cam": pytorch_grad_cam}


def small(*, quick: bool) -> list[list]:
    """Ours, the bound and the peers at 64 px, in turn."""
    network, many, _ = network_and(32, SMALL)
    network.requires_grad_(False)
    best = {
        back: min(
            (seconds / int(batch), int(batch))
            for batch, seconds in in_turn(
                {str(batch): partial(bare, network, many[:batch], back) for batch in (8, 16, 32)}, repeats=5
            ).items()
        )[1]
        for back in (False, True)
    }
    rows = []
    for name, count, passes, back, peers, fewer in CASES:
        knobs = fewer if quick else {}
        count = max(1, count // 4) if quick and passes > 1 else count
        passes = next(iter(knobs.values()), passes)
        batch = count if passes == 1 else best[back]
        theirs, images, labels = network_and(count, SMALL)
        contestants = {
            "bare passes": partial(bare_cam, network, many[:batch])
            if name == "grad_cam"
            else partial(bare, network, many[:batch], back),
            "ours": partial(ours, name, copy.deepcopy(theirs), images, labels, **knobs),
            **{peer: partial(PEERS[peer], name, copy.deepcopy(theirs), images, labels) for peer in peers},
        }
        seconds = in_turn(contestants, repeats=(7 if quick else 15) if passes == 1 else 1 if quick else 3)
        seconds["bare passes"] *= passes * count / batch
        rows += lines(f"{name}, {count} x {SMALL} px, {passes * count} passes", seconds)
    return rows


def lines(what: str, seconds: dict[str, float], megabytes: dict[str, float] | None = None) -> list[list]:
    return [
        [
            what,
            who,
            1000 * value,
            value / seconds["bare passes"] if "bare passes" in seconds else "",
            value / seconds["ours"],
            *([megabytes[who], megabytes[who] / megabytes["ours"]] if megabytes else ["", ""]),
        ]
        for who, value in seconds.items()
    ]


def large(*, quick: bool, threads: int) -> list[list]:
    """Ours and Captum at 224 px, each in a separate process, so that its memory can be measured."""
    rows = []
    for name, count, passes in LARGE_CASES:
        count = min(count, 2) if quick else count
        found: dict[str, list[tuple[float, float]]] = {"ours": [], "captum": []}
        for _ in range(1 if quick else 3):
            for who, runs in found.items():
                runs.append(alone(who, name, count, threads))
        seconds, megabytes = (
            {who: statistics.median(run[place] for run in runs) for who, runs in found.items()}
            for place in (0, 1)
        )
        rows += lines(f"{name}, {count} x {LARGE} px, {passes * count} passes", seconds, megabytes)
    return rows


def alone(who: str, name: str, count: int, threads: int) -> tuple[float, float]:
    """Seconds, and megabytes at the peak beyond what was held before, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measured, who, name, count, threads).result()


def measured(who: str, name: str, count: int, threads: int) -> tuple[float, float]:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    network, images, labels = network_and(count, LARGE)
    bare(network, images[:1], True)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, started = held("VmRSS"), perf_counter()
    {"ours": ours, **PEERS}[who](name, network, images, labels)
    return perf_counter() - started, held("VmHWM") - before


def held(what: str) -> float:
    """Megabytes of this process's memory, as Linux counts them."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith(what))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute and a half: fewer images, repeats, masks and samples"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    if lack := missing("captum", "pytorch_grad_cam"):
        parser.error(lack)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    rows = small(quick=args.quick) + large(quick=args.quick, threads=args.threads)
    head = ["ResNet-18, method", "by", "ms", "x bare", "x ours", "MB", "x our MB"]
    show(
        "Attribution; bars: ours at most 1.15 x bare; at 64 px captum's occlusion at least 4 x ours,\n"
        "pytorch-grad-cam's guided_backprop 5 x, grad_cam 2.5 x; at 224 px captum 1.3 x, and 4 x our memory",
        head,
        rows,
    )


if __name__ == "__main__":
    main()
