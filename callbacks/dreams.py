"""DeepDream of validation images at each epoch: what each layer sees in them (Mordvintsev et al. 2015)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.distributed import is_main_process
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import checked_layers, layers_or_stages
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.feature_objectives import energy
from fulgurite.probes.render import RGB, captioned, grid, picture
from fulgurite.probes.synthesis.dreams import deep_dream
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.watch import Watch

SIDE = 128  # of a tile


class Seen(NamedTuple):
    """Of an image: its strip, and how many times the energy of each layer has grown."""

    strip: RGB
    growth: tuple[float, ...]


class Dreams(ProbeCallback):
    """Images beside what each layer makes of them when its energy grows: DeepDream with octaves.

    The same photographs at each epoch, so that a film shows when edges, textures and parts of objects come
    into a layer. As scalars, `LAYER/energy`: how many times the layer's energy is that of the image.

    Args:
        layers: by path; the network's stages without it.
        octaves: how many sizes.
        steps: at each size.
        lr: mean absolute change of a pixel at each step.
        precise: compute in float64, so that a picture does not depend on threads and processes; slower.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    needs = "layers"

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
        super().__init__(images=images, **schedule)
        if min(octaves, steps) < 1 or lr <= 0:
            raise ValueError(
                f"octaves={octaves}, steps={steps}, lr={lr:g}; wanted at least 1 of each and a positive rate"
            )
        self.layers, self.octaves, self.steps = checked_layers(layers), octaves, steps
        self.lr, self.precise = lr, precise
        self.film.side = 480
        self._found = list[str]()

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers can be read."""
        self._found = self._found or layers_or_stages(network, sample, self.layers)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        self.check(network, sample)
        return sample.each()

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Seen]:
        """Of each image a strip: itself, and a dream for each layer."""
        images = sample.take(subjects).images
        strips = [[captioned(sized(picture(image), SIDE), "image")] for image in images]
        growth = []
        for layer in self._found:
            dreamed = deep_dream(
                network,
                images,
                layer,
                octaves=self.octaves,
                steps=self.steps,
                lr=self.lr,
                seed=self.seed,
                precise=self.precise,
                watch=Watch(f"{self.name} {layer}" if is_main_process() else None),
            )
            before, after = (values_of(network, energy(layer), own) for own in (images, dreamed))
            growth.append((after / before.clamp(min=1e-12)).tolist())
            for strip, image in zip(strips, dreamed, strict=True):
                strip.append(captioned(sized(picture(image), SIDE), layer))
        return {
            subject: Seen(grid(strip, columns=len(strip), gap=2), own)
            for subject, strip, own in zip(subjects, strips, zip(*growth, strict=True), strict=True)
        }

    def compose(self, observations: Mapping[str, Seen], sample: Sample) -> Mapping[str, Artifact]:
        """All strips on one sheet, and the mean growth of each layer's energy."""
        means = torch.tensor([one.growth for one in observations.values()]).mean(0)
        numbers = {f"{layer}/energy": Scalar(value) for layer, value in zip(self._found, means, strict=True)}
        return {"": Picture(grid([one.strip for one in observations.values()], columns=1, gap=4)), **numbers}
