"""Shape bias at each epoch: predictions by shape and by texture where they disagree (Geirhos et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
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
from fulgurite.probes.robustness import shape_bias

NAMES = ("by shape", "by texture", "by neither")


class ShapeBias(ProbeCallback):
    """How a network classifies images whose shape is of one class and whose texture of another.

    Scalars: `shape bias`, the share of predictions by the shape among those by the shape or the texture,
    `lowest` and `highest`, its 95 % interval by bootstrap over the images, and `hit rate`, the share of
    predictions by either. The picture: the shares of predictions over the epochs.

    Args:
        data: cue conflicts: images in [0, 1] with the class of their shape, and a method
            `cue_labels(indices)` for that of their texture, as `Shapes.conflict` has them.
        images: how many of them; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(self, data: Dataset, *, images: int | None = 1000, **schedule):
        super().__init__(images=images, **schedule)
        if not hasattr(data, "cue_labels"):
            raise ValueError(
                f"{type(data).__name__} does not say which class a texture is of; wanted a data set with a "
                "method cue_labels(indices), such as Shapes(...).conflict"
            )
        self.data = data
        self.film.side = 480

    def check(self, network: nn.Module, sample: Sample) -> None:
        """Shape and texture disagree, and are of the network's classes."""
        if self.label is not None:
            raise ValueError(
                f"label={self.label!r} is one of many, and the cue conflicts have class numbers; leave "
                "label= out, for a network of classes"
            )
        self._answers(network, sample, 0, 1)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images in chunks."""
        return [str(start) for start in range(0, len(self._ids()), CHUNK)]

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Tensor]:
        """Of each image: 0 for a prediction by its shape, 1 by its texture, 2 by neither."""
        return {one: self._answers(network, sample, int(one), int(one) + CHUNK) for one in subjects}

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """The bias with its interval, and the shares of predictions over the epochs so far."""

        answers = torch.cat(list(observations.values()))
        found = shape_bias.ShapeBias(answers == 0, answers == 1)
        shares = [float((answers == kind).float().mean()) for kind in range(3)]
        looks = [*self.memory.last.get(LOOKS, []), (float(self.look.epoch), shares)]
        self.memory.keep(LOOKS, looks)
        lines = {name: [(epoch, own[kind]) for epoch, own in looks] for kind, name in enumerate(NAMES)}
        plot = line_plot(lines, xlabel="epoch", ylabel="share of predictions", ymax=1.0)
        numbers = {"hit rate": found.hit_rate}
        if found.hit_rate > 0:
            low, high = found.interval(seed=self.seed)
            numbers |= {"shape bias": found.bias, "lowest": low, "highest": high}
        return {"": AllEpochs(plot), **{name: Scalar(value) for name, value in numbers.items()}}

    def _ids(self) -> list[int]:
        total = len(self.data)  # pyright: ignore[reportArgumentType]
        wanted = min(total, self.images or total)
        return [place * total // wanted for place in range(wanted)]

    def _answers(self, network: nn.Module, sample: Sample, start: int, stop: int) -> Int[Tensor, "m"]:
        parts = []
        for own, images, labels in numbered(self.data, self._ids()[start:stop], device=sample.device):
            if labels is None:
                raise ValueError("the cue conflicts have no labels, so there is nothing to measure by")
            textures = self.data.cue_labels(own.tolist())  # pyright: ignore[reportAttributeAccessIssue]
            found = shape_bias.shape_answers(
                predict(network, images.to(sample.device)), labels.cpu(), textures
            )
            parts.append(torch.where(found.by_shape, 0, torch.where(found.by_texture, 1, 2)))
        return torch.cat(parts)
