"""Square attack: black-box random search (Andriushchenko et al. 2020)."""

import math
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts, check_numbers
from fulgurite.probes.attacks.attacked_network import Attacked, AttackOptions, attacked
from fulgurite.probes.attacks.losses import cross_entropy, margin, misclassified
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.square_patterns import Window, move_pattern, tiled
from fulgurite.probes.attacks.threat import Linf, Threat
from fulgurite.probes.device_sync import is_time

HALVINGS = (
    10,
    50,
    200,
    500,
    1000,
    2000,
    4000,
    6000,
    8000,
)  # of the squares' area, after these of 10000 steps
SEED = 1912


def square(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    *,
    queries: int = 5000,
    size: float = 0.8,
    restarts: int = 1,
    drop: bool = True,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """Random squares, smaller and smaller; each that lowers the margin of the network is kept.

    With a target, its cross-entropy is compared. No gradient is used.
    Andriushchenko et al. 2020, arxiv.org/abs/1912.00049. In Linf, vertical stripes to begin with, then
    squares of one sign in each channel, as far as the radius goes. In L2, patterns that fade outwards;
    each query moves what one window holds, and what is left of the radius, into such a pattern in
    another. In L1 the same, lengths being sums (Croce & Hein 2021, arxiv.org/abs/2103.01208); then the
    nearest point in ball and bounds.

    Args:
        network: maps images to logits.
        images: within the threat's bounds; those that are already misclassified are returned unchanged.
        labels: the true class of each image.
        threat: how far the images may be moved.
        queries: forward passes of each image, in each restart.
        size: of the first squares, as a share of the image's area.
        restarts: from how many random starts; a misclassified image is not started again.
        drop: leave an image alone as soon as it fools the network; without it, the search goes on for a
            larger margin.
        how: options of every attack, see `AttackOptions`; but no loss. The squares are the same for all
            images, and drawn from the generator, or always the same without one.

    Raises:
        ValueError: as `attacked`, for counts below 1, a size that is not a share, and a loss.
    """
    check_counts(queries=queries, restarts=restarts)
    check_numbers(size=size)
    if not 0 < size <= 1:
        raise ValueError(f"size={size}; wanted a share of the image's area above 0 and at most 1")
    if how.get("loss", "margin") != "margin":
        raise ValueError(f"loss={how.get('loss')!r}; Square compares images by the margin; leave out loss")
    with attacked(network, images, labels, threat, **how) as run:
        everyone = torch.arange(len(run.images), device=run.images.device)
        right = ~run.misclassified(run.images, everyone)
        best = Best(run)
        for restart in range(restarts):
            rows = everyone[right & ~best.adversarial]
            if not len(rows):
                break
            generator = how.get("generator") or torch.Generator().manual_seed(SEED + restart)
            starts = _initial_stripes(run.images, threat, run.draws(salt=restart))
            found = _search(run, starts, rows, queries, size, generator, drop=drop)
            best.note(found.points[rows], rows, found.adversarial[rows], found.values[rows])
        return best.points


class Best:
    """For each image, the best point so far: one that fools the network, or else has the largest value."""

    def __init__(self, run: Attacked):
        self.points = run.images.clone()
        self.values = torch.full_like(self.points[:, 0, 0, 0], -torch.inf)
        self.adversarial = torch.zeros_like(self.values, dtype=torch.bool)

    def note(
        self,
        moved: Float[Tensor, "m c h w"],
        rows: Int[Tensor, "m"],
        fooled: Bool[Tensor, "m"],
        values: Float[Tensor, "m"],
    ) -> None:
        """Keep those of the moved copies of images `rows` that are better."""
        already = self.adversarial[rows]
        better = (fooled & ~already) | ((fooled == already) & (values > self.values[rows]))
        kept = rows[better]
        self.points[kept], self.values[kept] = moved[better], values[better]
        self.adversarial[kept] = fooled[better]


def _search(
    run: Attacked,
    starts: Float[Tensor, "n c h w"],
    rows: Int[Tensor, "m"],
    queries: int,
    size: float,
    generator: torch.Generator,
    *,
    drop: bool,
) -> Best:
    best, squares = Best(run), _Squares(run, rows, queries, generator)
    points, values, adversarial = starts[rows], best.values[rows], best.adversarial[rows]
    for query in range(queries):
        share = size / 2 ** sum(query / queries * 10000 > halving for halving in HALVINGS)
        proposals = squares.proposed(query, points, share) if query else points
        logits, labels = run.logits(proposals), run.labels[rows]
        targets = None if run.targets is None else run.targets[rows]
        losses = (margin if targets is None else cross_entropy)(logits, labels, targets)
        fooled = misclassified(logits, labels, targets)
        better = (fooled & ~adversarial) | ((fooled == adversarial) & (losses > values))
        if drop:  # the first point that fools the network stays
            better = better & ~adversarial
        points = proposals.where(better[:, None, None, None], points)
        values, adversarial = losses.where(better, values), adversarial | fooled
        if drop and is_time(query, points.device) and adversarial.any():
            best.note(points[adversarial], rows[adversarial], adversarial[adversarial], values[adversarial])
            going = ~adversarial
            rows, points, values, adversarial = (part[going] for part in (rows, points, values, adversarial))
            squares.keep_rows(going)
            if not len(rows):
                break
    best.note(points, rows, adversarial, values)
    return best


class _Squares:
    """The proposals of each query: the same squares for all images."""

    def __init__(self, run: Attacked, rows: Int[Tensor, "m"], queries: int, generator: torch.Generator):
        self.threat, self.images = run.threat, run.images[rows]
        drawn = torch.rand(queries, 5 + self.images.shape[1], generator=generator, device=generator.device)
        self._places = drawn[:, :5].tolist()
        self._positive = (drawn[:, 5:] < 0.5).to(self.images.device)[..., None, None]
        self._edges = self._of_the_ball()

    def keep_rows(self, going: Bool[Tensor, "m"]) -> None:
        """Go on with some of the images only."""
        self.images = self.images[going]
        self._edges = self._of_the_ball()

    def proposed(self, query: int, moved: Float[Tensor, "m c h w"], share: float) -> Float[Tensor, "m c h w"]:
        """The images that this query tries, from the current ones, with squares of this area."""
        height, width = moved.shape[2:]
        side = round(math.sqrt(share * height * width))
        side = max(side, 1) if isinstance(self.threat, Linf) else max(side, 3) // 2 * 2 + 1
        side = min(side, height, width)

        def window(top: float, left: float) -> Window:
            y, x = int(top * (height - side + 1)), int(left * (width - side + 1))
            return slice(y, y + side), slice(x, x + side)

        positive, (top, left, other_top, other_left, turn) = self._positive[query], self._places[query]
        into = window(top, left)
        if not isinstance(self.threat, Linf):
            signs = torch.where(positive, 1.0, -1.0).to(moved)
            out_of = window(other_top, other_left)
            return move_pattern(moved, self.images, self.threat, into, out_of, signs, turned=turn < 0.5)
        proposals, inside = moved.clone(), (..., *into)
        low, high = self._edges
        proposals[inside] = torch.where(positive, high[inside], low[inside])
        return proposals

    def _of_the_ball(self) -> tuple[Float[Tensor, "m c h w"], Float[Tensor, "m c h w"]]:
        """The lowest and highest values of each pixel, in Linf."""
        epsilon = self.threat.epsilon
        return self.threat.bounded(self.images - epsilon), self.threat.bounded(self.images + epsilon)


def _initial_stripes(
    images: Float[Tensor, "n c h w"], threat: Threat, draws: PerImageRandom
) -> Float[Tensor, "n c h w"]:
    if not isinstance(threat, Linf):
        return tiled(images, threat, draws)
    stripes = torch.where(draws.uniform(images.shape[1], 1, images.shape[3]) < 0.5, 1.0, -1.0)
    return threat.project(images + threat.epsilon * stripes, images)
