"""Strongest patches of units of each layer at each epoch (Girshick et al. 2014)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import checked_layers, layers_or_stages
from fulgurite.probes.activations.patches import check_enough, class_purity, cut_patches, fields_of
from fulgurite.probes.activations.receptive_field import ReceptiveField
from fulgurite.probes.activations.render_patches import render_patches
from fulgurite.probes.activations.top_responses import TopResponses, evenly, top_responses, with_maps
from fulgurite.probes.top_k import TopK


class Patches(ProbeCallback):
    """For each layer a picture: the image patches that excite some of its units most, and random directions.

    As scalars, the class purity of all channels, `purity/LAYER`, and of the directions,
    `purity of directions/LAYER`: see `strongest_patches`.

    Args:
        layers: by path, each with maps or tokens on a grid; those of the network's stages without it.
        units: the channels to show; `most`, spread evenly, without it.
        most: how many.
        directions: how many random directions.
        k: how many patches of each unit, each of another image.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    needs = "layers"

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        *,
        units: Sequence[int] | None = None,
        most: int = 8,
        directions: int = 8,
        k: int = 8,
        images: int | None = 512,
        **schedule,
    ):
        super().__init__(images=images, **schedule)
        if min(most, k) < 1 or directions < 0:
            raise ValueError(f"most={most}, directions={directions}, k={k}; wanted at least 1 unit and patch")
        self.layers, self.units, self.most = checked_layers(layers), units, most
        self.directions, self.k = directions, k
        self.film.side = 400
        self._found = dict[str, TopResponses]()
        self._shown = dict[str, Sequence[int]]()
        self._fields = dict[str, ReceptiveField | None]()

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers have maps and these channels, and there are as many images as patches."""
        check_enough(len(sample), self.k)
        self.subjects(network, sample)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, in chunks."""
        if not self._found:
            layers = layers_or_stages(network, sample, self.layers)
            if self.layers is None:
                layers = with_maps(network, sample[:1].images, layers)
            found = self._responses(network, sample[:1].images, layers)
            self._shown = {
                layer: evenly(own.channels, self.most) if self.units is None else self.units
                for layer, own in found.items()
            }
            for layer, own in found.items():
                own.of(self._shown[layer])  # raises where there is no such channel
            self._found = found
            # from anywhere in an image, a field of twice its side covers all of it
            largest = max(128, 4 * max(sample.shape[1:]))
            self._fields = fields_of(network, self._found, sample.shape, largest=largest)
        return sample.chunks()

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, Mapping[str, Tensor]]]:
        """The strongest responses of each chunk, by layer."""
        observations = dict[str, dict[str, Mapping[str, Tensor]]]()
        for name in subjects:
            found = self._responses(network, sample.chunk(name).images, list(self._found))
            for own in found.values():
                own.top.ids[own.top.ids >= 0] += int(name)  # places in the sample
            observations[name] = {layer: own.top.state_dict() for layer, own in found.items()}
        return observations

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """A picture and two numbers for each layer."""
        artifacts = dict[str, Artifact]()
        found = {layer: replace(own, top=TopK(self.k)) for layer, own in self._found.items()}
        for chunk in observations.values():
            for layer, state in chunk.items():
                part = TopK(self.k)
                part.load_state_dict({name: value.cpu() for name, value in state.items()})
                found[layer].top.merge(part)
        shown = {layer: own.of(self._shown[layer]) for layer, own in found.items()}
        for layer, own in cut_patches(_Images(sample), shown, self._fields).items():
            artifacts[layer] = Picture(render_patches(own, side=64))
        if sample.labels is not None:
            for layer, own in found.items():
                labels, values, count = sample.labels.cpu()[own.top.ids], own.top.values, len(own.channels)
                artifacts[f"purity/{layer}"] = Scalar(class_purity(labels[:count], values[:count]))
                if own.directions:
                    purity = class_purity(labels[count:], values[count:])
                    artifacts[f"purity of directions/{layer}"] = Scalar(purity)
        return artifacts

    def _responses(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], layers: Sequence[str]
    ) -> dict[str, TopResponses]:
        # of all channels: the class purity is over all of them
        return top_responses(network, images, layers, directions=self.directions, k=self.k, seed=self.seed)


class _Images(Dataset):
    """The images of a sample by their places, with labels if they have any."""

    def __init__(self, sample: Sample):
        self.sample = sample

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, place: int) -> tuple[Tensor, ...]:
        one = self.sample[[place]]
        return one.images[0].cpu(), *(() if one.labels is None else (one.labels[0].cpu(),))
