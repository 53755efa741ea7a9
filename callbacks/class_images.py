"""Class images (activation maximisation of class scores) at each epoch."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.distributed import is_main_process
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attacks.render_attack import caption
from fulgurite.probes.objectives import pooled
from fulgurite.probes.reading import outputs
from fulgurite.probes.record import layer_of, nearest
from fulgurite.probes.render import RGB, captioned, enlarged, grid, picture
from fulgurite.probes.synthesis.class_images import class_images


class ClassImages(ProbeCallback):
    """An image for each class that makes its score large, with the probability that the network gives it.

    Args:
        only: the classes to show, by name; the first `most` without it.
        most: how many.
        paint: `class_images` (a Fourier canvas with jitter), `simonyan` (pixels), or a function like them.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        steps: of the optimiser.
        background: what an empty image is like, per channel; the median pixel of the sample without it.
        beside: another network to show above this one, and its name: what makes it, called once, at the first
            look.
        precise: paint in float64, so that a picture does not depend on how many threads or processes compute
            it; about twice as slow on small networks, far more on large ones.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(
        self,
        only: Sequence[str] | None = None,
        *,
        most: int = 16,
        paint: Callable = class_images,
        layer: str = "",
        steps: int = 128,
        background: Sequence[float] | None = None,
        beside: tuple[str, Callable[[], nn.Module]] | None = None,
        precise: bool = False,
        **schedule,
    ):
        super().__init__(**{"images": 64, **schedule})
        if isinstance(only, str) or not all(isinstance(name, str) for name in only or ()):
            raise ValueError(f"only={only!r}; wanted a list of the names of classes")
        if min(most, steps) < 1:
            raise ValueError(f"most={most}, steps={steps}; wanted at least 1 of each")
        self.film.side = 112  # a tile and its caption, as they are
        self.only, self.most, self.paint, self.layer, self.steps = only, most, paint, layer, steps
        self.background, self.precise = background, precise
        self.beside, self._above = beside, {}

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layer is one of the network's, and the classes are known."""
        layer_of(network, self.layer)
        for name in self.only or ():
            if name not in sample.classes:
                raise ValueError(f"no class {name!r}; {nearest(name, sample.classes)}")

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The classes."""
        return self.only or sample.classes[: self.most]

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Artifact]:
        """An image for each class; below the other network's, if there is one."""
        tiles = self._painted(network, sample, subjects)
        if self.beside is not None:
            name, made = self.beside
            if missing := [subject for subject in subjects if subject not in self._above]:
                other = made().to(sample.device)
                self._above |= self._painted(other, sample, missing, name)
            tiles = {subject: grid([self._above[subject], tiles[subject]], columns=1) for subject in subjects}
        return {subject: Picture(tile) for subject, tile in tiles.items()}

    def compose(self, seen: Mapping[str, Picture], sample: Sample) -> Mapping[str, Artifact]:
        """All of them on one sheet."""
        columns = 5 if len(seen) in (5, 10) and self.beside is None else None
        columns = min(10, len(seen)) if self.beside is not None else columns
        return {"": Picture(grid([tile.pixels for tile in seen.values()], columns=columns, gap=4))}

    def _painted(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str], whose: str = ""
    ) -> dict[str, RGB]:
        background = (
            self.background
            or sample.images.movedim(1, 0).flatten(1).median(1).values.clamp(0.05, 0.95).tolist()
        )
        labels = torch.tensor([sample.classes.index(name) for name in subjects], device=sample.device)
        images = self.paint(
            network,
            labels,
            sample.shape,
            background=background,
            seeds=[self.seed_of(name) for name in subjects],
            layer=self.layer,
            steps=self.steps,
            precise=self.precise,
            progress=self.name if is_main_process() else None,
        )
        logits = pooled(outputs(network, images, [""])[""])
        chances = logits.softmax(1).gather(1, labels[:, None])[:, 0].tolist()
        tiles = {}
        for name, image, chance in zip(subjects, images, chances, strict=True):
            lines = [caption(name, chance, side=96), *([whose] if whose else [])]
            tiles[name] = captioned(enlarged(picture(image), side=96), *lines)
        return tiles
