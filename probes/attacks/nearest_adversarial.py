"""The nearest adversarial images found so far, and the common parts of minimal-distance attacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.attacked_network import Attacked, attacked
from fulgurite.probes.attacks.losses import margin, misclassified
from fulgurite.probes.attacks.threat import THREATS, TINY, Threat

LAST_CUTS = 3  # of the line from an image to the nearest point found
SURE = 1e-5  # of the largest logit: a lead that the rounding of another batch does not undo


class Nearest:
    """The nearest points found so far that fool the network, for copies of `run.images[rows]`.

    Where none was found the distance is infinite, and the point the image itself.

    Args:
        run: the network under attack.
        rows: whose copies they are.
        sure: the lead over the label that counts as success, relative to the largest logit.
    """

    def __init__(self, run: Attacked, rows: Int[Tensor, "m"], *, sure: float = 0.0):
        self.run, self.images, self.sure = run, run.images[rows], sure
        self.points = self.images.clone()
        self.distances = torch.full_like(self.points[:, 0, 0, 0], torch.inf)

    def keep(
        self, moved: Float[Tensor, "k c h w"], places: Int[Tensor, "k"], fooled: Bool[Tensor, "k"]
    ) -> None:
        """Record those of the moved copies at `places` that fool the network and are nearer."""
        lengths = self.run.threat.distance(moved, self.images[places])
        self.note(moved, places, lengths.where(fooled, torch.inf))

    def note(
        self, points: Float[Tensor, "k c h w"], places: Int[Tensor, "k"], distances: Float[Tensor, "k"]
    ) -> None:
        """Record those of the points that are nearer."""
        before, distant = self.points[places], self.distances[places]
        nearer = distances < distant
        self.points[places] = torch.where(nearer[:, None, None, None], points, before)
        self.distances[places] = torch.where(nearer, distances, distant)

    def look(
        self,
        moved: Float[Tensor, "k c h w"],
        rows: Int[Tensor, "k"],
        logits: Float[Tensor, "k classes"] | None = None,
    ) -> Bool[Tensor, "k"]:
        """Whether these fool the network; those that do and are nearer are kept.

        For copies that are the images themselves (`rows` of all). With the logits of a gradient pass, no
        further pass of the network is needed if that pass was the network's own.
        """
        if not len(rows):
            return torch.zeros_like(rows, dtype=torch.bool)  # not every network accepts an empty batch
        known = self.run.logits(moved) if logits is None else logits
        fooled, _ = self._judged(known, rows)
        if logits is not None:
            fooled = self.run.confirmed(moved, rows, fooled)
        self.keep(moved, rows, fooled)
        return fooled

    def search(self, rows: Int[Tensor, "k"]) -> None:
        """Cut the lines from these images to their points.

        Each cut is where the margin would be 0 if it were linear between the last points on either side, and
        a little beyond: on a linear network, the first one is just past the boundary.
        """
        if not len(rows):
            return
        run, starts, ends = self.run, self.images[rows], self.points[rows]
        _, before = self._judged(run.logits(starts), rows)
        _, beyond = self._judged(run.logits(ends), rows)
        inner, outer = torch.zeros_like(before), torch.ones_like(before)
        for _ in range(LAST_CUTS):
            share = (-before / (beyond - before).clamp(min=TINY)).nan_to_num(0.5).clamp(0, 1)
            cut = inner + (0.05 + 0.95 * share) * (outer - inner)
            points = run.threat.bounded(starts + cut[:, None, None, None] * (ends - starts))
            fooled, values = self._judged(run.logits(points), rows)
            self.keep(points, rows, fooled)
            inner, before = torch.where(fooled, inner, cut), torch.where(fooled, before, values)
            outer, beyond = torch.where(fooled, cut, outer), torch.where(fooled, values, beyond)

    def _judged(
        self, logits: Float[Tensor, "m k"], rows: Int[Tensor, "m"]
    ) -> tuple[Bool[Tensor, "m"], Float[Tensor, "m"]]:
        """Whether such logits are wrong, and by how much."""
        labels, targets = self.run.labels[rows], self.run.targets
        targets = None if targets is None else targets[rows]
        values = margin(logits, labels, targets)
        fooled = misclassified(logits, labels, targets)
        return (fooled & ~(values <= enough(logits, self.sure)) if self.sure else fooled), values


@contextmanager
def minimal_attack(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    norm: str | Threat,
    *,
    known: tuple[str, ...] = tuple(THREATS),
    **how: Any,
) -> Iterator[tuple[Nearest, Int[Tensor, "m"]]]:
    """A network under attack, and the images that are still to be moved; at the end, all lines are cut.

    Images that are misclassified before the attack count as found at distance 0.

    Args:
        network: maps images to logits.
        images: within the bounds.
        labels: the true class of each image.
        norm: by name, or a threat, whose radius does not matter.
        known: the names of the norms that the attack supports.
        how: options of every attack, see `AttackOptions`; but no loss.

    Raises:
        ValueError: as `attacked`, for a norm that the attack does not support, and for a loss.
    """
    threat = norm_of(norm, known)
    if "loss" in how:
        raise ValueError("an attack that looks for the nearest image has its own loss; leave out loss")
    with attacked(network, images, labels, threat, **how) as run:
        everyone = torch.arange(len(run.images), device=run.images.device)
        nearest = Nearest(run, everyone, sure=SURE)
        nearest.keep(run.images, everyone, run.misclassified(run.images, everyone))
        yield nearest, everyone[nearest.distances > 0]
        nearest.search(everyone[nearest.distances.isfinite() & (nearest.distances > 0)])


def norm_of(norm: object, known: tuple[str, ...] = tuple(THREATS)) -> Threat:
    """A norm, by name or as a threat to pixels in its bounds.

    Raises:
        ValueError: it is none of those known.
    """
    if isinstance(norm, Threat):
        name, threat = type(norm).__name__.lower(), norm
    else:
        name = norm.lower() if isinstance(norm, str) else norm
        threat = THREATS[name](1.0) if isinstance(name, str) and name in THREATS else None
    if threat is None or name not in known:
        raise ValueError(f"norm={norm!r}; this attack supports {', '.join(known)}")
    return threat


def enough(logits: Float[Tensor, "m k"], sure: float = SURE) -> Float[Tensor, "m"]:
    """The lead, at these logits, that rounding cannot reverse."""
    return sure * logits.abs().amax(1)


def likeliest_classes(run: Attacked, logits: Float[Tensor, "n k"], count: int) -> Int[Tensor, "n r"]:
    """The likeliest classes other than the label; or the targets."""
    if run.targets is not None:
        return run.targets[:, None]
    others = logits.nan_to_num(0).scatter(1, run.labels[:, None], float("-inf"))
    return others.topk(min(count, logits.shape[1] - 1), 1).indices


def each_likeliest(run: Attacked, rows: Int[Tensor, "k"], count: int) -> tuple[Int[Tensor, "k"], ...]:
    """The likeliest classes other than the label of these images, one after another; none without images."""
    return likeliest_classes(run, run.logits(run.images), count)[rows].unbind(1) if len(rows) else ()
