"""Hardest and easiest classes and images at each epoch, confusions, accuracy by object size and texture."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar, Table
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.worst_mistakes import gradient_sheet
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.objectives import class_score
from fulgurite.probes.plots import category_plot
from fulgurite.probes.predict import predict
from fulgurite.probes.render import RGB, noted, stacked
from fulgurite.probes.representation.difficulty import (
    ClassDifficulty,
    Part,
    accuracy_by,
    class_difficulty,
    confused_pairs,
    confusion_counts,
    texture_amount,
)
from fulgurite.probes.representation.label_errors import least_probable

PLOTTED = 20  # classes on a plot: half of them the hardest


class Difficulty(ProbeCallback):
    """Which classes and images are difficult: accuracy by class, and by object size and amount of texture.

    The picture has the accuracy of each class, the hardest first, with Wilson's 95 % confidence interval, and
    accuracy by the `texture` of an image (the mean absolute difference of neighbouring pixels) and, where the
    data set has masks, by the `size` of the object (its share of the image), in five parts of as many images
    each. `images` shows the hardest of each of the hardest classes with gradient maps of the network's
    predictions, and the easiest of the easiest. Tables: `classes`, and `confusions`, pairs of classes that
    are confused. As scalars `accuracy/hardest class` and `accuracy/easiest class`. Cheap enough
    for every epoch. Russakovsky et al. 2015, arxiv.org/abs/1409.0575, section 6.

    Args:
        most: the number of hardest and of easiest classes whose images are shown.
        rows: of a table, at most.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(self, *, most: int = 4, rows: int = 50, images: int | None = 1000, **schedule):
        super().__init__(images=images, **schedule)
        if min(most, rows) < 1:
            raise ValueError(f"most={most}, rows={rows}; wanted at least 1 class, and 1 row")
        self.most, self.rows, self.film.side = most, rows, 500

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels."""
        if sample.labels is None:
            raise ValueError("the validation data have no labels, so no class is more difficult than others")

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks."""
        return sample.chunks()

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Logits, texture and object sizes of each chunk; maps of each class's hardest and easiest in it."""
        found = {}
        for subject in subjects:
            part = sample.chunk(subject)
            images, masks = part.images, part.masks
            logits = predict(network, images)
            own = {"logits": logits, "texture": texture_amount(images)}
            assert part.labels is not None  # `check` has refused such a sample
            ends = _ends(sample.probabilities(logits).cpu(), part.labels.cpu())
            shown = images[ends.to(images.device)]
            answers = logits[ends.to(logits.device)].argmax(1)
            own["maps"] = gradient(network, shown, class_score(answers)).abs().amax(1)
            own["places"] = ends + int(subject)
            if masks is not None:
                own["size"] = masks.flatten(1).float().mean(1)
            found[subject] = {key: value.cpu() for key, value in own.items()}
        return found

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """Two pictures, two tables and two numbers."""
        assert sample.labels is not None  # `check` has refused such a sample
        labels, chunks = sample.labels.cpu(), list(observations.values())
        every = {key: torch.cat([chunk[key] for chunk in chunks]) for key in chunks[0]}
        maps = dict(zip(every["places"].tolist(), every["maps"], strict=True))
        probabilities = sample.probabilities(every["logits"])
        classes = class_difficulty(probabilities, labels)
        right = probabilities.argmax(1) == labels
        parts = {name: accuracy_by(every[name], right) for name in ("texture", "size") if name in every}
        shown = self._images(classes, probabilities, maps, sample)
        return {
            "": Picture(difficulty_plot(classes, parts, sample)),
            "images": Picture(shown),
            "classes": classes_table(classes[: self.rows], sample),
            "confusions": confusions_table(confusion_counts(probabilities, labels), sample, self.rows),
            "accuracy/hardest class": Scalar(classes[0].accuracy),
            "accuracy/easiest class": Scalar(classes[-1].accuracy),
        }

    def _images(
        self,
        classes: Sequence[ClassDifficulty],
        probabilities: Float[Tensor, "n k"],
        maps: Mapping[int, Float[Tensor, "h w"]],
        sample: Sample,
    ) -> RGB:
        assert sample.labels is not None
        labels = sample.labels.cpu()
        order = least_probable(probabilities, labels)
        count = min(self.most, max(1, len(classes) // 2))
        ends = {"hardest": (classes[:count], 0)}
        if len(classes) > 1:
            ends["easiest"] = (classes[-count:], -1)
        places = [
            int(order[labels[order] == one.label][end]) for chosen, end in ends.values() for one in chosen
        ]
        paper = gradient_sheet(places, maps, probabilities, sample, blocks=len(ends))
        own = f"each of the {count} {{}} classes" if count > 1 else "the {} class"
        of = [
            f"{side}: the {end} image of {own.format(end)}"
            for side, end in zip(("left", "right"), ends, strict=False)
        ]
        return noted(paper, *of)


def _ends(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Int[Tensor, "m"]:
    """The images of each class whose label is the least and the most probable."""
    order = least_probable(probabilities, labels)
    own = [order[labels[order] == label] for label in labels.unique()]
    return torch.cat([places[[0, -1]] for places in own]).unique()


def difficulty_plot(
    classes: Sequence[ClassDifficulty], parts: Mapping[str, Sequence[Part]], sample: Sample
) -> RGB:
    """Accuracy by class, the hardest first, and by each of the values, with confidence intervals."""
    few = [*classes[: PLOTTED // 2], *classes[-PLOTTED // 2 :]] if len(classes) > PLOTTED else classes
    plots = [
        category_plot(
            [sample.name(one.label) for one in few],
            {"by class": [one.accuracy for one in few]},
            ylabel="accuracy, with 95 % intervals",
            ymax=1.0,
            intervals=[one.interval for one in few],
            chance=sample.chance,
        )
    ]
    plots += [
        category_plot(
            [_range(part) for part in own],
            {f"by {name}": [part.accuracy for part in own]},
            ylabel="accuracy, with 95 % intervals",
            ymax=1.0,
            intervals=[part.interval for part in own],
            chance=sample.chance,
        )
        for name, own in parts.items()
    ]
    return stacked(plots, gap=10)


def classes_table(classes: Sequence[ClassDifficulty], sample: Sample) -> Table:
    """The classes, the hardest first."""
    head = [
        "class",
        "images",
        "accuracy",
        "95 % interval",
        "mean probability",
        "calibration error",
        "taken for",
        "share of its images",
    ]
    rows = [
        [
            sample.name(one.label),
            str(one.count),
            f"{one.accuracy:.3f}",
            "{:.2f} to {:.2f}".format(*one.interval),
            f"{one.probability:.3f}",
            f"{one.calibration_error:.3f}",
            sample.name(one.taken_for) if one.taken_for >= 0 else "",
            f"{one.share:.1%}" if one.taken_for >= 0 else "",
        ]
        for one in classes
    ]
    return Table(head, rows)


def confusions_table(counts: Int[Tensor, "k k"], sample: Sample, most: int) -> Table:
    """Pairs of classes that are confused, most mistakes first."""
    rows = [
        [sample.name(one), sample.name(other), str(there), str(back)]
        for one, other, there, back in confused_pairs(counts)[:most]
    ]
    return Table(["class", "other class", "taken for the other", "the other for it"], rows)


def _range(part: Part) -> str:
    return f"{part.low:.2g} to {part.high:.2g}"
