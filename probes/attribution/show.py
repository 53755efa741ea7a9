"""Attribution maps next to their images, as one picture for a notebook or a file."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fulgurite.probes.attribution.methods import METHODS
from fulgurite.probes.attribution.render_maps import APART, OVER, Look, look_of, render_maps, sized
from fulgurite.probes.render import captioned, picture, sheet, to_pil

Maps = Float[Tensor, "_ _ _ _"] | Float[Tensor, "_ _ _ _ _"]


def show(
    maps: Maps | Mapping[str, Maps],
    images: Float[Tensor, "n c h w"],
    *,
    captions: Sequence[str] | None = None,
    look: Look = "auto",
    side: int = 160,
) -> Image.Image:
    """A picture with a row for each image: the image and its maps, for a notebook or `.save(file)`.

    Maps of one channel lie over the image, orange where they are positive and blue where negative; those of
    several channels are shown by themselves, mid-grey being 0. Each tile has its own scale.

    Args:
        maps: of one method, or of several by name; with a further dimension in front for several objectives.
            Maps that are smaller than the images are enlarged.
        images: in [0, 1].
        captions: a line under each image.
        look: "over" the image, "signed", "heat" (the largest size of any channel), or what suits the maps.
        side: about how many pixels wide a tile is.

    Raises:
        ValueError: not a map or a caption for each image.
    """
    columns = {
        name: values
        for title, given in (maps if isinstance(maps, Mapping) else {"": maps}).items()
        for name, values in _by_objective(title, given).items()
    }
    for name, values in columns.items():
        if len(values) != len(images):
            raise ValueError(f"{len(values)} maps{f' {name}' * bool(name)} for {len(images)} images")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images; wanted one for each")
    looks: dict[str, Look] = {name: _look(name, values, look) for name, values in columns.items()}
    rows = {}
    for place, image in enumerate(images):
        first = sized(picture(image), side)
        tiles = [captioned(first, captions[place]) if captions else first]
        for name, values in columns.items():
            own = F.interpolate(
                values[place : place + 1].float(), size=image.shape[1:], mode="bilinear", align_corners=False
            )[0]
            tiles.append(sized(render_maps(name, image, own, look=looks[name]), side))
        rows[str(place)] = tiles
    legend = [OVER] * ("over" in looks.values()) + [APART] * bool(set(looks.values()) - {"over"})
    titles = ["", *(name.replace("_", " ") for name in columns)]
    return to_pil(captioned(sheet(rows, columns=titles), *legend))


def _by_objective(name: str, maps: Tensor) -> dict[str, Tensor]:
    if maps.dim() == 4:
        return {name: maps.detach().cpu()}
    return {f"{name} {number}".strip(): own for number, own in enumerate(maps.detach().cpu())}


def _look(name: str, values: Tensor, look: Look) -> Look:
    if look != "auto" or name in METHODS:
        return look_of(name, look)
    return "over" if values.shape[1] == 1 else "signed"
