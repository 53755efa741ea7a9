"""Class images (activation maximisation of class scores) at each epoch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.callbacks.classes import ClassProbe
from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.distributed import is_main_process
from fulgurite.callbacks.framework.film import NextTo
from fulgurite.callbacks.framework.reference import Reference
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.tasks import LABELS
from fulgurite.probes.attacks.losses import margin
from fulgurite.probes.attacks.render_attack import caption
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.objectives import pooled
from fulgurite.probes.record import nearest
from fulgurite.probes.render import LINE, RGB, captioned, enlarged, grid, picture
from fulgurite.probes.synthesis.arguments import check_background
from fulgurite.probes.synthesis.class_image_methods import METHODS
from fulgurite.probes.synthesis.class_images import default_steps
from fulgurite.probes.synthesis.watch import Watch
from fulgurite.probes.tasks import LogitsOf, OneLabel, answers

MOST_STEPS = 128
"""Of the default method during a run; the finished network's images take more from 128 px on."""


@dataclass(frozen=True)
class ClassImage(Picture):
    """An image of a class with its caption, its measurements by name, and the reference's image."""

    numbers: Mapping[str, float]
    reference: RGB | None = None


class ClassImages(ClassProbe):
    """An image for each class that makes its score large, with the probability that the network gives it.

    Scalars, averaged over the classes: `margin`, of the class's logit over the largest other; `probability`;
    `variation`, the mean square of differences of neighbouring pixels, as a multiple of the sample's; and, if
    there is a reference, `probability by NAME`, which is more informative: a network is always confident of
    its own images. Each label of a multi-label network is shown as class 1 of two: its margin is its logit.

    Args:
        only: the classes to show, by name; the first `most` without it.
        most: how many.
        method: one of `METHODS` by name: "fourier" (random transforms of a Fourier canvas), "simonyan",
            "mahendran", "yosinski", "maco" and "robust", the last two from the sample's images; or a function
            like them.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        steps: of the optimiser; the method's own default without it, at most 128 of "fourier": images of a
            run are made again and again, and shown at 96 px.
        warm: start from its previous images, which are then saved in the checkpoint.
        background: what an empty image is like, per channel; the median pixel of the sample without it.
        reference: another network, whose images are shown above this one's, and in the film before them; see
            `Reference`.
        reference_name: the name of its images.
        precise: compute in float64, so that a picture does not depend on how many threads or processes
            compute it; about twice as slow on small networks, far more on large ones.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    tasks = LABELS

    fewer, least = "subjects", 0.25

    def __init__(
        self,
        only: Sequence[str] | None = None,
        *,
        most: int = 16,
        method: str | Callable = "fourier",
        layer: str = "",
        steps: int | None = None,
        warm: bool = False,
        background: Sequence[float] | None = None,
        reference: Literal["start"] | str | Path | Callable[[], nn.Module] | None = None,
        reference_name: str = "reference",
        precise: bool = False,
        images: int | None = 64,
        **schedule,
    ):
        super().__init__(only, most=most, layer=layer, images=images, **schedule)
        if most < 1 or (steps is not None and steps < 1):
            raise ValueError(f"most={most}, steps={steps}; wanted at least 1 of each")
        check_background(background)
        self.film.side = 112  # a tile and its caption, as they are
        if isinstance(method, str) and method not in METHODS:
            raise ValueError(f"no method {method!r}; {nearest(method, list(METHODS))}")
        self.method = METHODS[method] if isinstance(method, str) else method
        if warm and "start" not in signature(self.method).parameters:
            raise ValueError("warm=True, but the method has no `start`; wanted one that takes images there")
        self.steps, self.warm, self.background, self.precise = steps, warm, background, precise
        self.reference = None if reference is None else Reference(reference)
        self.reference_name, self._above = reference_name, dict[str, RGB]()

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, ClassImage]:
        """An image for each class; below the reference's, if there is one."""
        if sample.task == "multilabel":
            return {subject: self._of_label(network, sample, subject) for subject in subjects}
        return self._of_classes(network, sample, subjects, self.logits_of)

    def _of_label(self, network: nn.Module, sample: Sample, subject: str) -> ClassImage:
        """One label of many is class 1 of two."""
        number = sample.classes.index(subject)
        labels = None if sample.targets is None else sample.targets[:, number].long()
        own = replace(sample, task="binary", targets=None, labels=labels, classes=(f"no {subject}", subject))
        with answers(network, OneLabel(number)):
            return self._of_classes(network, own, [subject], OneLabel(number))[subject]

    def _of_classes(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str], logits_of: LogitsOf | None
    ) -> Mapping[str, ClassImage]:
        images, labels = self._images(network, sample, subjects, start=self._previous(sample, subjects))
        if self.warm:
            for subject, image in zip(subjects, images, strict=True):
                self.memory.keep(f"{subject}/image", (image * 255).round().to("cpu", torch.uint8))
        logits = _logits(network, images)
        tiles = self._tiles(images, labels, logits, subjects)
        probability = logits.softmax(1).gather(1, labels[:, None])[:, 0]
        variation = _variation(images) / _variation(sample.images).mean().clamp(min=1e-12)
        numbers = {
            "margin": -margin(logits, labels),
            "probability": probability,
            "variation": variation,
        }
        above = dict(self._above)
        if self.reference is not None and self.reference.known:
            with self.reference.network(network, logits_of) as other:
                shares = _logits(other, images).softmax(1)
                numbers[f"probability by {self.reference_name}"] = shares.gather(1, labels[:, None])[:, 0]
                if missing := [subject for subject in subjects if subject not in above]:
                    theirs = self._images(other, sample, missing)
                    above |= self._tiles(*theirs, _logits(other, theirs[0]), missing)
            self._above = above if self.tried == 1 else self._above
        known = {name: values.tolist() for name, values in numbers.items()}
        return {
            subject: ClassImage(
                tiles[subject], {name: values[place] for name, values in known.items()}, above.get(subject)
            )
            for place, subject in enumerate(subjects)
        }

    def compose(self, observations: Mapping[str, ClassImage], sample: Sample) -> Mapping[str, Artifact]:
        """All of them on one sheet, and the means of their measurements."""
        columns = 5 if len(observations) in (5, 10) else None
        columns = columns if self.reference is None else min(10, len(observations))
        sheet = grid([self._pair(tile) for tile in observations.values()], columns=columns, gap=4)
        every = [tile.numbers for tile in observations.values()]
        means = {name: Scalar(sum(one[name] for one in every) / len(every)) for name in every[0]}
        return {"": Picture(sheet), **means}

    def frames(self, observations: Mapping[str, ClassImage], composed: object) -> Mapping[str, Picture]:
        """The image of each class without its name, which its row has."""
        shown = {
            subject: captioned(tile.pixels[:, :-LINE], f"{tile.numbers['probability']:.0%}")
            for subject, tile in observations.items()
        }
        own = {subject: Picture(pixels) for subject, pixels in shown.items()}
        if self._of_start:  # the film begins with these
            return own
        return own | {
            subject: NextTo(shown[subject], captioned(tile.reference, self.reference_name))
            for subject, tile in observations.items()
            if tile.reference is not None
        }

    def _pair(self, tile: ClassImage) -> RGB:
        """The image below the reference's, if there is one; each with the name of its network."""
        if tile.reference is None:
            return tile.pixels
        unnamed = self._of_start and self.reference_name == "reference"
        above = captioned(tile.reference, "before training" if unnamed else self.reference_name)
        return grid([above, captioned(tile.pixels, "this network")], columns=1)

    @property
    def _of_start(self) -> bool:
        return self.reference is not None and self.reference.what == "start"

    def _steps(self, sample: Sample) -> int | None:
        """Fewer where a run cannot afford all; None for a function that does not say how many it takes."""
        usual = signature(self.method).parameters.get("steps")
        steps = self.steps if usual is None else self.steps or usual.default
        if steps is None and self.method is METHODS["fourier"]:
            steps = min(MOST_STEPS, default_steps(min(sample.shape[1:])))
        return max(1, round(self.part * steps)) if isinstance(steps, int) else None

    def _previous(self, sample: Sample, subjects: Sequence[str]) -> Float[Tensor, "n c h w"] | None:
        """Its images of the last epoch; None if it has not one of each class, of the size of today."""
        kept = [self.memory.last.get(f"{subject}/image") for subject in subjects] if self.warm else []
        known = [one for one in kept if one is not None and one.shape == sample.shape]
        return torch.stack(known).to(sample.device) / 255 if known and len(known) == len(subjects) else None

    def _images(
        self,
        network: nn.Module,
        sample: Sample,
        subjects: Sequence[str],
        start: Float[Tensor, "n c h w"] | None = None,
    ) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, "n"]]:
        background = (
            self.background
            or sample.images.movedim(1, 0).flatten(1).median(1).values.clamp(0.05, 0.95).tolist()
        )
        labels = torch.tensor([sample.classes.index(subject) for subject in subjects], device=sample.device)
        examples = {"images": sample.images, "labels": sample.labels}
        steps = self._steps(sample)
        return self.method(
            network,
            labels,
            sample.shape,
            background=background,
            seeds=[self.seed_of(subject) for subject in subjects],
            layer=self.layer,
            precise=self.precise,
            watch=Watch(self.name) if is_main_process() else None,
            **({} if steps is None else {"steps": steps}),
            **({} if start is None else {"start": start}),
            **{name: examples[name] for name in examples.keys() & signature(self.method).parameters.keys()},
        ), labels

    def _tiles(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
        logits: Float[Tensor, "n k"],
        subjects: Sequence[str],
    ) -> dict[str, RGB]:
        probabilities = logits.softmax(1).gather(1, labels[:, None])[:, 0].tolist()
        tiles = {}
        for subject, image, probability in zip(subjects, images, probabilities, strict=True):
            line = caption(subject, probability, side=96)
            tiles[subject] = captioned(enlarged(picture(image), side=96), line)
        return tiles


def _logits(network: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    return pooled(outputs(network, images, [""])[""])


def _variation(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    """The mean square of differences of neighbouring pixels, down and across."""
    down, across = (images.diff(dim=dim).square().mean((1, 2, 3)) for dim in (2, 3))
    return down + across
