"""Sections of a report on two runs: class images side by side, and images with different predictions."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.callbacks.framework.captions import row_names
from fulgurite.callbacks.framework.image_names import image_names
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.cli.comparison import Comparison
from fulgurite.cli.html_page import Section
from fulgurite.probes.attribution.methods import attribute, importance
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.objectives import class_score
from fulgurite.probes.render import RGB, captioned, grid, overlaid, picture, sheet, titled
from fulgurite.probes.synthesis.class_images import class_images

SIDE = 112


def imagined(two: Comparison, classes: Sequence[int]) -> Section:
    """Class images of both, one above the other."""
    background = two.test.images.cpu().flatten(2).permute(1, 0, 2).flatten(1).median(1).values.tolist()
    rows = {}
    for run in two.runs:
        where = next(run.network.parameters()).device
        made = class_images(
            run.network, torch.tensor(classes, device=where), two.test.shape, background=background
        )
        rows[run.title] = [sized(picture(image), SIDE) for image in made.cpu()]
    names = [two.test.name(label) for label in classes]
    text = "An image for each class that makes its score large, from the same noise."
    drawn = titled(sheet(rows, columns=names), "class images of both networks, from the same noise")
    return Section("Class images", text, pictures={"class_images": drawn})


def disagreements(two: Comparison, most: int) -> Section:
    """The images on which the two are confident of different predictions, with the pixels that each uses."""
    probabilities = [logits.softmax(1) for logits in two.logits]
    answers = [own.argmax(1) for own in probabilities]
    apart = (answers[0] != answers[1]).nonzero()[:, 0]
    sure = torch.minimum(*(own.amax(1) for own in probabilities))[apart]
    chosen = apart[sure.argsort(descending=True, stable=True)][:most]
    heading, names = "Disagreements", image_names(two.test)
    two.found["disagreements"] = [
        {
            "image": names[place],
            "label": two.test.name(int(two.labels[place])),
            "predicted": [two.test.name(int(own[place])) for own in answers],
            "probability": [float(own[place].amax()) for own in probabilities],
        }
        for place in apart[sure.argsort(descending=True, stable=True)].tolist()
    ]
    if not len(chosen):
        return Section(heading, f"The two give the same prediction on all {len(two.test)} images.")
    part = two.test[chosen.tolist()]
    maps = [_maps(run.network, part, own[chosen]) for run, own in zip(two.runs, answers, strict=True)]
    images = part.images.cpu()
    tiles = [
        _disagreement(two, place, image, [own[row] for own in maps], probabilities)
        for row, (place, image) in enumerate(zip(chosen.tolist(), images, strict=True))
    ]
    text = (
        f"{len(apart)} of {len(two.test)} images get different predictions; shown are the {len(tiles)} of "
        "which both are most confident: the image, and the gradient of the class that "
        f"{two.titles[0]} predicts, and of that of {two.titles[1]}."
    )
    return Section(heading, text, pictures={"disagreements": grid(tiles, columns=2, gap=14)})


def _disagreement(
    two: Comparison, place: int, image: Tensor, maps: Sequence[Tensor], probabilities: Sequence[Tensor]
) -> RGB:
    shown = picture(image)
    paper = grid([sized(shown, SIDE), *(sized(overlaid(shown, own), SIDE) for own in maps)], columns=3)
    lines = []
    for run, own in zip(two.runs, probabilities, strict=True):
        label = int(own[place].argmax())
        lines.append(f"{run.title}: {two.test.name(label)}, {float(own[place, label]):.0%}")
    true = f"{[*row_names(two.test).values()][place]}, true {two.test.name(int(two.labels[place]))}"
    return captioned(paper, true, *lines)


def _maps(network: nn.Module, sample: Sample, classes: Tensor) -> Float[Tensor, "n h w"]:
    images = sample.images
    made = attribute("gradient", network, images, class_score(classes.to(images.device)))
    return importance("gradient", made)[:, 0].cpu()
