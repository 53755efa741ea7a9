"""The worst mistakes at each epoch, suspected label errors, and near-duplicates, with file names."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar, Table
from fulgurite.callbacks.framework.captions import row_names
from fulgurite.callbacks.framework.chunks import chunk_of, chunks_of, joined
from fulgurite.callbacks.framework.image_names import image_names
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.attribution.map_sheets import MapRow, map_sheet
from fulgurite.probes.counted import counted
from fulgurite.probes.objectives import class_score
from fulgurite.probes.render import RGB, noted
from fulgurite.probes.representation.class_components import codes_and_logits
from fulgurite.probes.representation.duplicates import Duplicate, near_duplicates
from fulgurite.probes.representation.label_errors import (
    Suspects,
    least_probable,
    suspected_label_errors,
    worst_mistakes,
)
from fulgurite.probes.representation.neighbours import pixel_codes
from fulgurite.probes.stages import classifier_layer
from fulgurite.probes.trace import trace

SIDE = 96
MAPS = "gradient of pred"
LEGEND = "gradient of the score of the predicted class: bright pixels change it most, up or down"


class WorstMistakes(ProbeCallback):
    """The images whose label the network finds least probable, with gradient maps of its wrong prediction.

    Where there are fewer mistakes than it shows, the rest are the least certain of the correct ones, which a
    line below the picture says.

    Also, as tables with file names: `worst`, the misclassified images; `suspects`, labels that are probably
    wrong (see `suspected_label_errors`), and `duplicates`, images nearly the same as another of the sample or
    as a training image as training sees it (see `near_duplicates`). As scalars, how many there are of each:
    `mistakes`, `suspected label errors`, `near-duplicates`. Cheap enough for every epoch.

    Args:
        most: how many images are shown, at most.
        rows: of a table, at most.
        duplicates_in: how many training images to look for duplicates in, spread evenly over the set.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(
        self,
        *,
        most: int = 16,
        rows: int = 50,
        duplicates_in: int = 1000,
        images: int | None = 1000,
        **schedule,
    ):
        super().__init__(images=images, **schedule)
        if most < 1 or duplicates_in < 0:
            raise ValueError(f"most={most}, duplicates_in={duplicates_in}; wanted at least 1 image, and 0")
        self.most, self.rows, self.training_images, self.film.side = most, rows, duplicates_in, 500
        self._classifier = ""

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels."""
        if sample.labels is None:
            raise ValueError("the validation data have no labels, so there are no mistakes")

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, and training images, in chunks."""
        self._classifier = self._classifier or classifier_layer(trace(network, sample[:1].images))
        return chunks_of(self._parts(sample))

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Codes, pixels and logits of each chunk, and maps of its worst mistakes."""
        found = {}
        for subject in subjects:
            name, part = chunk_of(self._parts(sample), subject)
            images = part.images
            codes, logits = codes_and_logits(network, images, self._classifier)
            own = {"codes": codes, "pixels": pixel_codes(images), "logits": logits}
            if name == "sample":
                assert part.labels is not None  # `check` has refused such a sample
                worst = least_probable(sample.probabilities(logits).cpu(), part.labels.cpu())[: self.most]
                own["worst"] = worst + int(subject.removeprefix("sample "))
                answers = logits[worst.to(logits.device)].argmax(1)
                shown = images[worst.to(images.device)]
                own["maps"] = gradient(network, shown, class_score(answers)).abs().amax(1)
            found[subject] = {key: value.cpu() for key, value in own.items()}
        return found

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """The picture, two tables and three numbers."""
        labels = sample.labels
        assert labels is not None
        own, others = joined(observations, "sample"), joined(observations, "training")
        probabilities = sample.probabilities(own["logits"])
        worst, names = worst_mistakes(probabilities, labels.cpu()), image_names(sample)
        suspects = suspected_label_errors(probabilities, labels.cpu())
        pairs = _duplicates(
            own, others, names, [] if not others else image_names(self._parts(sample)["training"])
        )
        artifacts: dict[str, Artifact] = {
            "mistakes": Scalar(float(len(worst))),
            "suspected label errors": Scalar(float(suspects.suspected.sum())),
            "near-duplicates": Scalar(float(len(pairs))),
            "worst": mistakes_table(worst[: self.rows], probabilities, sample, names),
            "suspects": suspects_table(suspects, probabilities, sample, names, self.rows),
            "duplicates": duplicates_table(pairs[: self.rows]),
        }
        maps = dict(zip(own["worst"].tolist(), own["maps"], strict=True))
        shown = least_probable(probabilities, labels.cpu())[: self.most].tolist()
        paper = gradient_sheet(
            shown, maps, probabilities, sample, blocks=max(1, round((len(shown) / 2) ** 0.5))
        )
        return artifacts | {"": Picture(noted(paper, *correct_ones(len(worst), len(shown))))}

    def _parts(self, sample: Sample) -> dict[str, Sample]:
        known = self.training_sample is not None and self.training_images
        return {"sample": sample} | ({"training": self.training_sample} if known else {})  # pyright: ignore[reportReturnType]


def gradient_sheet(
    places: Sequence[int],
    maps: Mapping[int, Float[Tensor, "h w"]],
    probabilities: Float[Tensor, "n k"],
    sample: Sample,
    *,
    blocks: int,
) -> RGB:
    """Images with their names, labels and predictions, each next to a map of sizes, all on one scale.

    Args:
        places: of the images in the sample.
        maps: by place.
        probabilities: of each class, for each image of the sample.
        sample: where the images are from.
        blocks: columns of images, side by side.
    """
    assert sample.labels is not None
    names, rows = [*row_names(sample).values()], {}
    for image, place in zip(sample[list(places)].images.cpu(), places, strict=True):
        own, label = probabilities[place], int(sample.labels[place])
        answer = int(own.argmax())
        true, predicted = (sample.caption(one, float(own[one])) for one in (label, answer))
        caption = f"true {true}\npred {predicted}"
        rows[names[place]] = MapRow(image, {MAPS: maps[place][None]}, caption, wrong=answer != label)
    return noted(map_sheet(rows, looks={MAPS: "heat"}, side=SIDE, blocks=blocks), LEGEND)


def correct_ones(mistakes: int, shown: int) -> list[str]:
    """A line on the images of a sheet that are no mistakes, if there are any."""
    if mistakes >= shown:
        return []
    if not mistakes:
        return ["no mistakes: these are the least certain of the correct ones"]
    return [f"{counted(mistakes, 'mistake')}; the others are the least certain of the correct ones"]


def mistakes_table(
    worst: Int[Tensor, "m"], probabilities: Float[Tensor, "n k"], sample: Sample, names: Sequence[str]
) -> Table:
    """The misclassified images, the worst first."""
    assert sample.labels is not None
    answers, labels = probabilities.argmax(1), sample.labels.cpu()
    rows = [
        _row(place, int(labels[place]), int(answers[place]), probabilities, sample, names)
        for place in worst.tolist()
    ]
    return Table(["image", "label", "its probability", "predicted", "its probability"], rows)


def suspects_table(
    suspects: Suspects, probabilities: Float[Tensor, "n k"], sample: Sample, names: Sequence[str], most: int
) -> Table:
    """The suspected images, the most likely first."""
    assert sample.labels is not None
    labels, first = sample.labels.cpu(), suspects.order[: int(suspects.suspected.sum())][:most]
    rows = [
        _row(place, int(labels[place]), int(suspects.classes[place]), probabilities, sample, names)
        for place in first.tolist()
    ]
    return Table(["image", "label", "its probability", "more likely", "its probability"], rows)


def _row(
    place: int,
    label: int,
    other: int,
    probabilities: Float[Tensor, "n k"],
    sample: Sample,
    names: Sequence[str],
) -> list[str]:
    values = [f"{float(probabilities[place, one]):.3f}" for one in (label, other)]
    return [names[place], sample.name(label), values[0], sample.name(other), values[1]]


def duplicates_table(pairs: Sequence[tuple[str, str, Duplicate]]) -> Table:
    """Pairs of images, the closest first."""
    rows = [[one, other, pair.by, f"{pair.distance:.3f}"] for one, other, pair in pairs]
    return Table(["image", "nearly the same as", "by", "of the usual distance"], rows)


def _duplicates(
    own: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    names: Sequence[str],
    their_names: Sequence[str],
) -> list[tuple[str, str, Duplicate]]:
    """Pairs within the sample and between it and training images; none where codes do not differ."""
    vectors = {key: own[key] for key in ("codes", "pixels") if len(own[key].unique(dim=0)) > 1}
    if not vectors or len(names) < 3:
        return []
    pairs = [(names[one.one], names[one.other], one) for one in near_duplicates(vectors)]
    if others:
        vectors = {key: value for key, value in vectors.items() if len(others[key].unique(dim=0)) > 1}
        pairs += [
            (names[one.one], f"training image {their_names[one.other]}", one)
            for one in near_duplicates(vectors, {key: others[key] for key in vectors})
        ]
    return sorted(pairs, key=lambda pair: pair[2].distance)
