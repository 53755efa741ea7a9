"""Embeddings of validation images by PCA and t-SNE or UMAP, and TensorBoard's projector."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.callbacks.codes import CodeProbe
from fulgurite.callbacks.framework.artifacts import Artifact, Embedding, Picture
from fulgurite.callbacks.framework.label_sets import by_label_sets
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.plots import scatter_plot
from fulgurite.probes.render import RGB, noted
from fulgurite.probes.representation.map_quality import map_quality
from fulgurite.probes.representation.projections import MAPS, MapName, aligned, check_map, pca

POINTS, PLANE = "map", "plane"
AXES = 50  # of a code, at most: the projector computes with all of them


class Embeddings(CodeProbe):
    """Maps of the codes (inputs of the classifier): PCA and t-SNE scatters, and TensorBoard's projector.

    Points are coloured by class; of several labels for an image, by the set of labels. Each t-SNE
    starts from the previous map and is rotated to it, so that points move as far as their codes change; its
    trustworthiness is written below it (see `map_quality`). The plane of the principal axes is rotated to the
    last one, too (Procrustes); below it is the variance that it explains. t-SNE of 500 points takes about a
    second next to the forward passes: for every epoch.

    Args:
        images: how many validation images; None for all.
        layer: the classifier, whose input is the code; the last linear layer or convolution without it.
        points: at most this many in the t-SNE scatter, whose time grows faster than their number.
        kept: the projector keeps the last codes, and one in this many; those of 2000 images take a megabyte.
        method: "tsne", or "umap" with umap-learn, `pip install 'fulgurite[umap]'`.
        **schedule: as for `ProbeCallback`.
    """

    fewer = "images"
    logs_numbers = False

    def __init__(
        self,
        *,
        images: int | None = 2000,
        layer: str | None = None,
        points: int = 500,
        kept: int = 10,
        method: MapName = "tsne",
        **schedule,
    ):
        super().__init__(layer, images=images, **schedule)
        check_map(method)
        if kept < 1:
            raise ValueError(f"kept={kept}; wanted at least 1")
        self.points, self.kept, self.film.side = points, kept, 560
        self.method: MapName = method

    def compose(self, observations: Mapping[str, Tensor], sample: Sample) -> Mapping[str, Artifact]:
        """An entry for the projector and two scatters."""
        every = torch.cat(list(observations.values()))
        few = range(0, len(every), -(-len(every) // self.points))
        sample = by_label_sets(sample)
        labels = torch.zeros(len(every), dtype=torch.long) if sample.labels is None else sample.labels
        main = pca(every, AXES)
        if sample.labels is not None and not sample.classes:
            sample = replace(sample, classes=tuple(map(str, range(int(labels.amax()) + 1))))
        start = self.memory.last.get(POINTS)
        start = start if start is not None and len(start) == len(few) else None
        points = MAPS[self.method](main[few], start=start)
        self.memory.keep(POINTS, points)
        caption = [] if start is None else ["started from the previous map and rotated to it"]
        if len(few) > 3:
            caption.insert(0, map_quality(main[few], points).caption)
        return {
            "pca": Picture(self._plane(every, main, labels, sample)),
            self.method: Picture(noted(scatter_plot(points, labels[few], sample.classes), *caption)),
            "": Embedding(main, sample, passing=not self.look.last and self.look.number % self.kept > 0),
        }

    def _plane(
        self,
        every: Float[Tensor, "n d"],
        main: Float[Tensor, "n p"],
        labels: Int[Tensor, "n"],
        sample: Sample,
    ) -> RGB:
        """The two principal axes, rotated to the previous map, and the variance that they explain."""
        flat = torch.nn.functional.pad(main[:, :2], (0, max(0, 2 - main.shape[1]))).float()
        total = every.double().var(0, correction=0).sum().clamp(min=1e-30)
        shares = (flat.double().var(0, correction=0) / total).tolist()
        words = [f"explained variance: {shares[0]:.0%} and {shares[1]:.0%}, {sum(shares):.0%} in this plane"]
        last = self.memory.last.get(PLANE)
        if last is not None and last.shape == flat.shape:
            flat = aligned(flat, last)
            words.append("rotated to the previous map, so axes are not the principal ones")
        self.memory.keep(PLANE, flat)
        return noted(scatter_plot(flat, labels, sample.classes), *words)
