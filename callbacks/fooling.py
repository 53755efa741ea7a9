"""Fooling images of each class at each epoch: how easily noise gets a class (Nguyen et al. 2015)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from fulgurite.callbacks.classes import ClassProbe
from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.distributed import is_main_process
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attacks.render_attack import caption
from fulgurite.probes.counted import counted
from fulgurite.probes.render import RGB, captioned, enlarged, grid, picture
from fulgurite.probes.style import LINE
from fulgurite.probes.synthesis.fooling import fooling_images
from fulgurite.probes.synthesis.watch import Watch

SIDE = 96  # of a tile


class Seen(NamedTuple):
    """Of a class: its tile, the probability reached, and the steps that it took, NaN if it was not enough."""

    tile: RGB
    probability: float
    steps: float


class Fooling(ClassProbe):
    """Noise that the network classifies as each class, and how many small steps that takes.

    A probe of robustness that needs no labels: the larger `median steps` and the smaller `rate`, the harder
    the network is to fool. Scalars: `rate`, the share of the classes that reach the confidence; `median
    steps` of those that do; `probability`, averaged over the classes.

    Args:
        only: the classes, by name; the first `most` without it.
        most: how many.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        confidence: the probability to reach, in (0, 1).
        steps: at most.
        lr: root mean square change of a pixel at each step.
        precise: compute in float64, so that a picture does not depend on threads and processes; slower.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(
        self,
        only: Sequence[str] | None = None,
        *,
        most: int = 10,
        layer: str = "",
        confidence: float = 0.99,
        steps: int = 100,
        lr: float = 0.01,
        precise: bool = False,
        images: int | None = 16,
        **schedule,
    ):
        super().__init__(only, most=most, layer=layer, images=images, **schedule)
        if min(most, steps) < 1 or not 0 < confidence < 1 or lr <= 0:
            raise ValueError(
                f"most={most}, steps={steps}, confidence={confidence:g}, lr={lr:g}; wanted at least 1 class "
                "and step, a probability between 0 and 1, and a positive rate"
            )
        self.confidence, self.steps, self.lr, self.precise = confidence, steps, lr, precise
        self.film.side = SIDE + 2 * LINE  # a tile and its caption, as they are

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Seen]:
        """Of each class an image that fools, around the sample's median colour."""
        found = fooling_images(
            network,
            torch.tensor([sample.classes.index(subject) for subject in subjects], device=sample.device),
            sample.shape,
            background=sample.images.movedim(1, 0).flatten(1).median(1).values.tolist(),
            seeds=[self.seed_of(subject) for subject in subjects],
            layer=self.layer,
            confidence=self.confidence,
            steps=self.steps,
            lr=self.lr,
            precise=self.precise,
            watch=Watch(self.name if is_main_process() else None),
        )
        tiles = zip(subjects, found.images, found.probabilities.tolist(), found.steps.tolist(), strict=True)
        return {
            subject: Seen(
                captioned(
                    enlarged(picture(image), side=SIDE),
                    caption(subject, chance, side=SIDE),
                    "not reached" if steps != steps else counted(round(steps), "step"),
                ),
                chance,
                steps,
            )
            for subject, image, chance, steps in tiles
        }

    def compose(self, observations: Mapping[str, Seen], sample: Sample) -> Mapping[str, Artifact]:
        """All images on one sheet, and the numbers over the classes."""
        every = list(observations.values())
        steps = torch.tensor([one.steps for one in every])
        numbers = {
            "rate": Scalar(1 - steps.isnan().float().mean()),
            "probability": Scalar(sum(one.probability for one in every) / len(every)),
        }
        if not steps.isnan().all():
            numbers["median steps"] = Scalar(steps.nanmedian())
        sheet = grid([one.tile for one in every], columns=5 if len(every) in (5, 10) else None, gap=4)
        return {"": Picture(sheet), **numbers}

    def frames(self, observations: Mapping[str, Seen], composed: object) -> Mapping[str, Picture]:
        """The image of each class."""
        return {subject: Picture(one.tile) for subject, one in observations.items()}
