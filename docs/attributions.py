"""Makes the sheet of attribution methods from photographs that come with scikit-image and scikit-learn.

python docs/attributions.py [WEIGHTS]       SqueezeNet's; downloaded without a file

Chelsea by Stefan van der Walt, coffee by Rachel Michetti, rocket by SpaceX (all CC0); flower and palace by
danielbuechele (CC BY 2.0).
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

from fulgurite.cli.command import main

OUT = Path(__file__).parent / "pictures" / "attributions.jpg"

if __name__ == "__main__":
    china, flower = load_sample_images().images
    photographs = {
        "cat": data.chelsea(),
        "coffee": data.coffee(),
        "rocket": data.rocket(),
        "flower": flower,
        "palace": china,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, pixels in photographs.items():
            Image.fromarray(pixels).save(Path(folder) / f"{name}.png")
        network = ["--network", "torchvision/squeezenet1_0", "--score_layer", "classifier.1"]
        weights = [word for file in sys.argv[1:2] for word in ("--weights", file)]
        sheet = ["--methods", "all", "--masks", "1000", "--side", "96", "--out", str(OUT)]
        sys.exit(main(["compare", folder, *network, *weights, *sheet]))
