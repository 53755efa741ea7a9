"""Synthetic data set of coloured, textured shapes with exact masks, with no download."""

from collections.abc import Sequence
from typing import Literal

from fulgurite.data.image_data_module import ImageData, check_side
from fulgurite.data.procedural_shapes import OUTLINES, TEXTURES
from fulgurite.data.scenes import ANY, Drawn, Kind, Where

Cue = Literal["shape", "texture", "both"]


class Shapes(ImageData):
    """Shapes of any place, size, angle, colour and texture, on backgrounds of any other colour and texture.

    The shape is lighter or darker than all of its background, so that grey (`channels=1`) shows it too. An
    image depends only on `seed`, its part and its index, and shows the same scene at every `size`. Each part
    gives masks too: `data.val.scenes(range(8)).masks`.

    With `cue="shape"`, the first 12 classes are shapes and the texture is random; with `"texture"`, the first
    8 are textures and the shape is random; with `"both"`, shape and texture of 8 agree. For more classes, up
    to 96, each is a shape in a texture. Where textures depend on the class, backgrounds are plain. Classes
    have equally many images, within one. `only` some of the classes, by number, in the order given.

    With `shortcut`, the background has, with that probability, the texture of its class, and any texture
    otherwise: the snow of "wolf or husky" (Ribeiro et al. 2016, arxiv.org/abs/1602.04938). With `planted`, a
    square in the upper left corner has, with that probability, the colour of the class, and any class's
    otherwise. In `test` neither depends on the class.

    Where there is a shortcut, or with `cue="both"`, there are images of a fourth part, `conflict`: the shape
    of one class with the texture of another, on the background or in the shape (Geirhos et al. 2019,
    arxiv.org/abs/1811.12231). Labels are those of the shapes, `conflict.cue_labels(range(8))` those of the
    textures; `shape_bias` computes the bias from both.
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        only: Sequence[int] | None = None,
        size: int = 32,
        channels: int = 3,
        images: int = 4000,
        held_out: int = 1000,
        cue: Cue = "shape",
        shortcut: float = 0.0,
        planted: float = 0.0,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ):
        """`images` to train on, `held_out` more to validate on, and as many to test on."""
        super().__init__(batch_size=batch_size, workers=workers, seed=seed)
        check_side(size)
        if size < 16:
            raise ValueError(f"shapes in fewer than 16 pixels look the same; got size {size}")
        if channels not in (1, 3):
            raise ValueError(f"channels is 1 for grey or 3 for colour; got {channels}")
        if not 0 <= planted <= 1:
            raise ValueError(f"planted is a probability, 0 for no square; got {planted}")
        if not 0 <= shortcut <= 1:
            raise ValueError(f"shortcut is a probability, 0 for backgrounds that say nothing; got {shortcut}")
        if seed < 0:
            raise ValueError(f"a seed is 0 or more; got {seed}")
        kinds = _kinds(classes, cue)
        chosen = tuple(range(classes) if only is None else only)
        if len(chosen) < 2 or len({*chosen} & {*range(classes)}) < len(chosen):
            raise ValueError(f"only is two or more different classes of 0 to {classes - 1}; got {chosen}")
        self.kinds = tuple(kinds[k] for k in chosen)
        if shortcut and (len(chosen) > len(TEXTURES) or any(texture != ANY for _, texture in self.kinds)):
            raise ValueError(
                f"a shortcut needs classes that are only shapes, at most {len(TEXTURES)}, one for each "
                f"texture; got cue={cue!r} and {len(chosen)} classes"
            )
        if min(images, held_out) < len(chosen):
            raise ValueError(
                f"every one of {len(chosen)} classes needs an image; got images {images}, held_out {held_out}"
            )
        self.classes = tuple(_name(*kind) for kind in self.kinds)
        self.channels = channels
        self.size = size
        # of all possible images, not of these
        self.mean, self.std = (0.5,) * channels, (0.25 if channels == 1 else 0.3,) * channels
        self.images = images
        self.held_out = held_out
        self.shortcut = shortcut
        self.planted = planted

    @property
    def conflict(self) -> Drawn:
        """As many images as in `test`, each with the shape of one class and the texture of another.

        Raises:
            ValueError: textures or shapes do not depend on the class.
        """
        if not self.shortcut and (ANY in {number for kind in self.kinds for number in kind}):
            raise ValueError('no conflict of shape and texture without a shortcut; wanted one, or cue="both"')
        return self._part(3, self.held_out, conflict="background" if self.shortcut else "shape")

    def parts(self) -> tuple[Drawn, Drawn, Drawn]:
        """Each draws its images on request."""
        train = self._part(0, self.images, planted=self.planted, shortcut=self.shortcut)
        val = self._part(1, self.held_out, planted=self.planted, shortcut=self.shortcut)
        return train, val, self._part(2, self.held_out)

    def _part(
        self,
        number: int,
        count: int,
        *,
        planted: float = 0.0,
        shortcut: float = 0.0,
        conflict: Where | None = None,
    ) -> Drawn:
        return Drawn(
            self.kinds,
            self.classes,
            count,
            size=self.size,
            channels=self.channels,
            # where a cue is planted, it is there in every part
            cue_probability=planted if self.planted else None,
            seed=(self.seed, number),
            shortcut=shortcut if self.shortcut else None,
            conflict=conflict,
        )


def _kinds(classes: int, cue: Cue) -> tuple[Kind, ...]:
    outlines, textures = range(len(OUTLINES)), range(len(TEXTURES))
    alone: dict[str, list[Kind]] = {
        "shape": [(outline, ANY) for outline in outlines],
        "texture": [(ANY, texture) for texture in textures],
        "both": list(zip(outlines, textures, strict=False)),
    }
    every = [(outline, texture) for texture in textures for outline in outlines]
    if cue not in alone:
        raise ValueError(f"cue is one of {', '.join(alone)}; got {cue!r}")
    if not 2 <= classes <= len(every):
        raise ValueError(
            f"classes is 2 to {len(every)}: {len(outlines)} shapes in {len(textures)} textures; got {classes}"
        )
    return tuple((alone[cue] if classes <= len(alone[cue]) else every)[:classes])


def _name(outline: int, texture: int) -> str:
    shape = [] if outline == ANY else [list(OUTLINES)[outline]]
    return " ".join(shape if texture == ANY else [list(TEXTURES)[texture], *shape])
