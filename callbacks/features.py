"""Feature visualization of the strongest channels of each layer at each epoch (Olah et al. 2017)."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import LayerProbe
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.objectives import channel, pooled
from fulgurite.probes.render import RGB, captioned, grid, picture
from fulgurite.probes.synthesis.arguments import check_background
from fulgurite.probes.synthesis.features import feature_images, strongest, values_of

SIDE = 96  # of a tile


class Features(LayerProbe):
    """For each layer, images that maximise the channels that were the strongest at the start.

    Below each is its channel and its activation as a multiple of the largest of any image of the sample; the
    mean of that is a scalar, `LAYER/over the maximum`.

    Args:
        layers: by path; the network's stages without it.
        channels: of each layer, instead of the strongest.
        most: how many of the strongest.
        steps: of the optimiser.
        warm: start from its previous images, which are then saved in the checkpoint.
        background: what an empty image is like, per channel; mid-grey without it.
        precise: compute in float64, so that a picture does not depend on threads and processes; slower.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        *,
        channels: Sequence[int] | None = None,
        most: int = 4,
        steps: int = 64,
        warm: bool = False,
        background: Sequence[float] | None = None,
        precise: bool = False,
        images: int | None = 64,
        **schedule,
    ):
        super().__init__(layers, images=images, **schedule)
        if min(most, steps) < 1:
            raise ValueError(f"most={most}, steps={steps}; wanted at least 1 of each")
        if channels is not None and (not channels or min(channels) < 0):
            raise ValueError(f"channels={channels}; wanted numbers from 0 on, or None for the strongest")
        check_background(background)
        self.channels, self.most = channels, most
        self.steps, self.warm, self.background, self.precise = steps, warm, background, precise
        self.film.side = 4 * SIDE

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers can be read, and have such channels."""
        for layer in self.subjects(network, sample):
            outputs_of = pooled(outputs(network, sample[:1].images, [layer])[layer])
            if self.channels is not None and max(self.channels) >= outputs_of.shape[1]:
                raise ValueError(
                    f"no channel {max(self.channels)} of {layer!r}: there are {outputs_of.shape[1]}, "
                    "counted from 0"
                )

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The layers."""
        return self.find(network, sample)

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Artifact]:
        """Of each layer, a strip of images, and how active their channels are."""
        observations, images = {}, sample.images
        for layer in subjects:
            numbers = self._numbers(network, images, layer)
            made = self._painted(network, sample, layer, numbers)
            ratios = _over_the_maximum(network, images, made, layer, numbers)
            tiles = [
                _tile(image, f"{number}: {ratio:.2g} x")
                for image, number, ratio in zip(made, numbers.tolist(), ratios.tolist(), strict=True)
            ]
            observations[layer] = Picture(captioned(grid(tiles, columns=len(tiles), gap=2), layer))
            observations[f"{layer}/over the maximum"] = Scalar(ratios.mean())
        return observations

    def compose(self, observations: Mapping[str, Artifact], sample: Sample) -> Mapping[str, Artifact]:
        """All strips on one sheet, and the scalars."""
        strips = [item.pixels for item in observations.values() if isinstance(item, Picture)]
        numbers = {key: item for key, item in observations.items() if isinstance(item, Scalar)}
        return {"": Picture(grid(strips, columns=1, gap=4)), **numbers}

    def _numbers(self, network: nn.Module, images: Tensor, layer: str) -> Int[Tensor, "k"]:
        if self.channels is not None:
            return torch.tensor(list(self.channels), device=images.device)
        kept = self.memory.first.get(f"{layer}/channels")
        if kept is None:
            kept = strongest(network, images, layer, self.most).tolist()
            self.memory.keep(f"{layer}/channels", kept)
        return torch.tensor(kept, device=images.device)

    def _painted(
        self, network: nn.Module, sample: Sample, layer: str, numbers: Int[Tensor, "k"]
    ) -> Float[Tensor, "k c h w"]:
        kept = self.memory.last.get(f"{layer}/images") if self.warm else None
        made = feature_images(
            network,
            channel(layer, numbers),
            sample.shape,
            seeds=[self.seed_of(f"{layer} {number}") for number in numbers.tolist()],
            background=self.background,
            steps=self.steps,
            start=None if kept is None else kept.to(sample.device) / 255,
            precise=self.precise,
            watch=self.watch(layer),
        )
        if self.warm:
            self.memory.keep(f"{layer}/images", (made * 255).round().to("cpu", torch.uint8))
        return made


def _over_the_maximum(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    made: Float[Tensor, "k c h w"],
    layer: str,
    numbers: Int[Tensor, "k"],
) -> Float[Tensor, "k"]:
    """The activation of each channel at its image, over its maximum on a sample."""
    most = pooled(outputs(network, images, [layer])[layer])[:, numbers].amax(0)
    reached = values_of(network, channel(layer, numbers), made)
    return reached / most.clamp(min=1e-6)


def _tile(image: Float[Tensor, "c h w"], caption: str) -> RGB:
    return captioned(sized(picture(image), SIDE), caption)
