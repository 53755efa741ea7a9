"""DeepDream of validation images at each epoch: what each layer sees in them (Mordvintsev et al. 2015)."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import LayerStrips, Strip
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.feature_objectives import energy
from fulgurite.probes.render import captioned, grid, picture
from fulgurite.probes.synthesis.dreams import deep_dream
from fulgurite.probes.synthesis.features import values_of

SIDE = 128  # of a tile


class Dreams(LayerStrips):
    """Images next to their DeepDreams, in which the energy of each layer grows, with octaves.

    The same photographs at each epoch, so that a film shows when a layer starts to respond to edges, textures
    and parts of objects. As scalars, `LAYER/energy`: the layer's energy over that of the original image.

    Args:
        layers: by path; the network's stages without it.
        octaves: how many sizes.
        steps: at each size.
        lr: mean absolute change of a pixel at each step.
        precise: compute in float64, so that a picture does not depend on threads and processes; slower.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    numbers = ("energy",)

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        *,
        octaves: int = 3,
        steps: int = 10,
        lr: float = 1.5 / 255,
        precise: bool = False,
        images: int | None = 3,
        **schedule,
    ):
        super().__init__(layers, images=images, **schedule)
        if min(octaves, steps) < 1 or lr <= 0:
            raise ValueError(
                f"octaves={octaves}, steps={steps}, lr={lr:g}; wanted at least 1 of each and a positive rate"
            )
        self.octaves, self.steps, self.lr, self.precise = octaves, steps, lr, precise
        self.film.side = 480

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Strip]:
        """Of each image a strip: itself, and a dream for each layer."""
        images = sample.take(subjects).images
        strips = [[captioned(sized(picture(image), SIDE), "image")] for image in images]
        growth = []
        for layer in self.found:
            dreamed = deep_dream(
                network,
                images,
                layer,
                octaves=self.octaves,
                steps=self.steps,
                lr=self.lr,
                seed=self.seed,
                precise=self.precise,
                watch=self.watch(layer),
            )
            before, after = (values_of(network, energy(layer), own) for own in (images, dreamed))
            growth.append((after / before.clamp(min=1e-12)).tolist())
            for strip, image in zip(strips, dreamed, strict=True):
                strip.append(captioned(sized(picture(image), SIDE), layer))
        return {
            subject: Strip(grid(strip, columns=len(strip), gap=2), torch.tensor(own)[:, None])
            for subject, strip, own in zip(subjects, strips, zip(*growth, strict=True), strict=True)
        }
