"""Accuracy under common corruptions of validation images, by epoch (ImageNet-C)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar, Table
from fulgurite.callbacks.framework.label_sets import asking_for_label_sets
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import CHUNK, Sample
from fulgurite.callbacks.framework.tasks import LABELS
from fulgurite.probes.plots import line_plot
from fulgurite.probes.render import RGB, enlarged, picture, sheet, shrunk
from fulgurite.probes.robustness.corruption_accuracy import CorruptionAccuracy, corruption_accuracy
from fulgurite.probes.robustness.corruptions.corrupt import CORRUPTIONS, STRENGTHS, corrupt

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}


class Corruptions(ProbeCallback):
    """The accuracy on corrupted validation images: 15 kinds of noise, blur, weather and compression.

    Scalars are the `mean corruption error`, the `accuracy` of the images as they are, and the `error` of each
    kind over the strengths; a table has each strength, a picture the curves of noise, blur, weather and
    digital corruptions by strength. The first and the last time it also shows an image under all of
    them.

    Args:
        kinds: by name; all 15 without it.
        strengths: from 1 to 5.
        seed: of what corruptions draw.
        images: how many; None for all.
        **schedule: as for `ProbeCallback`.
    """

    tasks = LABELS

    def __init__(
        self,
        kinds: Sequence[str] = tuple(CORRUPTIONS),
        *,
        strengths: Sequence[int] = STRENGTHS,
        seed: int = 0,
        images: int | None = 128,
        **schedule,
    ):
        super().__init__(images=images, seed=seed, **schedule)
        self.how = {"kinds": tuple(kinds), "strengths": tuple(strengths), "seed": seed}
        corruption_accuracy(nn.Flatten(), torch.zeros(1, 1, 2, 2), torch.zeros(1).long(), **self.how)
        self.film.side = 320

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels."""
        if sample.labels is None and sample.targets is None:
            raise ValueError("the validation data have no labels, so there is nothing to measure by")

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks."""
        return sample.chunks(CHUNK)

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Tensor]:
        """Which images of each chunk are classified correctly."""
        return {name: self._right(network, sample.chunk(name, CHUNK)) for name in subjects}

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """Errors, the table, the curves, and the first and the last time the image."""
        right = torch.cat(list(observations.values()), 1)
        kinds, strengths = self.how["kinds"], self.how["strengths"]
        found = CorruptionAccuracy(
            kinds, strengths, right[0], right[1:].unflatten(0, (len(kinds), len(strengths)))
        )
        artifacts: dict[str, Artifact] = {
            "mean corruption error": Scalar(found.mean_error()),
            "accuracy": Scalar(found.accuracy()),
            **{f"error/{kind}": Scalar(error) for kind, error in found.errors().items()},
            "accuracies": Table(found.table()[0], found.table()[1:]),
            "curve": Picture(curves(found, sample)),
        }
        if self.look.first or self.look.last:
            artifacts["images"] = Picture(corrupted_sheet(sample.images[:1], **self.how))
        return artifacts

    def _right(self, network: nn.Module, part: Sample) -> Tensor:
        with asking_for_label_sets(network, part) as own:
            assert own.labels is not None  # `check` has refused such a sample
            found = corruption_accuracy(network, own.images, own.labels, **self.how)
        return torch.cat([found.clean[None], found.right.flatten(0, 1)])


def corrupted_sheet(
    image: Float[Tensor, "1 c h w"],
    *,
    kinds: Sequence[str] = tuple(CORRUPTIONS),
    strengths: Sequence[int] = STRENGTHS,
    seed: int = 0,
    side: int = 96,
) -> RGB:
    """An image under corruptions: a row for each kind, a column for each strength."""

    def tile(kind: str, strength: int) -> RGB:
        pixels = picture(corrupt(image, kind, strength, seed=seed)[0])
        return enlarged(pixels, side=side) if max(pixels.shape[1:]) <= side else shrunk(pixels, side=side)

    rows = {kind.replace("_", " "): [tile(kind, strength) for strength in strengths] for kind in kinds}
    return sheet(rows, columns=[str(strength) for strength in strengths])


def curves(found: CorruptionAccuracy, sample: Sample) -> RGB:
    """Accuracy by strength, the mean of each group of kinds."""
    shares, lines = found.accuracies(), dict[str, list[tuple[float, float]]]()
    for group, kinds in GROUPS.items():
        own = [shares[kind] for kind in kinds if kind in shares]
        if own:
            means = torch.tensor(own).mean(0).tolist()
            points = zip((0, *found.strengths), (found.accuracy(), *means), strict=True)
            lines[group] = [(float(strength), share) for strength, share in points]
    words = f"accuracy on {len(sample)} {sample.part} images"
    return line_plot(lines, xlabel="strength of the corruption", ylabel=words, ymax=1.0)
