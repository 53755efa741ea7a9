"""Reconstructions of validation images from each layer at each epoch (Mahendran & Vedaldi 2015)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import LayerStrips, Strip
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.render import captioned, grid, picture
from fulgurite.probes.synthesis.inversion import (
    Inversion,
    PriorName,
    codes_of,
    invert,
    mean_distance,
    priors_of,
)

SIDE = 96  # of a tile


class Inversions(LayerStrips):
    """Images next to their reconstructions from each layer's output.

    Below each is its relative error and the PSNR. Scalars, for each layer: `LAYER/relative error`,
    `LAYER/PSNR`, `LAYER/error over mean distance` (of two images of the sample) and, of several repeats,
    `LAYER/spread`. See `Inversion` for their meaning.

    Args:
        layers: by path; the network's stages without it.
        repeats: reconstructions of each image, from as many starts; the first is shown.
        prior: "none", "tv1" or "tv2", see `invert`.
        strength: of the prior.
        steps: of the optimiser.
        warm: start from its previous reconstructions, which are then saved in the checkpoint.
        precise: compute in float64, so that a picture does not depend on threads and processes; slower.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    numbers = ("relative error", "error over mean distance", "PSNR", "spread")

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        *,
        repeats: int = 1,
        prior: PriorName = "tv2",
        strength: float = 0.03,
        steps: int = 100,
        warm: bool = False,
        precise: bool = False,
        images: int | None = 4,
        **schedule,
    ):
        super().__init__(layers, images=images, **schedule)
        if min(repeats, steps) < 1:
            raise ValueError(f"repeats={repeats}, steps={steps}; wanted at least 1 of each")
        priors_of(prior, strength, (1, 1, 1))
        self.repeats, self.steps = repeats, steps
        self.prior: PriorName = prior
        self.strength, self.warm, self.precise = strength, warm, precise
        self.film.side = 480

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Strip]:
        """Of each image: a strip of reconstructions, and how good they are."""
        images = sample.take(subjects).images
        found = {layer: self._inverted(network, sample, images, layer, subjects) for layer in self.found}
        observations = {}
        for place, subject in enumerate(subjects):
            tiles = [captioned(sized(picture(images[place]), SIDE), "image")]
            rows = []
            for layer, made in found.items():
                spread = (
                    made.spread[place] if self.repeats > 1 else torch.full_like(made.spread[place], torch.nan)
                )
                row = [*(values[:, place].mean() for values in made[1:4]), spread]
                rows.append(torch.stack(row))
                lines = layer, f"{float(row[0]):.1%}, {float(row[2]):.1f} dB"
                tiles.append(captioned(sized(picture(made.images[0, place]), SIDE), *lines))
            numbers = torch.stack(rows).cpu()
            observations[subject] = Strip(grid(tiles, columns=len(tiles), gap=2), numbers)
        return observations

    def _inverted(
        self, network: nn.Module, sample: Sample, images: Tensor, layer: str, subjects: Sequence[str]
    ) -> Inversion:
        keys = [f"{subject}/{layer}" for subject in subjects]
        kept = [self.memory.last.get(key) for key in keys] if self.warm else []
        known = [one for one in kept if one is not None]
        warm = len(known) == len(keys)
        start = torch.stack(known, 1).to(images.device) / 255 if warm else None
        made = invert(
            network,
            images,
            layer,
            seeds=range(self.seed, self.seed + self.repeats),
            prior=self.prior,
            strength=self.strength,
            steps=self.steps,
            start=start,
            distance=mean_distance(codes_of(network, sample.images, layer)),
            precise=self.precise,
            watch=self.watch(layer),
        )
        if self.warm:
            pixels = (made.images * 255).round().to("cpu", torch.uint8)
            for place, key in enumerate(keys):
                self.memory.keep(key, pixels[:, place].clone())
        return made
