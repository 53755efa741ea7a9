"""How the amplitudes of natural images fall with frequency."""

import torch
from jaxtyping import Float
from torch import Tensor


def frequency_scale(height: int, width: int, decay: float) -> Float[Tensor, "h w2"]:
    """Factors of a half spectrum that fall with frequency, so that unit coefficients make unit waves."""
    frequencies = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    falling = frequencies.clamp(min=1 / max(height, width)) ** -decay
    # a column counts for two of the full spectrum, except the first, and the last where width is even
    twice = torch.full([width // 2 + 1], 2.0)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    return falling * (height * width / (twice * falling).norm())
