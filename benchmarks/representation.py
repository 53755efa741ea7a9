"""Stitching and equivariance on digits and CIFAR-10, and the cost of CKA, neighbours, maps and codes.

python -m benchmarks.representation [--quick] [--only NAME,NAME] [--cifar FOLDER]

One table: what was measured, the bar, and whether it is met. The networks are trained here: five blocks of
convolution, BatchNorm, ReLU and pooling, read after each block; accuracies are of test images, of flipped
digits those of the worst of four networks. With --cifar, a folder that holds train/ and test/ with CIFAR-10's
images by class, the same on 10,000 and 2000 of these, with maps of flips fitted to 5000: twenty minutes on
one core. Times are CPU times, on one thread; codes of 5 GiB go into a temporary file. Quick: fewer epochs of
training, and fewer images.
"""

import argparse
import multiprocessing
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import process_time
from typing import NamedTuple

import torch
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.five_blocks import BLOCKS, Images, cifar, digits, trained
from benchmarks.timing import in_turn, show
from fulgurite.models.networks import build
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.representation.equivariance import NONE, POSITIONS, equivariance
from fulgurite.probes.representation.equivariance import TRAINED as JOINT
from fulgurite.probes.representation.layer_cka import layer_cka
from fulgurite.probes.representation.map_quality import map_quality, snapped
from fulgurite.probes.representation.neighbours import nearest_neighbours
from fulgurite.probes.representation.projections import pca, tsne
from fulgurite.probes.representation.stages import features
from fulgurite.probes.representation.stitching import (
    FITTED,
    FROM_IDENTITY,
    NAIVE,
    TRAINED,
    stitching,
)


class Row(NamedTuple):
    """What was measured, its values, and the bar: a text, and whether it is met."""

    what: str
    values: list[float]
    bar: str = ""
    met: bool = True


def stitches(front: nn.Module, back: nn.Module, fit: Images, test: Images, *, name: str) -> Iterator[Row]:
    """Two networks of different seeds, at every block."""
    found = stitching(front, back, fit, test, layers=BLOCKS, identity_start=True)
    naive, fitted, joint, other = (found.accuracies(kind) for kind in (NAIVE, FITTED, TRAINED, FROM_IDENTITY))
    own, gaps = found.back.accuracy, found.gaps()
    yield Row(f"{name}: accuracy of the back network", [own])
    yield Row(f"{name}: trained, untrained front", found.accuracies(TRAINED, control=True))
    if name == "digits":
        yield Row("digits: naive stitch", naive, "at most .25", max(naive) <= 0.25)
        yield Row("digits: least squares", fitted, "at least .95", min(fitted) >= 0.95)
        yield Row("digits: trained", joint, "at least .99", min(joint) >= 0.99)
    else:
        yield Row("CIFAR: naive stitch", naive)
        yield Row("CIFAR: least squares", fitted)
        yield Row("CIFAR: trained", joint, "within .03 of the network", min(joint) >= own - 0.03)
        bar = "at least .20 from the third on"
        yield Row("CIFAR: above the untrained front", gaps, bar, min(gaps[2:]) >= 0.2)
    ahead = [one - two for one, two in zip(joint, other, strict=True)]
    yield Row(f"{name}: trained from the identity", other)
    yield Row(f"{name}: from least squares, ahead", ahead, "at least -.01", min(ahead) >= -0.01)


def maps_of_digits(nets: list[nn.Module], fit: Images, test: Images) -> Iterator[Row]:
    """The worst of the networks, which differ by up to .015 from seed to seed."""
    found = [
        equivariance(net, fit, test, ["vflip"], layers=BLOCKS, kernels=[1], epochs=5).bars("vflip")
        for net in nets
    ]
    each = {kind: torch.tensor([bars[kind] for bars in found]) for kind in found[0]}
    none = float(each[NONE].max())
    yield Row("digits, vertical flip: no map", [none], "at most .60", none <= 0.6)
    ridge, joint = (each[kind].amin(0).tolist() for kind in ("1 x 1", JOINT))
    yield Row("digits, vertical flip: 1 x 1", ridge, "at least .98 in two blocks", min(ridge[:2]) >= 0.98)
    yield Row("digits, vertical flip: trained", joint, "at least .95", min(joint) >= 0.95)
    same = torch.equal(each[POSITIONS][:, -1], each[NONE][:, -1])
    places = each[POSITIONS].mean(0).tolist()
    yield Row("digits, vertical flip: permutation, mean", places, "the last equals no map", same)


def maps_of_cifar(net: nn.Module, fit: Images, test: Images) -> Iterator[Row]:
    found = equivariance(net, fit, test, ["hflip", "vflip"], layers=BLOCKS)
    original, none = found.original[0].accuracy, found.none["hflip"][0].accuracy
    alike = abs(none - original) <= 0.03
    yield Row("CIFAR, horizontal flip: original, no map", [original, none], "within .03", alike)
    bars = found.bars("vflip")
    none, ridge = bars[NONE][0], bars["3 x 3"]
    yield Row("CIFAR, vertical flip: no map", [none], "at most .45", none <= 0.45)
    met = ridge[0] >= original - 0.03 and ridge[-1] < ridge[0]
    yield Row("CIFAR, vertical flip: 3 x 3", ridge, "the first within .03, falling", met)


def cka_cost(*, quick: bool) -> Iterator[Row]:
    """Two ResNet-18s with sixty layers, against their two forward passes."""
    count = 64 if quick else 512
    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    nets = [build("torchvision/resnet18", classes=10, channels=3).eval() for _ in range(2)]
    layers = [path for path, _ in nets[0].named_modules() if path and "normalise" not in path][:60]

    def passes() -> None:
        for net in nets:
            with frozen_eval(net) as frozen, torch.no_grad():
                for part in images.split(64):
                    frozen(part)

    def compared() -> None:
        layer_cka(nets[0], nets[1], images, layers=layers)

    ways = {"passes": passes, "CKA": compared}
    seconds = in_turn(ways, repeats=1 if quick else 3, clock=process_time)
    ratio = seconds["CKA"] / seconds["passes"]
    what = f"CKA of {len(layers)} x {len(layers)} layers, {count} images, in two passes' time"
    yield Row(what, [ratio], "at most 1.5", ratio <= 1.5)


def neighbours_cost(*, quick: bool) -> Iterator[Row]:
    count = 4000 if quick else 20_000
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 512, generator=generator).relu() for n in (count, 1000))
    search = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(bank.numpy())
    found = dict[str, Tensor]()

    def ours() -> None:
        found["ours"] = nearest_neighbours(queries, bank, k=10, metric="l2").places

    def theirs() -> None:
        with threadpool_limits(1):
            places = search.kneighbors(queries.numpy(), return_distance=False)
        found["scikit-learn"] = torch.from_numpy(places)

    ways = {"ours": ours, "scikit-learn": theirs}
    seconds = in_turn(ways, repeats=1 if quick else 3, clock=process_time)
    ratio = seconds["scikit-learn"] / seconds["ours"]
    yield Row(f"neighbours of 1000 among {count}: times faster", [ratio], "at least 1.4", ratio >= 1.4)
    alike = float((found["ours"] == found["scikit-learn"]).double().mean())
    yield Row("neighbours: the same as scikit-learn's", [alike], "all", alike == 1)


def maps_cost(*, quick: bool) -> Iterator[Row]:
    count = 500 if quick else 2000
    generator = torch.Generator().manual_seed(0)
    middles = torch.randn(10, 512, generator=generator)
    codes = (middles[torch.arange(count) % 10] + 0.7 * torch.randn(count, 512, generator=generator)).relu()
    points, seconds = timed(lambda: tsne(codes))
    yield Row(f"t-SNE of {count} x 512, CPU-seconds", [seconds], "at most 15", seconds <= 15)
    quality, flat = (map_quality(codes, own).trustworthiness for own in (points, pca(codes)))
    met = quality >= 0.9 and quality > flat
    yield Row("trustworthiness of t-SNE, of PCA", [quality, flat], "at least .90, and above", met)
    places = torch.rand(900, 2, generator=generator)
    _, seconds = timed(lambda: snapped(places))
    yield Row("grid of 30 x 30, CPU-seconds", [seconds], "at most .5", seconds <= 0.5)


class MadeUp(Dataset):
    """Images of 7 x 7 generated from their numbers."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return (torch.arange(49).view(1, 7, 7) * (place + 1) % 97) / 97, place % 10


def grown(count: int) -> float:
    """The peak growth in GiB of a process while it computes codes of 512 x 7 x 7."""
    net = nn.Sequential(
        nn.Conv2d(1, 512, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)
    )
    features(net, DataLoader(MadeUp(256), batch_size=128), ["1"], grid=7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = features(net, DataLoader(MadeUp(count), batch_size=128), ["1"], grid=7)
    assert found.of["1"].shape == (count, 512 * 49)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def memory(*, quick: bool) -> Iterator[Row]:
    count = 10_000 if quick else 50_000
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        size = process.submit(grown, count).result()
    whole = count * 512 * 49 * 4 / 2**30
    yield Row(f"GiB for {whole:.1f} GiB of codes, {count} x 512 x 7 x 7", [size], "at most 2", size <= 2)


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    started = process_time()
    found = run()
    return found, process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer epochs and images")
    parser.add_argument("--only", help="neighbours, maps, cka, memory, digits, cifar: with commas")
    parser.add_argument("--cifar", type=Path, help="a folder with train/ and test/ of images by class")
    args = parser.parse_args()
    quick = args.quick
    torch.set_num_threads(1)

    def of_digits() -> Iterator[Row]:
        train, test = digits()
        nets: list[nn.Module] = [
            trained(train, width=16, epochs=8 if quick else 25, seed=seed, flips=False)
            for seed in (1, 2, 3, 4)
        ]
        yield from stitches(nets[0], nets[1], train, test, name="digits")
        yield from maps_of_digits(nets, train, test)

    def of_cifar() -> Iterator[Row]:
        if args.cifar:
            train, test = cifar(args.cifar, quick=quick)
            front, back = (
                trained(train, width=16, epochs=3 if quick else 8, seed=seed, flips=True) for seed in (1, 2)
            )
            # of half of the images, the trained stitch after the second block is .012 less accurate
            yield from stitches(front, back, train, test, name="CIFAR")
            yield from maps_of_cifar(front, (train[0][::2], train[1][::2]), test)

    parts = {
        "neighbours": lambda: neighbours_cost(quick=quick),
        "maps": lambda: maps_cost(quick=quick),
        "cka": lambda: cka_cost(quick=quick),
        "memory": lambda: memory(quick=quick),
        "digits": of_digits,
        "cifar": of_cifar,
    }
    chosen = [word.strip() for word in args.only.split(",")] if args.only else list(parts)
    rows = list[list[str]]()
    for name in chosen:
        for row in parts[name]():
            rows.append(cells(row))
            print("  ".join(rows[-1]), flush=True)
    show("Representation", ["what", "measured", "bar", "met"], rows)


def cells(row: Row) -> list[str]:
    values = " ".join(f"{value:.3f}" for value in row.values)
    return [row.what, values, row.bar, ("yes" if row.met else "NO") if row.bar else ""]


if __name__ == "__main__":
    main()
