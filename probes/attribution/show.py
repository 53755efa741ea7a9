"""Attribution maps next to their images, as one picture for a notebook or a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fulgurite.probes.attribution.gradient import shaped
from fulgurite.probes.attribution.map_sheets import WORDS, MapRow, Scale, map_sheet
from fulgurite.probes.attribution.methods import METHODS
from fulgurite.probes.attribution.render_maps import Look, look_of
from fulgurite.probes.composites import composites_noted
from fulgurite.probes.counted import counted
from fulgurite.probes.render import SUFFIXES, noted, titled, to_pil, write
from fulgurite.probes.style import ThemeName, drawn_in

UNKNOWN: Mapping[str, str] = {
    "over": "over the image: orange is positive, blue negative",
    "signed": "orange is positive, blue negative (channels summed)",
    "colour": WORDS["colour"],
    "heat": WORDS["heat"],
    "both": "orange is positive, blue negative: over the image, or by itself (channels summed)",
}
"""What colours mean in maps of a method that is not known."""
CUT = 2
"""By how many cells the sides of a map may differ from the image's proportions: convolutions cut edges."""
Maps = Float[Tensor, "_ _ _"] | Float[Tensor, "_ _ _ _"] | Float[Tensor, "_ _ _ _ _"]


def show(
    maps: Maps | Mapping[str, Maps],
    images: Float[Tensor, "n c h w"] | Float[Tensor, "c h w"],
    *,
    captions: Sequence[str] | None = None,
    look: Look = "auto",
    scale: Scale = "column",
    side: int = 160,
    theme: ThemeName | None = None,
    title: str | None = None,
    out: str | Path | None = None,
) -> Image.Image:
    """A picture with a row for each image: the image and its maps, for a notebook or `.save(file)`.

    Row `image 3` shows `images[3]`.
    Maps of one channel lie over the image, orange where they are positive and blue where negative; those of
    several channels are shown by themselves, in the same colours. Maps of a method are on one scale, which is
    below their column; a method whose maps are 0 everywhere is left out. One map and one image need no batch.

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
        title: above the picture; the methods' names, if they have any, and the number of images without it.
        out: a file to write it to as well, by its ending PNG, JPEG, SVG or PDF.

    Raises:
        ValueError: not a map or a caption for each image, maps whose proportions are not the images', or no
            picture can be written at `out`.
    """
    if out is not None:
        out = _writable(Path(out))
    images = shaped(images[None] if images.dim() == 3 else images)
    columns = {
        name: values
        for title, given in (maps if isinstance(maps, Mapping) else {"": maps}).items()
        for name, values in _by_objective(title, given).items()
    }
    for name, values in columns.items():
        _check_values(name, values, images)
        if len(values) != len(images):
            raise ValueError(
                f"{counted(len(values), 'map')}{f' {name}' * bool(name)} "
                f"for {counted(len(images), 'image')}; wanted one for each"
            )
        if not _alike(values, images):
            raise ValueError(
                f"maps{f' {name}' * bool(name)} of {' x '.join(map(str, values.shape[-2:]))} for images of "
                f"{' x '.join(map(str, images.shape[-2:]))} (height x width); wanted the same proportions: "
                "maps of these images, whole"
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
    words = WORDS if all(name.rstrip(" 0123456789") in METHODS for name in columns) else UNKNOWN
    with drawn_in(theme), composites_noted() as channels:
        paper = map_sheet(rows, looks=looks, scale=scale, side=side, words=words)
        pixels = titled(noted(paper, *channels), _title(columns, len(rows)) if title is None else title)
    if out is not None:
        write(pixels, out)
    return to_pil(pixels)


def _writable(out: Path) -> Path:
    """The same, where a picture can be written there."""
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"out={str(out)!r}; wanted a name that ends in .png or .jpg, .svg or .pdf")
    if not out.parent.is_dir():
        raise ValueError(f"out={str(out)!r}: there is no folder {out.parent}; make it first")
    return out


def _check_values(name: str, maps: Tensor, images: Tensor) -> None:
    """Check that maps are finite, and have one channel or those of the images.

    Raises:
        ValueError: they are not, or have not.
    """
    wrong = int((~maps.isfinite()).flatten(1).any(1).sum()) if maps.numel() else 0
    if wrong:
        raise ValueError(
            f"NaN or infinity in {wrong} of {counted(len(maps), 'map')}{f' {name}' * bool(name)}; wanted "
            "finite values"
        )
    if maps.shape[1] not in (1, images.shape[1]):
        raise ValueError(
            f"maps{f' {name}' * bool(name)} of {counted(maps.shape[1], 'channel')} for images of "
            f"{counted(images.shape[1], 'channel')}; wanted one channel, or those of the images: "
            "show(maps, images), in this order"
        )


def _alike(maps: Tensor, images: Tensor) -> bool:
    """Whether the maps may cover the images: by strides, each side cut by up to `CUT` cells.

    Convolutions without padding cut both sides alike.
    """
    (high, wide), (height, width) = maps.shape[-2:], images.shape[-2:]
    least = max((high - CUT) / height, (wide - CUT) / width)
    most = min((high + CUT) / height, (wide + CUT) / width)
    return least <= most or height - high == width - wide


def _title(columns: Mapping[str, Tensor], images: int) -> str:
    names = [name.replace("_", " ") for name in columns if name.strip(" 0123456789")]
    many = len(columns) * images > 1
    of = f" of {counted(images, 'image')}" if images > 1 else ""
    named = f": {', '.join(names)}" if names else ""
    return f"Attribution map{'s' * many}{of}{named}"


def _by_objective(name: str, maps: Tensor) -> dict[str, Tensor]:
    if maps.dim() not in (3, 4, 5):
        raise ValueError(
            f"maps{f' {name}' * bool(name)} of shape {tuple(maps.shape)}; wanted [images, channels, height, "
            "width], or without the first for one image"
        )
    if maps.dim() == 3:
        maps = maps[None]
    if maps.dim() == 4:
        return {name: maps.detach().cpu()}
    return {f"{name} {number}".strip(): own for number, own in enumerate(maps.detach().cpu())}


def _look(name: str, values: Tensor, look: Look) -> Look:
    if look != "auto" or name in METHODS:
        return look_of(name, look)
    return "over" if values.shape[1] == 1 else "signed"
