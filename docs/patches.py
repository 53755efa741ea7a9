"""Makes the picture of the strongest patches of a digits network, from scikit-learn's digits.

python train.py fit digits && python docs/patches.py runs/digits/0
"""

import sys
import tempfile
from pathlib import Path

from fulgurite.cli.command import main
from fulgurite.data.digits import Digits
from fulgurite.probes.render import picture, to_pil

OUT = Path(__file__).parent / "pictures" / "patches.png"

if __name__ == "__main__":
    data = Digits(size=32, shift=0, noise=0)
    train, _, _ = data.parts()
    with tempfile.TemporaryDirectory() as folder:
        for number, (image, label) in enumerate(zip(train.images, train.labels.tolist(), strict=True)):
            place = Path(folder) / data.classes[label]
            place.mkdir(exist_ok=True)
            to_pil(picture(image)).save(place / f"{number}.png")
        weights = ["--network", "small_vgg", "--weights", f"{sys.argv[1]}/checkpoints/best.ckpt"]
        what = [
            "--layers",
            "relu2,relu3",
            "--most",
            "6",
            "--directions",
            "0",
            "--patches",
            "8",
            "--side",
            "56",
        ]
        sys.exit(main(["patches", folder, *weights, *what, "--out", str(OUT)]))
