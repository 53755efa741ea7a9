"""Captions of images on sheets: what is true, what is predicted and how probable, and the image's file."""

from collections import Counter
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fulgurite.callbacks.framework.image_names import image_names
from fulgurite.callbacks.framework.sample import Sample


def prediction_captions(sample: Sample, logits: Float[Tensor, "n k"]) -> list[tuple[str, bool]]:
    """For each image two lines, the truth and the prediction with its probability; and whether it is wrong.

    Of several labels, all predicted ones are named, and the image is wrong if any is missing or extra; values
    of a regression are never wrong.
    """
    shown, guesses = sample.probabilities(logits).cpu(), sample.predicted(logits).tolist()
    known, lines = sample.true(logits), []
    for place, guess in enumerate(guesses):
        truth, wrong = sample.truth(place), False
        if sample.task == "multilabel" and sample.targets is not None:
            wrong = bool(((logits[place].cpu() > 0) != (sample.targets[place].cpu() > 0.5)).any())
        elif known is not None and not truth:
            label = int(known[place])
            wrong = guess != label
            own = sample.caption(label, float(shown[place, label])) if wrong else sample.name(label)
            truth = f"true {own}"
        likely = [label for label, value in enumerate(shown[place].tolist()) if value > 0.5]
        if sample.task != "multilabel":
            likely = [guess]
        found = " + ".join(sample.caption(label, float(shown[place, label])) for label in likely)
        predicted = f"pred {found or f'none, at most {sample.caption(guess, float(shown[place, guess]))}'}"
        lines.append(("\n".join(line for line in (truth, predicted) if line), wrong))
    return lines


def explained(sample: Sample, label: int) -> str:
    """What maps are of, where captions name several labels; nothing where they name one class."""
    return f"map of {sample.name(label)}" if sample.task == "multilabel" else ""


def maps_of(sample: Sample, which: Literal["true", "predicted", "both"], *, film: bool = False) -> str:
    """A line that says of which class the maps of a sample are; in a film, the predicted one is the epoch's.

    Without true classes they are of the predicted one.
    """
    if sample.task == "regression":
        return "maps of the output" if len(sample.classes) < 2 else f"maps of {sample.name(0)}"
    if sample.task == "segmentation":
        return "maps of the class with the largest average logit" + " in the epoch" * film
    multilabel = sample.task == "multilabel"
    known = sample.labels is not None or (multilabel and sample.targets is not None)
    what = "label" if multilabel else "class"
    likeliest = ": the likeliest, where there are several" if multilabel else ""
    if which == "both" and known:
        return f"maps of the true and of the predicted {what}, one where they are the same{likeliest}"
    if which == "true" and known:
        return f"maps of the true {what}{likeliest}"
    return (
        f"maps of the {what} that was predicted in the epoch{likeliest}"
        if film
        else (f"maps of the predicted {what}{likeliest}")
    )


def true_captions(sample: Sample) -> dict[str, str]:
    """The true class, labels or values of each image of a sample by its subject, where they are known."""
    lines = {}
    for place, subject in enumerate(sample.each()):
        truth = sample.truth(place)
        if not truth and sample.labels is not None:
            truth = f"true {sample.name(int(sample.labels[place]))}"
        lines[subject] = truth
    return lines


def row_names(sample: Sample) -> dict[str, str]:
    """The name of each image of a sample in a row: its file's name, or its number in the data set.

    The folder of a file stands before it where the name alone is a number, or that of several.
    """
    files = image_names(sample)
    stems = Counter(Path(file).stem for file in files)
    ends = Counter(_end(file) for file in files)
    names = []
    for file in files:
        if file.isdecimal():
            names.append(f"image {file}")
        elif stems[Path(file).stem] == 1 and not Path(file).stem.isdecimal():
            names.append(Path(file).stem)
        else:
            names.append(_end(file) if ends[_end(file)] == 1 else file)
    return dict(zip(sample.each(), names, strict=True))


def _end(file: str) -> str:
    return "/".join(Path(file).parts[-2:])
