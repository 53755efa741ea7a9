"""Makes the pictures of the documentation from a run of the default recipe.

python train.py fit digits && python docs/gallery.py runs/digits/0
"""

import io
import sys
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HERE = Path(__file__).parent / "pictures"
SHOWN = {
    "ClassImages/film": "class_images",
    "Saliency": "saliency",
    "Embeddings/tsne": "embeddings",
}


def main(run: str) -> None:
    """Write the last picture of each tag."""
    events = EventAccumulator(run, size_guidance={"images": 0})
    events.Reload()
    HERE.mkdir(exist_ok=True)
    for tag, name in SHOWN.items():
        picture = Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string))
        picture.save(HERE / f"{name}.png", optimize=True)
        print(
            f"{name}.png: {picture.width} x {picture.height}, {(HERE / f'{name}.png').stat().st_size} bytes"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
