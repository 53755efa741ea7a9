"""Pictures of adversarial examples: image, perturbation and prediction."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.render import RGB, captioned, cut, font, largest, picture, signed


def row(
    image: Float[Tensor, "c h w"],
    moved: Float[Tensor, "c h w"],
    before: str,
    after: str,
    *,
    times: Mapping[float, str] | None = None,
    side: int = 112,
) -> list[RGB]:
    """A row of a sheet: the image, what was added to it, magnified, and the sum.

    The perturbation is mid-grey at 0, brighter above and darker below.

    Args:
        image: as it was, in [0, 1].
        moved: as it is after the attack.
        before: the image's caption; each line of a caption is one.
        after: the caption of the sum.
        times: a tile for each factor, and its caption; without it, one tile, with the largest factor that
            clips no value, which is its caption.
        side: tiles are brought to about this many pixels.
    """
    shift = moved - image
    if times is None:
        times = {(scale := magnification(shift)): f"added, x {scale:g}" if shift.any() else "nothing added"}
    tiles = [(picture(image), before)]
    tiles += [(signed(shift, top=0.5 / factor), caption) for factor, caption in times.items()]
    tiles += [(picture(moved), after)]
    return [captioned(sized(pixels, side), *caption.split("\n")) for pixels, caption in tiles]


def magnification(shift: Float[Tensor, "..."]) -> float:
    """The largest of 1, 2, 5, 10, 20, 50 and so on (or .5, .2, .1) that keeps every value within a half."""
    size = largest(shift)
    if not size:
        return 1.0
    limit = 0.5 / size * (1 + 1e-3)  # rounding
    power = 10.0 ** math.floor(math.log10(limit))
    return max(step * power for step in (1, 2, 5) if step * power <= limit)


def caption(name: str, probability: float, *, side: int = 112) -> str:
    """A prediction and its probability, as a tile's caption; a long name is cut, the probability is not."""
    share = f": {probability:.0%}"
    return cut(name, side - 4 - int(font().getlength(share))) + share


def within(threat: Threat) -> str:
    """A threat in words: its radius, as a fraction of 255 where it is one, and its norm."""
    parts = threat.epsilon * 255
    whole = 1 <= round(parts) <= 32 and abs(parts - round(parts)) < 1e-6
    return f"{f'{round(parts)}/255' if whole else f'{threat.epsilon:.4g}'} in {type(threat).__name__}"


def name_of(attack: Callable[..., Any]) -> str:
    """An attack in words: its function's name and its options."""
    if isinstance(attack, partial):
        chosen = ", ".join(f"{name}={value}" for name, value in attack.keywords.items())
        return f"{name_of(attack.func)}({chosen})" if chosen else name_of(attack.func)
    return getattr(attack, "__name__", type(attack).__name__)
