"""Concept sheets of classes at each epoch (CRAFT, Fel et al. 2023)."""

from collections.abc import Mapping, Sequence

from torch import nn

from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.activations.concept_discovery import LEAST_CROP, concepts
from fulgurite.probes.activations.render_concepts import render_concepts
from fulgurite.probes.attribution.activation_gradients import activation_graph
from fulgurite.probes.counted import counted
from fulgurite.probes.objectives import class_score
from fulgurite.probes.record import layer_of, nearest


class Concepts(ProbeCallback):
    """A sheet for each class: concepts of its images, their importance, strongest crops, and where they are.

    See `concepts`.

    Args:
        targets: the classes, by name or number; the first two without it.
        layer: the layer whose features are factorised; the last one with maps without it.
        count: how many concepts.
        most: at most this many images of each class.
        crop: the side of a crop, as a share of the image's: 0.02 to 1.
        score_layer: where the scores are read; before the last ReLU, if the logits pass through one.
        images: how many validation images, of all classes; None for all.
        **schedule: as for `ProbeCallback`.
    """

    logs_numbers = False

    def __init__(
        self,
        targets: Sequence[str | int] | None = None,
        *,
        layer: str | None = None,
        count: int = 5,
        most: int = 32,
        crop: float = 0.35,
        score_layer: str = "",
        images: int | None = 512,
        **schedule,
    ):
        super().__init__(images=images, **schedule)
        if isinstance(targets, str) or (targets is not None and not targets):
            raise ValueError(f"targets={targets!r}; wanted a list of classes, or None for the first two")
        if min(most, count) < 1:
            raise ValueError(f"most={most}, count={count}; wanted at least 1 image and concept")
        if not LEAST_CROP <= crop <= 1:
            raise ValueError(f"crop={crop}; wanted a share of an image's side, {LEAST_CROP} to 1")
        self.targets, self.layer, self.count, self.most = targets, layer, count, most
        self.crop, self.score_layer, self.film.side = crop, score_layer, 960

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers are the network's, and each class has images."""
        layer_of(network, self.score_layer)
        for name in self.subjects(network, sample):
            self._of_class(sample, name)
        score = class_score(0, layer=self.score_layer)
        with activation_graph(network, sample[:1].images, score, self.layer) as graph:
            channels = graph.to_maps(graph.leaf).shape[1]
            if self.count > channels:
                raise ValueError(
                    f"{counted(self.count, 'concept')} of {counted(channels, 'channel')} of layer "
                    f"{graph.layer!r}; wanted no more than channels"
                )

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The names of the classes."""
        wanted = range(min(2, len(sample.classes))) if self.targets is None else self.targets
        return list(dict.fromkeys(_name(sample, one) for one in wanted))

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Picture]:
        """A sheet for each class."""
        sheets = dict[str, Picture]()
        for name in subjects:
            images = self._of_class(sample, name).images
            found = concepts(
                network,
                images,
                sample.classes.index(name),
                self.layer,
                count=self.count,
                crop=self.crop,
                score_layer=self.score_layer,
                seed=self.seed,
            )
            sheets[name] = Picture(render_concepts(images, found, name, side=80))
        return sheets

    def _of_class(self, sample: Sample, name: str) -> Sample:
        if sample.labels is None:
            raise ValueError("concepts are those of a class; wanted data with class numbers as labels")
        places = (sample.labels == sample.classes.index(name)).nonzero()[:, 0].tolist()[: self.most]
        if not places:
            raise ValueError(
                f"none of {counted(len(sample), 'image')} is of class {name!r}; wanted one at least"
            )
        return sample[places]


def _name(sample: Sample, target: str | int) -> str:
    if isinstance(target, int) and 0 <= target < len(sample.classes):
        return sample.classes[target]
    if target not in sample.classes:
        raise ValueError(
            f"no class {target!r} among {len(sample.classes)}; {nearest(str(target), sample.classes)}"
        )
    return str(target)
