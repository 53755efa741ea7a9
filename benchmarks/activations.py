"""Cost of what units respond to: patches, activation maps, silent units; memory; and receptive fields.

python -m benchmarks.activations [--quick] [--threads N]

The bound is one forward pass of the bare network over the same images, in the batches that all here use, as
far as the layer that is read. Times are those of the processor, which other work does not disturb. Images are
made up from their numbers, so that none are held in memory. Memory is by how much a process of its own grows
at its peak, once it has seen some batches.
"""

import argparse
import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from time import process_time

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.timing import in_turn, show
from fulgurite.models.networks import build
from fulgurite.probes.activations.activation_maps import activation_maps
from fulgurite.probes.activations.receptive_field import receptive_fields
from fulgurite.probes.activations.silent_units import unit_activity
from fulgurite.probes.activations.top_responses import top_responses
from fulgurite.probes.batches import batch_size
from fulgurite.probes.feature_extractor import feature_extractor

NAME, LAYER, SIDE, UNITS = "torchvision/resnet18", "layer3", 32, 256
BAR = 1.2
FIELDS = {
    "torchvision/alexnet": {"features.12": (195, 32)},
    "torchvision/vgg16": {"features.29": (196, 16), "features.30": (212, 32)},
    "torchvision/resnet18": {"layer1": (43, 4), "layer2": (99, 8), "layer3": (211, 16), "layer4": (435, 32)},
}


class MadeUp(Dataset):
    """Images that follow from their numbers: shifted views of one random texture."""

    def __init__(self, count: int, side: int = SIDE):
        self.count, self.side = count, side
        self.texture = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Tensor:
        # primes, so that no two of the first ten thousand are the same
        top, left = (place * 7) % (256 - self.side), (place * 13) % (256 - self.side - 1)
        return self.texture[:, top : top + self.side, left : left + self.side]


def network() -> nn.Module:
    torch.manual_seed(0)
    return build(NAME, classes=1000).eval()


def bare(net: nn.Module, data: Dataset, count: int) -> None:
    """A forward pass over all images, up to the layer."""
    with feature_extractor(net, [LAYER]) as extract, torch.no_grad():
        size = batch_size(torch.empty(1, 3, SIDE, SIDE))
        for start in range(0, count, size):
            extract(torch.stack([data[place] for place in range(start, min(start + size, count))]))


def patches(net: nn.Module, data: Dataset, directions: int = 0) -> None:
    top_responses(net, data, [LAYER], units=range(UNITS), directions=directions)


def times(count: int, repeats: int) -> list[list[object]]:
    """Each over the bare pass, in turn."""
    net, data = network(), MadeUp(count)
    few = torch.stack([data[place] for place in range(256)])
    asked: dict[str, Callable[[], object]] = {
        f"a bare pass, {count} images": lambda: bare(net, data, count),
        f"patches of {UNITS} units": lambda: patches(net, data),
        f"and of {UNITS} random directions": lambda: patches(net, data, UNITS),
        "silent units": lambda: unit_activity(net, data, [LAYER]),
        "a bare pass, 256 images": lambda: bare(net, data, 256),
        "activation maps, 256 images": lambda: activation_maps(net, few, [LAYER]),
    }
    seconds = in_turn(asked, repeats=repeats, clock=process_time)
    rows = list[list[object]]()
    bound = ""
    for name, found in seconds.items():
        bound = name if name.startswith("a bare pass") else bound
        over = "" if name == bound else f"{found / seconds[bound]:.2f} x"
        rows.append([name, f"{found:.2f} s", over, f"{BAR} x" if name.startswith("patches") else ""])
    return rows


def grown(count: int) -> float:
    """By how many MB a process grows at its peak over so many images, after its first batches."""
    torch.set_num_threads(1)
    net = network()
    patches(net, MadeUp(200))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    patches(net, MadeUp(count))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memory(counts: tuple[int, int]) -> list[list[object]]:
    """The growth of a process at a few and at many images."""
    found = list[list[object]]()
    for count in counts:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            size = alone.submit(grown, count).result()
        held = f"the same; images are {count * 3 * SIDE**2 * 4 / 2**20:.0f} MB"
        found.append([f"memory of patches, {count} images", f"{size:.0f} MB more", "", held])
    return found


def fields() -> list[list[object]]:
    """Size and stride of the receptive fields that are known."""
    rows = list[list[object]]()
    for name, expected in FIELDS.items():
        started = process_time()
        found = receptive_fields(build(name, classes=10), list(expected))
        seconds = process_time() - started
        for layer, (size, stride) in expected.items():
            field = found[layer]
            got = "none" if field is None else f"{field.size[0]} px, stride {field.stride[0]}"
            rows.append([f"receptive field of {name} {layer}", got, "", f"{size} px, stride {stride}"])
        rows.append([f"all of {name}", f"{seconds:.1f} s", "", ""])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3,000 images in place of 10,000")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    count = 3_000 if args.quick else 10_000
    rows = [*times(count, repeats=3), *memory((1_000, 10_000)), *fields()]
    show(
        f"{NAME} at {SIDE} px, {LAYER} of {UNITS} channels; {args.threads} threads",
        ["what", "measured", "over the bare pass", "bar"],
        rows,
    )


if __name__ == "__main__":
    main()
