"""Attribution maps next to their images, as one picture for a notebook or a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fulgurite.probes.attribution.map_sheets import MapRow, Scale, map_sheet
from fulgurite.probes.attribution.methods import METHODS
from fulgurite.probes.attribution.render_maps import Look, look_of
from fulgurite.probes.counted import counted
from fulgurite.probes.render import titled, to_pil, write
from fulgurite.probes.style import ThemeName, drawn_in

Maps = Float[Tensor, "_ _ _ _"] | Float[Tensor, "_ _ _ _ _"]


def show(
    maps: Maps | Mapping[str, Maps],
    images: Float[Tensor, "n c h w"],
    *,
    captions: Sequence[str] | None = None,
    look: Look = "auto",
    scale: Scale = "column",
    side: int = 160,
    theme: ThemeName | None = None,
    title: str = "",
    out: str | Path | None = None,
) -> Image.Image:
    """A picture with a row for each image: the image and its maps, for a notebook or `.save(file)`.

    Row `image 3` shows `images[3]`.
    Maps of one channel lie over the image, orange where they are positive and blue where negative; those of
    several channels are shown by themselves, in the same colours. Maps of a method are on one scale, which is
    below their column; a method whose maps are 0 everywhere is left out.

    Args:
        maps: of one method, or of several by name; with a further dimension in front for several objectives.
            Maps that are smaller than the images are enlarged.
        images: in [0, 1].
        captions: a line under each image.
        look: "over" the image, "signed" (summed over channels), "colour" (each channel), "heat" (the largest
            size of any channel), or what suits the maps.
        scale: of colours: one for each "column", or for each "tile", which shows weak maps as well.
        side: about how many pixels wide a tile is.
        theme: "dark", or "light" for papers.
        title: above the picture.
        out: a file to write it to as well, by its ending PNG, JPEG, SVG or PDF.

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
            raise ValueError(
                f"{counted(len(values), 'map')}{f' {name}' * bool(name)} "
                f"for {counted(len(images), 'image')}; wanted one for each"
            )
    if captions is not None and len(captions) != len(images):
        raise ValueError(
            f"{counted(len(captions), 'caption')} for {counted(len(images), 'image')}; wanted one for each"
        )
    looks: dict[str, Look] = {name: _look(name, values, look) for name, values in columns.items()}
    rows = {
        f"image {place}": MapRow(
            image,
            {name: values[place] for name, values in columns.items()},
            captions[place] if captions else "",
        )
        for place, image in enumerate(images)
    }
    with drawn_in(theme):
        pixels = titled(map_sheet(rows, looks=looks, scale=scale, side=side), title)
    if out is not None:
        write(pixels, Path(out))
    return to_pil(pixels)


def _by_objective(name: str, maps: Tensor) -> dict[str, Tensor]:
    if maps.dim() == 4:
        return {name: maps.detach().cpu()}
    return {f"{name} {number}".strip(): own for number, own in enumerate(maps.detach().cpu())}


def _look(name: str, values: Tensor, look: Look) -> Look:
    if look != "auto" or name in METHODS:
        return look_of(name, look)
    return "over" if values.shape[1] == 1 else "signed"
