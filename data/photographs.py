"""Photographs without classes: every image below a folder, cropped at random for training."""

from pathlib import Path

import torch

from fulgurite.data.crops import at_random, from_the_middle
from fulgurite.data.datasets import OnDisk
from fulgurite.data.image_data_module import ImageData, check_side, usual_statistics
from fulgurite.data.image_files import images_by_real_path, printable
from fulgurite.data.manifest import Manifest
from fulgurite.data.readable_images import OnBadImage, ReadableImages, name_bad_images, way_with_bad_images
from fulgurite.data.splits import set_aside

CLASS = "photograph"


class Photographs(ImageData):
    """All images below `path`, in any folders, in colour; a `val_share` of them is for validation.

    They have one class, so that code for labelled images can read them. For images that cannot be read, see
    `Folder`.

    Raises:
        ValueError: there is no such folder, or there are not two images in it.
    """

    framing = "middle"
    channels = 3
    classes = (CLASS,)

    def __init__(
        self,
        path: str | Path,
        *,
        size: int = 256,
        val_share: float = 0.05,
        on_bad_image: str = "skip",
        batch_size: int = 4,
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size=batch_size, workers=workers, seed=seed)
        check_side(size)
        if not 0 < val_share < 1:
            raise ValueError(f"val_share is between 0 and 1, both excluded; got {val_share}")
        path = Path(path).expanduser()
        if not path.is_dir():
            raise ValueError(f"there is no folder {printable(path)}; wanted one with photographs in it")
        files = list(images_by_real_path(path).values())
        if len(files) < 2:
            raise ValueError(f"images in {printable(path)}: {len(files)}; wanted at least two")
        self.size, (self.mean, self.std) = size, usual_statistics(3)
        self._on_bad_image: OnBadImage = way_with_bad_images(on_bad_image)
        self._manifest = Manifest(path)
        self._bad = self._manifest.check(files)
        train, val = set_aside(torch.zeros(len(files), dtype=torch.long), share=val_share, seed=seed)
        self._files = {
            name: {CLASS: [files[index] for index in own.tolist()]}
            for name, own in (("train", train), ("val", val))
        }
        name_bad_images(self._files, self._bad, self._on_bad_image)

    def parts(self) -> tuple[OnDisk, OnDisk, OnDisk]:
        """Each decodes its images on request; only the first frames them at random."""
        train, val = (self._part(name) for name in ("train", "val"))
        return train, val, val

    def _part(self, name: str) -> OnDisk:
        files = self._files[name]
        pictures = ReadableImages(
            files, channels=3, bad=self._bad, on_bad_image=self._on_bad_image, manifest=self._manifest
        )
        frame = at_random(self.size) if name == "train" else from_the_middle(self.size, margin=1)
        labels = torch.zeros(len(files[CLASS]), dtype=torch.long)
        return OnDisk(pictures, labels, self.classes, channels=3, frame=frame)
