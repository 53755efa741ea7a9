"""Quality and time of dreams, textures, style transfer and fooling images.

python -m benchmarks.dreams [--quick] [--sheets FOLDER]

FULGURITE_DATA names the folder with a SqueezeNet's weights; torchvision's are fetched without it. The
pictures are those included in scikit-learn and scikit-image. Fooling images are of a network that is trained
on digits first. `--sheets` writes the pictures. For networks of `fit stylize`, see benchmarks/stylizer.py.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float
from skimage import data as photographs
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from benchmarks.class_images import LAYER, WEIGHTS
from benchmarks.timing import show
from fulgurite.models.networks import build
from fulgurite.probes.feature_objectives import energy
from fulgurite.probes.render import enlarged, picture, sheet, titled, write
from fulgurite.probes.synthesis.canvas import resized
from fulgurite.probes.synthesis.dreams import deep_dream, guided_by
from fulgurite.probes.synthesis.evolution import map_elites
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.fooling import fooled_photographs, fooling_images
from fulgurite.probes.synthesis.textures import style_match, style_transfer, texture
from fulgurite.recipes import digits
from fulgurite.recipes.quick_fit import quick_fit

LAYERS = ["features.1", "features.5", "features.10"]
DREAMED = "features.10"
KOALA = 105
SHEETS = {
    "dreams": ("DeepDream of a SqueezeNet", ("photograph", f"{DREAMED}", "guided by a flower"), ("",)),
    "textures": ("Texture synthesis by a SqueezeNet", ("gravel", "new image of its texture"), ("",)),
    "styles": ("Style transfer by a SqueezeNet", ("photograph", "in the style of a stained tissue"), ("",)),
    "fooled": (
        "A cup of coffee that a SqueezeNet takes for a koala",
        ("photograph", "difference", "difference x 10", "sum"),
        ("",),
    ),
    "fooling": (
        "Images that a network trained on digits takes for each digit",
        tuple("0123456789"),
        ("gradient ascent", "MAP-Elites, pixels", "MAP-Elites, CPPN"),
    ),
}
"""Of each picture the title, the columns and the rows."""


def photograph(name: str, longest: int) -> Float[Tensor, "1 3 h w"]:
    """A picture of scikit-learn or scikit-image, its long side resized to this many pixels."""
    pixels = load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(photographs, name)()
    image = torch.from_numpy(np.array(pixels))
    image = image[..., None].expand(*image.shape, 3) if image.dim() == 2 else image
    image = image.movedim(2, 0)[None].float() / 255
    scale = longest / max(image.shape[2:])
    return resized(image, [round(scale * side) for side in image.shape[2:]]).clamp(0, 1)


def squeezenet() -> nn.Module:
    """A real ImageNet network."""
    folder = os.environ.get("FULGURITE_DATA")
    weights = Path(folder) / WEIGHTS if folder else None
    return build(
        "torchvision/squeezenet1_0", classes=1000, pretrained=weights is None, weights=weights
    ).eval()


def seams(network: nn.Module, image: Float[Tensor, "1 3 h w"], tile: int, *, whole: bool = False) -> float:
    """Seams of a tiled dream: its mean step across borders of tiles, over that across all other lines.

    Tiles are shifted at each step; the borders are those of the unshifted grid. `whole` is the same measure
    of a dream without tiles, which has no such borders.
    """
    added = deep_dream(network, image, DREAMED, octaves=1, tile=None if whole else tile) - image
    border, inside = list[Tensor](), list[Tensor]()
    for axis in (2, 3):
        steps = added.diff(dim=axis).abs().movedim(axis, 0).flatten(1).mean(1)
        at = torch.arange(1, len(steps) + 1) % (tile - 2 * (tile // 4)) == 0
        border.append(steps[at])
        inside.append(steps[~at])
    return float(torch.cat(border).mean() / torch.cat(inside).mean())


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller, in about two minutes")
    parser.add_argument("--sheets", type=Path, help="a folder for the pictures")
    args = parser.parse_args(words)
    side, steps = (96, 60) if args.quick else (256, 300)
    network, rows, sheets = squeezenet(), list[list[object]](), dict[str, list[Tensor]]()

    china = photograph("china", side)
    dreamed = deep_dream(network, china, DREAMED)
    before, after = (float(values_of(network, energy(DREAMED), own)) for own in (china, dreamed))
    rows.append(["DeepDream: energy after over before", after / before, "at least 1.5 an octave"])
    square = photograph("flower", side)[:, :, : side // 2, : side // 2]
    larger = resized(square, [side, side])
    tiled, whole = (seams(network, larger, side // 2, whole=whole) for whole in (False, True))
    what = "DeepDream in tiles: step across borders over inside; whole"
    rows.append([what, f"{tiled:.3f}; {whole:.3f}", "at most 1, or that of whole"])
    guided = deep_dream(network, china, guided_by(network, photograph("flower", side), DREAMED))
    sheets["dreams"] = [china, dreamed, guided]

    gravel = photograph("gravel", min(side, 224))
    small = (gravel.shape[2], gravel.shape[3])
    start, made = (texture(network, gravel, small, layers=LAYERS, steps=count) for count in (0, steps))
    objective = style_match(network, gravel, LAYERS)
    fall = float(values_of(network, objective, start) / values_of(network, objective, made))
    rows.append([f"texture, {steps} steps: Gram loss before over after", fall, "at least 30 in 300"])
    sheets["textures"] = [gravel, made]

    cat, style = photograph("chelsea", side), photograph("immunohistochemistry", side)
    began = perf_counter()
    styled = style_transfer(network, cat, [style], style_layers=LAYERS, steps=min(200, steps))
    rows.append(
        [
            f"style transfer, {side} px, {min(200, steps)} steps: seconds",
            perf_counter() - began,
            "at most 120",
        ]
    )
    sheets["styles"] = [cat, styled]

    elephant = photograph("coffee", side)
    fooled = fooled_photographs(network, elephant, torch.tensor([KOALA]), layer=LAYER)
    change = fooled.images - elephant
    rows.append(["a cup of coffee classified as a koala: probability", float(fooled.probabilities), ""])
    rows.append(["  root mean square change", float(change.square().mean().sqrt()), ""])
    sheets["fooled"] = [elephant, (0.5 + change).clamp(0, 1), (0.5 + 10 * change).clamp(0, 1), fooled.images]

    recipe = digits.recipe(epochs=2 if args.quick else 15, every=0)
    quick_fit(recipe)
    standard = recipe.network.eval()
    shape = (1, 32, 32)
    found = fooling_images(standard, torch.arange(10), shape, background=[0.0])
    rows.append(
        ["fooling by gradient: rate; median steps", f"{found.rate:.2f}; {found.median_steps:.0f}", "1; 100"]
    )
    sheets["fooling"] = [*found.images[:, None]]
    generations = 60 if args.quick else 300
    for encoding in ("direct", "cppn"):
        began = perf_counter()
        elites = map_elites(standard, shape, encoding=encoding, generations=generations)
        seconds = perf_counter() - began
        median = float(elites.probabilities.median())
        text = f"{median:.4f}; {seconds:.0f}"
        rows.append([f"MAP-Elites, {encoding}, {generations} x 100: median; seconds", text, "above .95; 60"])
        sheets["fooling"] += [*elites.images[:, None]]
    show("Dreams, textures, styles, and images that fool", ["what", "found", "wanted"], rows)
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
        for name, images in sheets.items():
            title, columns, rows_named = SHEETS[name]
            tiles, across = [picture(image[0]) for image in images], len(columns)
            rows_of = {
                row: [enlarged(tile, side=64) for tile in tiles[place * across : (place + 1) * across]]
                for place, row in enumerate(rows_named)
            }
            write(titled(sheet(rows_of, columns=columns), title), args.sheets / f"{name}.png")


if __name__ == "__main__":
    main()
