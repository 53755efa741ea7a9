"""Nearest neighbours in code space next to those in pixel space at each epoch, kNN accuracy and recall."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fulgurite.callbacks.codes import CodeProbe
from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.chunks import joined
from fulgurite.callbacks.framework.label_sets import by_label_sets
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.counted import counted
from fulgurite.probes.render import RGB
from fulgurite.probes.representation.codes import codes
from fulgurite.probes.representation.neighbours import (
    Metric,
    knn_accuracy,
    nearest_neighbours,
    pixel_codes,
    recall_at_k,
)
from fulgurite.probes.representation.neighbours import Neighbours as Found
from fulgurite.probes.representation.render_neighbours import DISTANCES, render_neighbours, shown


class Neighbours(CodeProbe):
    """A picture of some images' nearest neighbours by the codes before the classifier, and by pixels.

    As scalars, for codes and for pixels: `kNN accuracy`, the share of images whose neighbours are mostly of
    their class, and `recall at 1` and at k, the share with one of their class among them. Images are
    compared with all others of the sample; as pixels, at most 64 a side. Cheap enough for every epoch: on top
    of the forward pass, 2000 images take a tenth of a second.

    Args:
        k: how many neighbours.
        queries: how many images to show those of, spread evenly over the sample.
        metric: "cosine" or "l2", of codes and of pixels.
        layer: the classifier, whose input is the code; the last linear layer or convolution without it.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(
        self,
        *,
        k: int = 5,
        queries: int = 8,
        metric: Metric = "cosine",
        layer: str | None = None,
        images: int | None = 1000,
        **schedule,
    ):
        super().__init__(layer, images=images, **schedule)
        if min(k, queries) < 1:
            raise ValueError(f"k={k}, queries={queries}; wanted at least 1 neighbour and query")
        if metric not in ("cosine", "l2"):
            raise ValueError(f'metric={metric!r}; wanted "cosine" or "l2"')
        self.k, self.queries = k, queries
        self.metric: Metric = metric
        self.film.side = 600

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are more images than neighbours, and the layer is one of the network's."""
        if len(sample) <= self.k:
            raise ValueError(
                f"{counted(len(sample), 'image')} for {self.k} neighbours of each; "
                f"wanted at least {self.k + 1}"
            )
        super().check(network, sample)

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """The codes and the pixels of each chunk."""
        found = {}
        for name in subjects:
            images = sample.chunk(name).images
            found[name] = {
                "codes": codes(network, images, self.classifier).cpu(),
                "pixels": pixel_codes(images).cpu(),
            }
        return found

    def compose(
        self, observations: Mapping[str, Mapping[str, Tensor]], sample: Sample
    ) -> Mapping[str, Artifact]:
        """The picture, and the numbers where there are labels."""
        every, sample = joined(observations), by_label_sets(sample)
        found = {
            name: nearest_neighbours(own.to(sample.device), k=self.k, metric=self.metric)
            for name, own in every.items()
        }
        artifacts: dict[str, Artifact] = {}
        labels = sample.labels
        if labels is not None:
            for name, own in found.items():
                recall = recall_at_k(own, labels)
                artifacts[f"kNN accuracy/{name}"] = Scalar(knn_accuracy(own, labels))
                artifacts |= {f"recall at {k}/{name}": Scalar(recall[k - 1]) for k in {1, self.k}}
        queries = [place * len(sample) // self.queries for place in range(min(self.queries, len(sample)))]
        return {"": Picture(self._picture(sample, list(dict.fromkeys(queries)), found)), **artifacts}

    def _picture(self, sample: Sample, queries: Sequence[int], found: Mapping[str, Found]) -> RGB:
        own = [
            (f"{name}, {DISTANCES[self.metric]}", Found(all_.places[queries], all_.distances[queries]))
            for name, all_ in found.items()
        ]
        places = shown(queries, own)
        images = dict(zip(places, sample[places].images.cpu(), strict=True))
        labels = sample.labels
        names = [
            str(place) if labels is None else sample.name(int(labels[place])) for place in range(len(sample))
        ]
        return render_neighbours(images, queries, own, names, classes=labels)
