"""Feature inversion: images whose code at a layer is that of a given image (Mahendran & Vedaldi 2015)."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.feature_objectives import match, match_log_probabilities
from fulgurite.probes.objectives import Objective, pooled
from fulgurite.probes.synthesis.arguments import check_start
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier
from fulgurite.probes.synthesis.lbfgs import lbfgs
from fulgurite.probes.synthesis.priors import Prior, bounded_range, total_variation
from fulgurite.probes.synthesis.watch import Watch

LOG_PROBABILITIES = "log-probabilities"
"""The name of a code that no layer outputs: the logarithm of the softmax of the network's output."""

PriorName = Literal["none", "tv1", "tv2"]


class Inversion(NamedTuple):
    """Reconstructions of images from their codes at a layer, and how good they are.

    A small error with a low PSNR means that the layer has lost the differences; a large spread, that several
    images have the same code.

    Args:
        images: the reconstructions, in [0, 1]; the first dimension counts repeats.
        relative_error: distance of the reconstruction's code from the image's, over the length of that.
        normalized_error: the same distance, over the mean distance of the codes of two images; NaN where
            there is only one image.
        psnr: of reconstruction and image, in dB.
        spread: standard deviation of a pixel over the repeats of an image, root mean square over pixels; 0
            for one repeat.
    """

    images: Float[Tensor, "r n c h w"]
    relative_error: Float[Tensor, "r n"]
    normalized_error: Float[Tensor, "r n"]
    psnr: Float[Tensor, "r n"]
    spread: Float[Tensor, "n"]

    def means(self) -> dict[str, float]:
        """The numbers by name, averaged over repeats and images."""
        return {name: float(values.mean()) for name, values in self._asdict().items() if name != "images"}


def invert(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    layer: str,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3),
    prior: PriorName = "tv2",
    strength: float = 0.03,
    steps: int = 300,
    start: Float[Tensor, "r n c h w"] | None = None,
    distance: float | None = None,
    precise: bool = False,
    watch: Watch | None = None,
) -> Inversion:
    """Images that a layer does not distinguish from the given ones, each from several starts (pre-images).

    The squared distance of the codes, relative to the length of the image's own, is minimised on a Fourier
    canvas by L-BFGS, all repeats of all images in one batch; the paper's optimiser is SGD with momentum.
    Mahendran & Vedaldi 2015, arxiv.org/abs/1412.0035.

    Args:
        network: maps images in [0, 1] to logits.
        images: to be reconstructed.
        layer: by module path; `""` for the logits, "log-probabilities" for their log-softmax.
        seeds: of the starts, noise on mid-grey; there are as many reconstructions of each image.
        prior: the image prior: "none"; "tv2", total variation with beta = 2, which smooths; or "tv1", with
            beta = 1, which keeps edges. Both with a bounded range, alpha = 6.
        strength: of the prior, relative to the code's error: of mean squared differences of pixels. The paper
            takes ten and a hundred times as much for the middle and the last layers.
        steps: passes of the network.
        start: images to start from instead, such as reconstructions of an earlier epoch.
        distance: of the codes of two images, on average; measured on `images` without it.
        precise: compute in float64, see `ascend`.
        watch: what to show and to keep on the way.

    Raises:
        ValueError: no such layer or prior, no seed, or starts of another shape or not in [0, 1].
    """
    count, shape = len(images), (images.shape[1], images.shape[2], images.shape[3])
    if not seeds:
        raise ValueError("no seed; wanted at least one, such as seeds=[0]")
    check_start(start, (len(seeds), *images.shape))
    code = codes_of(network, images, layer)
    canvas = Fourier(shape, [seed for seed in seeds for _ in range(count)], spread=0.1)
    if start is not None:
        canvas.set_images(start.flatten(0, 1))
    found = ascend(
        network,
        matching(code.repeat(len(seeds), *[1] * (code.dim() - 1)), layer),
        canvas,
        steps=steps,
        by=lbfgs(longest=0.1),
        priors=priors_of(prior, strength, shape),
        watch=watch,
        precise=precise,
    )
    errors = (codes_of(network, found, layer) - code.repeat(len(seeds), *[1] * (code.dim() - 1))).flatten(1)
    lengths = errors.norm(dim=1).view(len(seeds), count)
    distance = mean_distance(code) if distance is None else distance
    made = found.view(len(seeds), *images.shape)
    return Inversion(
        made,
        lengths / code.flatten(1).norm(dim=1).clamp(min=1e-12),
        lengths / distance,
        psnr(made, images.to(made)),
        made.var(0, correction=0).flatten(1).mean(1).sqrt(),
    )


def codes_of(
    network: nn.Module, images: Float[Tensor, "n c h w"], layer: str
) -> Float[Tensor, "n d *positions"]:
    """The codes of images: the output of a layer, the logits, or the log-probabilities.

    Raises:
        ValueError: no such layer.
    """
    if layer == LOG_PROBABILITIES:
        return F.log_softmax(pooled(outputs(network, images, [""])[""]), 1)
    return outputs(network, images, [layer])[layer]


def matching(code: Float[Tensor, "n d *positions"], layer: str) -> Objective:
    """Minus the squared relative distance to codes, of a layer or of the log-probabilities."""
    return match_log_probabilities(code) if layer == LOG_PROBABILITIES else match(layer, code)


def priors_of(prior: PriorName, strength: float, shape: tuple[int, int, int]) -> list[Prior]:
    """Total variation and bounded range by name, as averages over pixels and channels.

    Raises:
        ValueError: no such prior, or a negative strength.
    """
    if prior not in ("none", "tv1", "tv2") or strength < 0:
        raise ValueError(
            f'prior={prior!r}, strength={strength:g}; wanted "none", "tv1" or "tv2", and a strength of at '
            "least 0"
        )
    channels, height, width = shape
    if prior == "none" or not strength:
        return []
    values = channels * height * width
    # lengths of differences are larger numbers than their squares: so both smooth about as much
    smooth = (
        total_variation(strength / values)
        if prior == "tv2"
        else total_variation(0.3 * strength / values, beta=1)
    )
    return [smooth, bounded_range(0.1 * strength / (height * width))]


def mean_distance(code: Float[Tensor, "n d *positions"]) -> float:
    """The mean Euclidean distance of two of the codes; NaN for one."""
    return float(torch.pdist(code.flatten(1)).mean())


def psnr(
    found: Float[Tensor, "*n c h w"], images: Float[Tensor, "*m c h w"], *, most: float = 99.0
) -> Float[Tensor, "*n"]:
    """The peak signal-to-noise ratio of images in [0, 1], in dB; `most` where they are the same."""
    return (-10 * (found - images).square().mean((-3, -2, -1)).log10()).clamp(max=most)


def absent(inversions: Mapping[str, Inversion]) -> set[str]:
    """The numbers that these do not have: the spread of one repeat, the distance of two images of one."""
    lacking = set[str]()
    if all(len(found.images) == 1 for found in inversions.values()):
        lacking.add("spread")
    if all(bool(found.normalized_error.isnan().all()) for found in inversions.values()):
        lacking.add("normalized_error")
    return lacking


NUMBERS = {
    "relative_error": ("relative error", "{:.2%}"),
    "normalized_error": ("error / mean distance", "{:.2%}"),
    "psnr": ("PSNR (dB)", "{:.1f}"),
    "spread": ("spread", "{:.3f}"),
}
"""The head of each number's column in a table, and how it is written there."""


def table(inversions: Mapping[str, Inversion]) -> list[list[str]]:
    """Head and rows of a table: the mean numbers of each layer.

    What one image or one repeat does not have is left out: the distance of two images, and the spread.
    """
    lacking = absent(inversions)
    columns = {name: column for name, column in NUMBERS.items() if name not in lacking}
    rows = []
    for layer, found in inversions.items():
        means = found.means()
        rows.append([layer or "logits", *(form.format(means[name]) for name, (_, form) in columns.items())])
    return [["layer", *(head for head, _ in columns.values())], *rows]
