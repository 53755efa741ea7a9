"""Accuracy on other data than the validation images at each epoch, and the shape bias of cue conflicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from fulgurite.callbacks.framework.artifacts import Artifact, Scalar
from fulgurite.callbacks.framework.film import AllEpochs
from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import CHUNK, Sample
from fulgurite.probes.indexed_images import numbered
from fulgurite.probes.plots import line_plot
from fulgurite.probes.predict import predict

VALIDATION = "validation"


class SplitAccuracy(ProbeCallback):
    """The accuracy on validation images next to that on other data sets, such as those without a shortcut.

    As scalars `accuracy/NAME`, and as curves over the epochs. Of cue conflicts, which are data with a method
    `cue_labels(indices)` for the class of the texture, which is never the label, `shape bias/NAME` is the
    share of predictions by the shape among those by the shape or the texture (Geirhos et al. 2019,
    arxiv.org/abs/1811.12231).

    Args:
        data: data sets of images in [0, 1] with class numbers, by name; read by index.
        images: how many images of each; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(self, data: Mapping[str, Dataset], *, images: int | None = 1000, **schedule):
        super().__init__(images=images, **schedule)
        if not data or VALIDATION in data:
            raise ValueError(
                f"data sets named {', '.join(data) or 'nothing'}; wanted at least one, and none called "
                f"{VALIDATION}, as the Trainer's are"
            )
        self.data = dict(data)
        self.film.side = 480

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels, and the data sets' are those of the network's classes."""
        if self.label is not None:
            raise ValueError(
                f"label={self.label!r} is one of many, and the data sets have class numbers; leave label= "
                "out, or this probe"
            )
        if sample.labels is None:
            raise ValueError("the validation data have no labels, so there is nothing to measure by")
        for name in self.data:
            self._counts(network, sample, f"{name}/0", first=1)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """Each data set in chunks."""
        lengths = {VALIDATION: len(sample)} | {name: len(self._ids(name)) for name in self.data}
        return [f"{name}/{start}" for name, length in lengths.items() for start in range(0, length, CHUNK)]

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Tensor]:
        """Of each chunk: images, correct predictions, cue conflicts, predictions by the texture."""
        return {subject: self._counts(network, sample, subject) for subject in subjects}

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """Accuracies, shape biases, and their curves over the epochs so far."""
        totals: dict[str, Tensor] = {}
        for subject, counts in observations.items():
            name = subject.rpartition("/")[0]
            totals[name] = totals.get(name, torch.zeros(4)) + counts
        shares = {f"accuracy/{name}": (own[1], own[0]) for name, own in totals.items()}
        shares |= {
            f"shape bias/{name}": (own[1], own[1] + own[3])
            for name, own in totals.items()
            if own[2] == own[0] and own[1] + own[3] > 0
        }
        now = {name: float(right / count) for name, (right, count) in shares.items()}
        counts = {name: int(count) for name, (_, count) in shares.items()}
        looks = [*self.memory.last.get(LOOKS, []), (float(self.look.epoch), now, counts)]
        self.memory.keep(LOOKS, looks)
        lines: dict[str, list[tuple[float, float]]] = {}
        images: dict[str, list[int]] = {}
        for epoch, values, *own in looks:
            # looks of an older checkpoint lack the number of images
            counted = own[0] if own else counts
            for name, value in values.items():
                line = name.removeprefix("accuracy/")
                lines.setdefault(line, []).append((epoch, value))
                images.setdefault(line, []).append(counted.get(name, 0))
        plot = line_plot(
            lines,
            xlabel="epoch",
            ylabel="accuracy or shape bias, with 95 % intervals",
            ymax=1.0,
            chance=sample.chance,
            images=images,
        )
        return {"": AllEpochs(plot), **{name: Scalar(value) for name, value in now.items()}}

    def _ids(self, name: str) -> list[int]:
        total = len(self.data[name])  # pyright: ignore[reportArgumentType]
        wanted = min(total, self.images or total)
        return [place * total // wanted for place in range(wanted)]

    def _counts(
        self, network: nn.Module, sample: Sample, subject: str, first: int = CHUNK
    ) -> Float[Tensor, "4"]:
        name, _, start = subject.rpartition("/")
        if name == VALIDATION:
            part = sample[int(start) : int(start) + first]
            assert part.labels is not None  # `check` has refused such a sample
            right = predict(network, part.images).argmax(1).cpu() == part.labels.cpu()
            return torch.tensor([len(part), right.sum(), 0.0, 0.0])
        ids, counts = self._ids(name)[int(start) : int(start) + first], torch.zeros(4)
        cues = getattr(self.data[name], "cue_labels", None)
        for own, images, labels in numbered(self.data[name], ids, device=sample.device):
            if labels is None:
                raise ValueError(f"the data {name!r} have no labels, so there is nothing to measure by")
            answers, labels = predict(network, images.to(sample.device)).argmax(1).cpu(), labels.cpu()
            textures = cues(own.tolist()) if cues else labels
            conflicts = (textures != labels) & (textures >= 0)
            by_texture = conflicts & (answers == textures)
            counts += torch.tensor([len(own), (answers == labels).sum(), conflicts.sum(), by_texture.sum()])
        return counts
