"""Thumbnails of validation images at their t-SNE positions at each epoch, and snapped to a grid."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fulgurite.callbacks.codes import CodeProbe
from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.counted import counted
from fulgurite.probes.render import captioned, picture
from fulgurite.probes.representation.map_quality import MOST, map_quality, snapped
from fulgurite.probes.representation.projections import MAPS, MapName, check_map
from fulgurite.probes.representation.render_image_grid import render_grid, render_scattered

POINTS = "map"


class ImageGrid(CodeProbe):
    """Images where t-SNE puts their codes: `map` has thumbnails at their places, `grid` one in each cell.

    Seams between cells show the actual distance of the codes. Each look's map starts from the last one's and
    is rotated to it, so that images stay where they are unless their codes change; its quality is written
    below it, and logged as `trustworthiness` and `neighbours kept`. 400 images take about a second on top of
    the forward pass: for every epoch of most trainings, or every k epochs of short ones.

    Args:
        thumbnail: the side of an image, in pixels.
        layer: the classifier, whose input is the code; the last linear layer or convolution without it.
        images: how many validation images, at most 1600.
        method: "tsne", or "umap" with umap-learn, `pip install 'fulgurite[umap]'`.
        **schedule: as for `ProbeCallback`.
    """

    fewer = "images"

    def __init__(
        self,
        *,
        thumbnail: int = 32,
        layer: str | None = None,
        images: int | None = 400,
        method: MapName = "tsne",
        **schedule,
    ):
        super().__init__(layer, images=images, **schedule)
        check_map(method)
        if thumbnail < 1:
            raise ValueError(f"thumbnail={thumbnail}; wanted a side of at least 1 pixel")
        self.thumbnail, self.film.side = thumbnail, 400
        self.method: MapName = method

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's, and the number of images fits a map and a grid."""
        if self.images is not None and self.images > len(sample) and len(sample) < 4:
            return  # there are no more: it stays out
        if not 4 <= len(sample) <= MOST:
            raise ValueError(f"{counted(len(sample), 'image')} on a grid; wanted 4 to {MOST}, by images=")
        super().check(network, sample)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks; none of fewer than 4 images."""
        if len(sample) < 4:
            return self.stay_out(f"{counted(len(sample), 'image')} on a grid; wanted at least 4")
        return super().subjects(network, sample)

    def compose(self, observations: Mapping[str, Tensor], sample: Sample) -> Mapping[str, Artifact]:
        """The map, the grid, and how far the map can be trusted."""
        if not observations:
            return {}
        every = torch.cat(list(observations.values()))
        start = self.memory.last.get(POINTS)
        start = start if start is not None and len(start) == len(every) else None
        points = MAPS[self.method](every, start=start)
        self.memory.keep(POINTS, points)
        quality = map_quality(every, points)
        tiles = [
            sized(picture(image), self.thumbnail)
            for name in observations
            for image in sample.chunk(name).images.cpu()
        ]
        caption = [quality.caption] + ["started from the previous map and rotated to it"] * (
            start is not None
        )
        numbers = {
            "trustworthiness": Scalar(quality.trustworthiness),
            "neighbours kept": Scalar(quality.kept),
        }
        return {
            "map": Picture(captioned(render_scattered(tiles, points), *caption)),
            "grid": Picture(captioned(render_grid(tiles, snapped(points), every), *caption)),
            **(numbers if quality.known else {}),
        }
