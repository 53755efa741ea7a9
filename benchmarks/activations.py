"""Cost and memory of top responses, patches, receptive fields, and a sheet of faithfulness.

python -m benchmarks.activations [--quick] [--threads N]

The bound is one forward pass of the bare network over the same images, in the same batches, up to the layer
that is read. Times are CPU times, which other processes do not disturb. Images are generated from their
numbers, so that none are held in memory. Memory is the peak growth of a separate process after its first
batches. The bound of a sheet of faithfulness (16 images, 5 methods) is the forward and gradient passes of its
maps and measures; the bar is a minute on two cores.
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
from fulgurite.cli.faithfulness import AVERAGED, USUAL
from fulgurite.models.networks import build
from fulgurite.probes.activations.activation_maps import activation_maps
from fulgurite.probes.activations.receptive_field import receptive_fields
from fulgurite.probes.activations.silent_units import unit_activity
from fulgurite.probes.activations.top_responses import top_responses
from fulgurite.probes.attribution.faithfulness_measures import measure
from fulgurite.probes.attribution.methods import attribute
from fulgurite.probes.batches import batch_size
from fulgurite.probes.feature_extractor import feature_extractor
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import class_score

NAME, LAYER, SIDE, UNITS = "torchvision/resnet18", "layer3", 32, 256
BAR = 1.2
FIELDS = {
    "torchvision/alexnet": {"features.12": (195, 32)},
    "torchvision/vgg16": {"features.29": (196, 16), "features.30": (212, 32)},
    "torchvision/resnet18": {"layer1": (43, 4), "layer2": (99, 8), "layer3": (211, 16), "layer4": (435, 32)},
}


class MadeUp(Dataset):
    """Images generated from their numbers: shifted views of one random texture."""

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


def sheets(images: int) -> list[list[object]]:
    """What `fulgurite faithfulness` computes, over the passes of the bare network."""
    rows = list[list[object]]()
    for name, side in {"torchvision/squeezenet1_0": 224, "all_conv": 32}.items():
        torch.manual_seed(0)
        net, classes = build(name, classes=1000 if side == 224 else 6).eval(), torch.zeros(images).long()
        shown = torch.rand(images, 3, side, side)

        def sheet(net: nn.Module = net, shown: Tensor = shown, classes: Tensor = classes) -> None:
            score = class_score(classes)
            maps = {method: attribute(method, net, shown, score, **AVERAGED) for method in USUAL}
            measure(net, shown, classes, maps, ["deletion", "insertion", "infidelity"])

        seconds = in_turn({"sheet": sheet, "bare": lambda: passes(net, shown)}, repeats=1, clock=process_time)  # noqa: B023
        over = f"{seconds['sheet'] / seconds['bare']:.2f} x"
        what = f"faithfulness of {images} images of {side} px, {len(USUAL)} methods, {name}"
        rows.append([what, f"{seconds['sheet']:.1f} s", over, f"{120 * images / 16:.0f} s"])
    return rows


def passes(net: nn.Module, images: Tensor) -> None:
    """As many passes as a sheet takes, in batches, channels last."""
    points, draws, shown_first = 9, 30, 2  # within the curves; of infidelity; deletion and insertion
    forward = 2 + shown_first * points * len(USUAL) + draws + 1
    gradients = AVERAGED["steps"] + len(USUAL) - 1
    size = batch_size(images)
    with frozen_eval(net, channels_last=True) as own:
        for batch in images.split(size):
            for _ in range(forward):
                with torch.no_grad():
                    own(batch)
            for _ in range(gradients):
                leaf = batch.clone().requires_grad_()
                torch.autograd.grad(own(leaf)[:, 0].sum(), leaf)


def grown(count: int) -> float:
    """The peak growth in MB of a process over this many images, after its first batches."""
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
    parser.add_argument("--quick", action="store_true", help="3,000 images in place of 10,000, a sheet of 4")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    count = 3_000 if args.quick else 10_000
    rows = [*times(count, repeats=3), *memory((1_000, 10_000)), *fields(), *sheets(4 if args.quick else 16)]
    show(
        f"{NAME} at {SIDE} px, {LAYER} of {UNITS} channels; {args.threads} threads",
        ["what", "measured", "over the bare pass", "bar"],
        rows,
    )


if __name__ == "__main__":
    main()
