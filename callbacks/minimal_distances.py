"""The distance to the nearest adversarial image, per class and by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Histogram, Scalar, Table
from fulgurite.callbacks.framework.film import AllEpochs
from fulgurite.callbacks.framework.label_sets import asking_for_label_sets
from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import CHUNK, Sample
from fulgurite.callbacks.framework.tasks import LABELS
from fulgurite.probes.attacks.argument_checks import check_images
from fulgurite.probes.attacks.minimal import MINIMAL, NORMS
from fulgurite.probes.attacks.nearest_adversarial import norm_of
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.counted import counted
from fulgurite.probes.plots import line_plot
from fulgurite.probes.record import nearest
from fulgurite.probes.robustness.minimal_distances import Distances, minimal_distances

MOST_CLASSES = 20  # with a scalar for each
POINTS = 41  # of each curve


class MinimalDistances(ProbeCallback):
    """The distance of the nearest adversarial image that an attack finds for each validation image.

    Scalars are the `median` over all images, those of each class, and the share `not found`; the distances
    are a histogram; the robust accuracy by radius, which follows from them, is a picture, with that of
    earlier epochs. An image that is misclassified without an attack has distance 0. The median is an upper
    bound: a stronger attack may find nearer ones.

    Args:
        attack: by name: "deepfool", "ddn", "fmn", "cw", "szegedy" or "fab".
        norm: by name, or a threat for other bounds than [0, 1], whose radius does not matter.
        steps: of the attack; its own without it.
        images: how many; None for all.
        **schedule: as for `ProbeCallback`.
    """

    tasks = LABELS

    def __init__(
        self,
        attack: str = "ddn",
        *,
        norm: str | Threat = "l2",
        steps: int | None = None,
        images: int | None = 128,
        **schedule,
    ):
        super().__init__(images=images, **schedule)
        if isinstance(attack, Threat):
            raise ValueError(
                f"attack={attack!r} is a threat; wanted the name of an attack, and norm={attack!r}"
            )
        if attack not in MINIMAL:
            raise ValueError(
                f"no attack {attack!r} that looks for the nearest image; {nearest(attack, MINIMAL)}"
            )
        self.attack, self.norm = attack, norm_of(norm, NORMS[attack])
        self.knobs = {} if steps is None else {"steps": steps}
        self.film.side = 480

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels, and the attack supports the norm and the images."""
        if sample.labels is None and sample.targets is None:
            raise ValueError("the validation data have no labels, so there is nothing to measure by")
        check_images(sample[:1].images, self.norm)
        self._distances(network, sample[:1], steps=1)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks."""
        return sample.chunks(CHUNK)

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Tensor]:
        """The distances of each chunk."""
        return {name: self._distances(network, sample.chunk(name, CHUNK)) for name in subjects}

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """Medians, the histogram, and the curves of this epoch and earlier ones."""
        values = torch.cat(list(observations.values()))
        # label sets are not classes to list
        labels = torch.zeros_like(values).long() if sample.labels is None else sample.labels.cpu().long()
        found = Distances(self.norm, labels, values)
        artifacts: dict[str, Artifact] = {
            "not found": Scalar(float(values.isinf().double().mean())),
            "distances": Histogram(values),
        }
        medians = {"median": found.median()}
        if sample.labels is not None:
            classes = found.per_class()
            if len(classes) <= MOST_CLASSES:
                medians |= {f"median/{sample.name(label)}": value for label, value in classes.items()}
            rows = [[sample.name(label), f"{value:.4g}"] for label, value in classes.items()]
            artifacts["per class"] = Table(["class", f"median in {type(self.norm).__name__}"], rows)
        artifacts |= {name: Scalar(value) for name, value in medians.items() if value < torch.inf}
        when = "before training" if self.look.first else f"epoch {self.look.epoch}"
        looks = [*self.memory.last.get(LOOKS, []), (when, found.points(POINTS))]
        self.memory.keep(LOOKS, looks)
        shown = [looks[place] for place in sorted({0, len(looks) // 2, len(looks) - 1})]
        artifacts["curve"] = AllEpochs(
            line_plot(
                dict(shown),
                xlabel=f"radius in {type(self.norm).__name__}",
                ylabel=f"{'exact match' if sample.task == 'multilabel' else 'accuracy'} on "
                f"{counted(len(sample), 'image')} ({self.attack})",
                ymax=1.0,
                chance=sample.chance,
            )
        )
        return artifacts

    def _distances(self, network: nn.Module, part: Sample, **knobs: Any) -> Tensor:
        with asking_for_label_sets(network, part) as own:
            assert own.labels is not None  # `check` has refused such a sample
            chosen = {**self.knobs, **knobs}
            found = minimal_distances(network, own.images, own.labels, self.norm, self.attack, **chosen)
        return found.values
