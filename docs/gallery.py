"""Makes every picture of the documentation from free data: python -m docs.gallery [PICTURE...]

Without names, all of them: some hours on two cores. Runs are kept in --work, and what is there is not trained
again. Weights are torchvision's, or FULGURITE_DATA's SqueezeNet; screenshots need Chromium. `--list`
tells what each picture shows and what makes it.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

from benchmarks.class_images import WEIGHTS
from fulgurite.callbacks.corruptions import corrupted_sheet
from fulgurite.data.crops import from_the_middle
from fulgurite.probes.render import LINE, titled, write

HERE = Path(__file__).parent / "pictures"
ROOT = Path(__file__).parent.parent
ROWS, TILE, GAP = (0, 3, 8), 96, 2
SQUEEZENET = ["--network", "torchvision/squeezenet1_0"]


@dataclass(frozen=True)
class Made:
    """A picture of the documentation: what it shows, the command that a reader types, and how it is made."""

    shows: str
    command: str
    make: Callable[["Gallery"], Path | None]


@dataclass(frozen=True)
class Gallery:
    """Where runs and their pictures are kept."""

    work: Path

    def run(self, *words: str) -> None:
        """A command of ours, in the folder of the runs."""
        print(f"+ fulgurite {' '.join(words)}", flush=True)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "fulgurite", *words], check=True, cwd=self.work, env=env)

    def python(self, *words: str) -> None:
        """A program of the project."""
        print(f"+ python {' '.join(words)}", flush=True)
        subprocess.run([sys.executable, *words], check=True, cwd=ROOT)

    def trained(self, name: str, *words: str) -> Path:
        """A run, trained unless it is there and finished."""
        folder = self.work / "runs" / name
        if not (folder / "test.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            self.run("fit", *words, "--folder", f"runs/{name}")
        return folder

    def probed(self, name: str, *words: str) -> Path:
        """The pictures of a run, with its films."""
        folder = self.trained(name, *words)
        if not (folder / "pictures").exists():
            self.run("probe", f"runs/{name}", "--checkpoint", "last")
        return folder / "pictures"

    def weights(self) -> list[str]:
        """The option that names SqueezeNet's weights, if they are at hand."""
        file = Path(os.environ.get("FULGURITE_DATA", "")) / WEIGHTS
        return ["--weights", str(file)] if file.is_file() else []

    def photographs(self) -> Path:
        """Crops of the photographs that scikit-image and scikit-learn bring."""
        folder = self.work / "photographs"
        china, flower = load_sample_images().images
        whole = {"cat": data.chelsea(), "coffee": data.coffee(), "flower": flower, "palace": china}
        whole |= {"astronaut": data.astronaut(), "rocket": data.rocket()}
        folder.mkdir(parents=True, exist_ok=True)
        for name, pixels in whole.items():
            high, wide = pixels.shape[:2]
            side = min(high, wide) * 9 // 10
            corners = [((high - side) // 2, x) for x in (0, (wide - side) // 2, wide - side)]
            for place, (y, x) in enumerate(corners):
                crop = pixels[y : y + side, x : x + side]
                Image.fromarray(crop).save(folder / f"{place}_{name}.png")
                Image.fromarray(crop[:, ::-1].copy()).save(folder / f"{place}_{name}_mirrored.png")
        return folder

    def sheets(self) -> Path:
        """The pictures of the benchmark of dreams."""
        folder = self.work / "sheets"
        if not (folder / "fooling.png").exists():
            self.python("-m", "benchmarks.dreams", "--sheets", str(folder))
        return folder


def strip(film: Image.Image) -> Image.Image:
    """Some rows of the film of all digits, less the title and the captions."""
    title, top, height, width = LINE + 8, LINE + GAP, TILE + LINE + GAP, TILE + GAP
    columns = film.width // width
    left = film.width - width * columns
    paper = Image.new("RGB", (width * columns, top + (TILE + GAP) * len(ROWS)), film.getpixel((0, 0)))
    paper.paste(film.crop((left, title, film.width, title + top)), (0, 0))
    for row, digit in enumerate(ROWS):
        y = title + top + height * digit
        paper.paste(film.crop((left, y, film.width, y + TILE)), (0, top + row * (TILE + GAP)))
    return paper


def digits(file: str) -> Callable[[Gallery], Path]:
    """A picture of the default run."""
    return lambda gallery: gallery.probed("digits", "digits") / file


def of_run(program: str) -> Callable[[Gallery], None]:
    """What a program makes of the default run, straight into the folder of the pictures."""
    return lambda gallery: gallery.python(program, str(gallery.trained("digits", "digits")))


def _readme_strip(gallery: Gallery) -> Path:
    out = gallery.work / "strip.png"
    strip(Image.open(digits("ClassImages_film.png")(gallery)).convert("RGB")).save(out)
    return out


def _certified(gallery: Gallery) -> Path:
    run = gallery.trained("noise", "robust_digits", "--method", "noise", "--sigma", "0.25")
    words = ["--smooth", "0.25", "--draws", "10000", "--images", "256"]
    if not (run / "pictures" / "test_certified_curve.png").exists():
        gallery.run("test", "runs/noise", *words)
    return run / "pictures" / "test_certified_curve.png"


def _corruptions(gallery: Gallery) -> Path:
    image = torch.from_numpy(np.array(data.chelsea())).movedim(2, 0) / 255
    out = gallery.work / "corruptions.png"
    write(titled(corrupted_sheet(from_the_middle(224)(image)[None]), "Corruptions by strength"), out)
    return out


def _universal(gallery: Gallery) -> Path:
    out, photographs = gallery.work / "universal.png", str(gallery.photographs())
    gallery.run("universal", photographs, *SQUEEZENET, *gallery.weights(), "--out", str(out), "--side", "150")
    return out


def _attributions(gallery: Gallery) -> None:
    gallery.python("docs/attributions.py", *gallery.weights()[1:])


def _imagenet(gallery: Gallery) -> Path:
    out = gallery.work / "imagenet.png"
    words = ["--score_layer", "classifier.1", "--target", "flamingo,ostrich,zebra,lion", "--seeds", "5"]
    where = ["--size", "160", "--side", "160", "--out", str(out)]
    gallery.run("class_images", *SQUEEZENET, *gallery.weights(), *words, *where)
    return out


def _comparison(gallery: Gallery) -> Path:
    gallery.trained("eight", "digits", "--epochs", "8")
    gallery.trained("one", "digits", "--epochs", "1")
    gallery.run("compare", "runs/eight", "runs/one", "--out", "comparison")
    out = gallery.work / "comparison.png"
    browser = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1180,3060"]
    browser.append(f"--screenshot={out}")
    subprocess.run([*browser, (gallery.work / "comparison" / "index.html").as_uri()], check=True)
    whole = Image.open(out).convert("RGB")
    box = Image.eval(whole.convert("L"), lambda level: 255 * (level > 40)).getbbox()
    whole.crop((0, 0, whole.width, min(whole.height, box[3] + 30 if box else whole.height))).save(out)
    return out


def _equivariance(gallery: Gallery) -> Path:
    gallery.trained("eight", "digits", "--epochs", "8")
    out, kinds = gallery.work / "equivariance.png", "vflip,rot90,scale0.7"
    gallery.run("equivariance", "runs/eight", "--transforms", kinds, "--images", "200", "--out", str(out))
    return out


def _transferability(gallery: Gallery) -> Path:
    out = gallery.work / "transferability.png"
    gallery.run(*SHAPES.split(), "--out", str(out))
    return out


def _robust_digits(gallery: Gallery) -> Path:
    return gallery.probed("robust_digits", *PLAIN.split()) / "ClassImages.png"


def dreamed(name: str) -> Callable[[Gallery], Path]:
    """A sheet of the benchmark of dreams."""
    return lambda gallery: gallery.sheets() / f"{name}.png"


SHAPES = "transferability shapes --size 16 --images 4000 --epochs 8 --lr 2e-3 --seeds 5 --kinds AnB,AnB+"
PLAIN = "robust_digits --size 32 --network small_vgg --threat l2 --radius 3 --steps 3 --lr 4e-3 --shift 2"
FIT = "fulgurite fit digits; fulgurite probe runs/digits/0 --checkpoint last"
DREAMS = "python -m benchmarks.dreams --sheets FOLDER"
TABS = ("python docs/screenshots.py runs/digits/0", of_run("docs/screenshots.py"))
PATCHES = ("python docs/patches.py runs/digits/0", of_run("docs/patches.py"))
PICTURES: Mapping[str, Made] = {
    "strip.png": Made("class images of 0, 3 and 8 over the epochs", FIT, _readme_strip),
    "class_images.png": Made("class images of all digits by epoch", FIT, digits("ClassImages_film.png")),
    "class_images.gif": Made(
        "the same as an animation, a frame an epoch", FIT, digits("ClassImages_film.gif")
    ),
    "saliency.png": Made("saliency of sixteen digits on one scale", FIT, digits("Saliency.png")),
    "embeddings.png": Made("t-SNE of codes, coloured by class", FIT, digits("Embeddings_tsne.png")),
    "patches.png": Made("patches that excite channels most", *PATCHES),
    "calibration.png": Made("reliability of a digits network", FIT, digits("../calibration.png")),
    "tensorboard_custom_scalars.png": Made("TensorBoard's custom scalars", *TABS),
    "tensorboard_projector.png": Made("TensorBoard's projector", *TABS),
    "robust_digits.png": Made(
        "class images of a standard and an adversarially trained network",
        f"fulgurite fit {PLAIN}; fulgurite probe RUN --checkpoint last",
        _robust_digits,
    ),
    "certified.png": Made(
        "certified accuracy by radius",
        "fulgurite fit robust_digits --method noise; fulgurite test RUN --smooth 0.25 --draws 10000",
        _certified,
    ),
    "corruptions.jpg": Made(
        "a photograph under fifteen corruptions at five strengths",
        "corrupted_sheet of scikit-image's cat",
        _corruptions,
    ),
    "universal.jpg": Made(
        "one shift that changes the answers to photographs",
        "fulgurite universal FOLDER --network torchvision/squeezenet1_0",
        _universal,
    ),
    "attributions.jpg": Made(
        "five photographs, all methods", "python docs/attributions.py [WEIGHTS]", _attributions
    ),
    "imagenet_class_images.jpg": Made(
        "five class images each of flamingo, ostrich, zebra and lion",
        "fulgurite class_images --network torchvision/squeezenet1_0 --score_layer classifier.1 --target "
        "flamingo,ostrich,zebra,lion --seeds 5 --size 160",
        _imagenet,
    ),
    "dreams.jpg": Made("a pagoda, its dream, and one guided by a flower", DREAMS, dreamed("dreams")),
    "styles.jpg": Made("a cat in the style of a stained tissue", DREAMS, dreamed("styles")),
    "textures.jpg": Made("gravel, and a new image of its texture", DREAMS, dreamed("textures")),
    "fooling.png": Made("images that a network of digits is sure of", DREAMS, dreamed("fooling")),
    "comparison.jpg": Made(
        "the page of two runs", "fulgurite compare RUN_A RUN_B, in headless Chromium", _comparison
    ),
    "equivariance.png": Made(
        "accuracy under flips and rotations, mapped back, by layer",
        "fulgurite fit digits --epochs 8; fulgurite equivariance RUN --images 200",
        _equivariance,
    ),
    "transferability.png": Made(
        "accuracy by the number of copied stages",
        f"fulgurite {SHAPES}",
        _transferability,
    ),
}
"""Every picture in docs/pictures."""


def main(words: Sequence[str] | None = None) -> None:
    """Make the pictures that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="PICTURE", help="such as strip.png")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/gallery"), help="for runs; default %(default)s"
    )
    parser.add_argument("--list", action="store_true", help="what each shows, and its command")
    args = parser.parse_args(words)
    if unknown := [name for name in args.names if name not in PICTURES]:
        parser.error(f"no picture {unknown[0]}; there are: {', '.join(PICTURES)}")
    if args.list:
        print("\n".join(f"{name}: {made.shows}\n    {made.command}" for name, made in PICTURES.items()))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    gallery = Gallery(args.work.resolve())
    for name in args.names or PICTURES:
        made = PICTURES[name].make(gallery)
        if made is not None and made.suffix == ".gif":
            shutil.copy(made, HERE / name)
        elif made is not None:
            Image.open(made).convert("RGB").save(HERE / name, quality=90, optimize=True)
        with Image.open(HERE / name) as picture:
            print(f"{name}: {picture.width} x {picture.height}, {(HERE / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
