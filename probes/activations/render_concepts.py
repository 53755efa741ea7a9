"""Concept sheets: each concept's strongest crops, its importance, and where it is in images."""

import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fulgurite.probes.activations.concepts import Concepts, strongest_crops
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

    Next to each are what it adds to the class score on average, and its share of what all of them add or take
    away; below each crop is how much of the concept is in it. The first `most` images show in orange where
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
        rows[f"{concept + 1}: {importance:+.3g}, {abs(importance) / total:.0%}"] = [*strongest, *where]
    columns = [f"crop {place + 1}" for place in range(min(crops, len(found.boxes)))]
    columns += [f"image {place + 1}" for place in range(min(most, len(images)))]
    score, added = (short_number(float(own)) for own in (found.scores.mean(), found.importance.sum()))
    return captioned(
        sheet(rows, columns=columns),
        f"class {name}, {found.layer or 'logits'}. Next to concepts, and below images: what they add to the "
        "score, and its share of all concepts' sizes; below crops: how much of the concept they hold",
        f"{len(images)} images of mean score {score}, to which all concepts together add {added}; "
        f"{found.error:.0%} of the features' length belongs to no concept. Orange: where the concept is",
    )


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
