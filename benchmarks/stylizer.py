"""A trained stylizer next to style transfer by optimisation, on photographs that it was not trained on.

python -m benchmarks.stylizer RUN [--images 8] [--size 128] [--steps 300] [--sheet FILE]

RUN is a folder of `fit stylize`; its validation photographs are the held-out ones. Both minimise the same
objective: the same layers of the same network, the same weights of content, style and smoothness, and the
same image of the style. Losses are means over the photographs: 0 where Gram matrices, or features, equal the
targets. The sheet shows photograph, stylizer and optimisation in a row each.

Such a run, on a folder of photographs (600 of them, ten minutes on one core), with an image of scikit-image
as its style; at this weight it takes colours and contrast, but hardly strokes:

python -c "from skimage import data, io; io.imsave('style.png', data.immunohistochemistry())"
fulgurite fit stylize --path photographs --style style.png --judge torchvision/squeezenet1_0 \\
    --judge_weights squeezenet1_0_imagenet_fp16.safetensors --size 64 --style_size 128 --weight 1 \\
    --batch_size 2 --lr 2e-3 --epochs 30

For strokes, which strong optimisation makes better still: --weight 6 --content_layer features.7
--style_layers features.1,features.3,features.5.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.timing import show
from fulgurite.cli.known_recipes import recipe_of
from fulgurite.cli.loaded_run import recipe_of_run
from fulgurite.data.crops import uncropped
from fulgurite.data.decoding import read_image
from fulgurite.data.photographs import Photographs
from fulgurite.models.stylizer import Stylizer
from fulgurite.probes.render import grid, picture, write
from fulgurite.probes.synthesis.textures import style_transfer
from fulgurite.recipes import run as runs

PASSES = 9  # passes of the stylizer, for a median
FASTER, WORSE = 100, 2  # the bars


def held_out(data: Photographs, count: int, size: int | None) -> list[Float[Tensor, "1 3 h w"]]:
    """This many validation photographs, spread evenly: their middle squares."""
    data.size = size or data.size
    photographs = data.parts()[1]
    places = torch.linspace(0, len(photographs) - 1, min(count, len(photographs))).round().long().unique()
    return [photographs[int(place)][0][None] for place in places]


def compared(
    model: Stylizer,
    photographs: Sequence[Float[Tensor, "1 3 h w"]],
    style: Float[Tensor, "1 3 h w"],
    steps: int,
) -> tuple[list[list[object]], list[Tensor]]:
    """Rows of the table, and the images of the sheet."""
    model.eval()
    losses: dict[str, list[list[float]]] = {"style": [], "content": [], "content + weight x style": []}
    seconds, images = ([], []), []
    for photograph in photographs:
        times, passed = [], photograph
        with torch.inference_mode():
            for _ in range(PASSES):
                began = perf_counter()
                passed = model(photograph)
                times.append(perf_counter() - began)
        seconds[0].append(median(times))
        began = perf_counter()
        optimised = style_transfer(
            model.judge,
            photograph,
            [style],
            content_layer=model.content_layer,
            style_layers=model.style_layers,
            weight=model.weight,
            tv=model.tv,
            steps=steps,
        )
        seconds[1].append(perf_counter() - began)
        row = [photograph, passed.clone(), optimised]
        images += row
        with torch.no_grad():
            found = [[float(loss) for loss in model.losses(photograph, own)] for own in row]
        losses["content"].append([content for content, _ in found])
        losses["style"].append([own for _, own in found])
        losses["content + weight x style"].append([content + model.weight * own for content, own in found])
    rows = list[list[object]]()
    for name, values in losses.items():
        plain, one_pass, best = (fmean(column) for column in zip(*values, strict=True))
        wanted = f"at most {WORSE}" if name == "style" else ""
        rows.append([f"{name} loss", plain, one_pass, best, one_pass / best, wanted])
    mean = [fmean(own) for own in seconds]
    rows.append(["seconds an image", "", *mean, f"1 / {mean[1] / mean[0]:.0f}", f"at most 1 / {FASTER}"])
    return rows, images


def main(words: Sequence[str] | None = None) -> None:
    """Print the table, and write the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run of fit stylize")
    parser.add_argument("--images", type=int, default=8, help="held-out photographs; default %(default)s")
    parser.add_argument("--size", type=int, help="their side; that of the training without it")
    parser.add_argument("--steps", type=int, default=300, help="of the optimisation; default %(default)s")
    parser.add_argument("--sheet", type=Path, help="a file for the pictures")
    args = parser.parse_args(words)
    recipe = recipe_of_run(args.run, "last")[1]
    knobs = runs.knobs(recipe_of("stylize"), runs.read(args.run))
    style = uncropped(knobs["style_size"])(read_image(Path(knobs["style"]), channels=3))[None]
    model, data = recipe.model, recipe.data
    assert isinstance(model, Stylizer)
    assert isinstance(data, Photographs)
    photographs = held_out(data, args.images, args.size)
    rows, images = compared(model, photographs, style, args.steps)
    height, width = photographs[0].shape[2:]
    show(
        f"One pass next to {args.steps} steps: {len(photographs)} held-out photographs of {height} x {width}",
        ["", "photographs", "stylizer", "optimisation", "stylizer over optimisation", "wanted"],
        rows,
    )
    if args.sheet:
        write(grid([picture(image[0]) for image in images], columns=3, gap=4), args.sheet)


if __name__ == "__main__":
    main()
