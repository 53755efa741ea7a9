"""Makes the pictures of the documentation from a run of the default recipe.

python train.py fit digits && python docs/gallery.py runs/digits/0
"""

import io
import sys
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fulgurite.probes.render import LINE

HERE = Path(__file__).parent / "pictures"
SHOWN = {
    "ClassImages/film": "class_images",
    "Saliency": "saliency",
    "Embeddings/tsne": "embeddings",
}
DIGITS, TILE, GAP = (0, 3, 8), 96, 2


def main(run: str) -> None:
    """Write the last picture of each tag, and a strip of the class images."""
    events = EventAccumulator(run, size_guidance={"images": 0})
    events.Reload()
    HERE.mkdir(exist_ok=True)
    for tag, name in SHOWN.items():
        picture = Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string))
        save(picture, name)
        if name == "class_images":
            save(strip(picture), "strip")


def strip(film: Image.Image) -> Image.Image:
    """Some rows of the film of all digits, less the captions."""
    top, height, width = LINE + GAP, TILE + LINE + GAP, TILE + GAP
    columns = film.width // width
    left = film.width - width * columns
    paper = Image.new("RGB", (width * columns, top + TILE * len(DIGITS) + GAP), film.getpixel((0, 0)))
    paper.paste(film.crop((left, 0, film.width, top)), (0, 0))
    for row, digit in enumerate(DIGITS):
        y = top + height * digit
        paper.paste(film.crop((left, y, film.width, y + TILE)), (0, top + row * (TILE + GAP)))
    return paper


def save(picture: Image.Image, name: str) -> None:
    """Write a picture, and say how large it is."""
    file = HERE / f"{name}.png"
    picture.save(file, optimize=True)
    print(f"{file.name}: {picture.width} x {picture.height}, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
