"""Concept sheets: each concept's strongest crops, its importance, and where it is in images."""

import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fulgurite.probes.activations.concept_discovery import Concepts, strongest_crops
from fulgurite.probes.counted import counted
from fulgurite.probes.render import RGB, captioned, from_pil, overlaid, picture, sheet, short_number, to_pil


def render_concepts(
    images: Float[Tensor, "n c h w"],
    found: Concepts,
    name: str,
    *,
    crops: int = 6,
    most: int = 4,
    side: int = 96,
) -> RGB:
    """A row for each concept, the most important first: its strongest crops, then where it is in some images.

    Left of it are what it adds to the class score on average, and its share of what all of them add or take
    away; below each crop is how strong the concept is in it. The first `most` images show in orange where
    the concept is, on one scale for each concept; below each is what the concept adds to its score.

    Args:
        images: what the concepts are of, in [0, 1].
        found: the concepts.
        name: of the class.
        crops: how many.
        most: how many images.
        side: of a tile, in pixels.
    """
    total, rows = max(float(found.importance.abs().sum()), 1e-12), dict[str, list[RGB]]()
    for concept, importance in enumerate(found.importance.tolist()):
        maps = found.maps[:, concept]
        top = float(maps.flatten().kthvalue(max(1, round(0.995 * maps.numel()))).values)
        strongest = [
            captioned(
                _sized(_crop(images, found.boxes[place].tolist()), side),
                short_number(float(found.in_crops[place, concept])),
            )
            for place in strongest_crops(found, concept, crops)
        ]
        where = [
            captioned(_sized(_over(image, own, top), side), f"{added:+.3g}")
            for image, own, added in zip(
                images[:most], maps[:most], found.contributions[:most, concept].tolist(), strict=True
            )
        ]
        rows[f"concept {concept + 1}: {importance:+.3g}, {abs(importance) / total:.0%}"] = [
            *strongest,
            *where,
        ]
    columns = [f"crop {place + 1}" for place in range(min(crops, len(found.boxes)))]
    columns += [f"image {place + 1}" for place in range(min(most, len(images)))]
    return captioned(sheet(rows, columns=columns), *_caption(found, name, len(images)))


def _caption(found: Concepts, name: str, images: int) -> list[str]:
    """What the sheet shows, and how much of score and features the concepts explain."""
    score, added = (short_number(float(own)) for own in (found.scores.mean(), found.importance.sum()))
    return [
        f"class {name}, layer {found.layer or 'logits'}: {counted(images, 'image')} of mean score {score}, "
        f"to which the concepts add {added}",
        "Left: what a concept adds to the score on average, and its share of all additions and subtractions",
        "Crops: where a concept is strongest, and how strong. Images: where it is (orange), and what it adds",
        "The rest of the score: the bias, and what the concepts leave out of the features (relative error "
        f"{found.error:.0%})",
    ]


def _crop(images: Float[Tensor, "n c h w"], box: list[int]) -> RGB:
    image, top, left, bottom, right = box
    return picture(images[image, :, top:bottom, left:right])


def _over(image: Float[Tensor, "c h w"], maps: Float[Tensor, "_ _"], top: float) -> RGB:
    enlarged = F.interpolate(maps[None, None], image.shape[1:], mode="bilinear", align_corners=False)[0, 0]
    return overlaid(picture(image), enlarged, top=top)


def _sized(pixels: RGB, side: int) -> RGB:
    """The picture with a longer side of this many pixels."""
    height, width = pixels.shape[1:]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return from_pil(to_pil(pixels).resize(size, Image.Resampling.BICUBIC))
