"""Health of a representation: effective rank, intrinsic dimension, neural collapse."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.moments import Moments
from fulgurite.probes.representation.neighbours import nearest_neighbours


class NeuralCollapse(NamedTuple):
    """How far features and classifier have collapsed to a simplex of class means: all fall to 0.

    Args:
        nc1: variation within classes against that between them, tr(W B+) / classes.
        nc2: by how much the cosines of centred class means differ from -1 / (classes - 1), on average.
        nc3: how far the classifier's weights are from the centred class means, both scaled to norm 1; from 0
            to 2, NaN without weights.
    """

    nc1: float
    nc2: float
    nc3: float


def effective_rank(covariance: Float[Tensor, "d d"]) -> float:
    """The number of directions that matter: e to the entropy of the eigenvalues' shares, from 1 to d.

    Of codes that are all equal it is 0. Roy & Vetterli 2007, EUSIPCO.

    Raises:
        ValueError: a covariance that is not finite.
    """
    if not bool(covariance.isfinite().all()):
        raise ValueError("a covariance that is not finite")
    values = torch.linalg.eigvalsh(covariance.double()).clamp(min=0)
    if float(values.sum()) == 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def intrinsic_dimension(codes: Float[Tensor, "n d"]) -> float:
    """The dimension of the surface that the codes lie on, from the distances to their two nearest (TwoNN).

    Codes that occur twice or more are left out. Facco et al. 2017, doi.org/10.1038/s41598-017-11873-y, by
    maximum likelihood.

    Raises:
        ValueError: fewer than three different codes, or some that are not finite.
    """
    different = codes.unique(dim=0) if bool(codes.isfinite().all()) else codes
    if len(different) < 3:
        raise ValueError(f"{len(different)} different codes; wanted at least 3 to estimate their dimension")
    nearest = nearest_neighbours(different, k=2, metric="l2").distances
    logs = (nearest[:, 1] / nearest[:, 0]).log()
    return float(len(logs) / logs.sum())


def neural_collapse(
    moments: Moments, name: str, weights: Float[Tensor, "k d"] | None = None
) -> NeuralCollapse:
    """The measures NC1 to NC3 of a layer's features, from sums over a stream of images.

    Classes without images are left out. Papyan, Han & Donoho 2020, arxiv.org/abs/2008.08186; covariances are
    over all images, so that classes count by their images.

    Args:
        moments: with the pair (name, name) and `classes`.
        name: the name of the features.
        weights: of the classifier that reads these features, a row for each class.

    Raises:
        ValueError: images of one class alone, moments without classes, or class means that are all equal.
    """
    if not moments.classes or moments.count == 0:
        raise ValueError("moments without classes or images; wanted those of at least two classes")
    counts = moments.sums["class count"]
    seen = counts > 0
    if int(seen.sum()) < 2:
        raise ValueError("images of one class alone; wanted those of at least two")
    means = moments.class_means(name)[seen] - moments.mean(name)
    shares = (counts[seen] / counts.sum())[:, None]
    total = moments.covariance(name)
    between = means.T @ (shares * means)
    values, axes = torch.linalg.eigh(between)
    kept = values > values.amax().clamp(min=0) * 1e-10
    if not bool(kept.any()) or float(between.trace()) <= 1e-14 * float(moments.mean(name).square().sum()):
        raise ValueError("class means that are all equal")
    inverse = (axes[:, kept] / values[kept]) @ axes[:, kept].T
    nc1 = ((total - between) @ inverse).trace() / len(means)
    centred = means - means.mean(0)
    unit = torch.nn.functional.normalize(centred, eps=1e-300)
    cosines = unit @ unit.T
    apart = ~torch.eye(len(means), dtype=torch.bool, device=means.device)
    nc2 = (cosines[apart] + 1 / (len(means) - 1)).abs().mean()
    nc3 = torch.nan
    if weights is not None and len(weights) == len(counts):
        own = weights.to(centred)[seen]
        nc3 = float((own / own.norm() - centred / centred.norm()).norm())
    return NeuralCollapse(max(0.0, float(nc1)), float(nc2), nc3)


def nearest_mean_disagreement(
    codes: Float[Tensor, "n d"], logits: Float[Tensor, "n k"], means: Float[Tensor, "k d"]
) -> float:
    """NC4: the share of images that the network puts into another class than that of the nearest class mean.

    Args:
        codes: features before the classifier.
        logits: the network's.
        means: of the classes' features; NaN for classes without images, which are no nearest ones.
    """
    distances = torch.cdist(codes.double(), means.to(codes.device).double().nan_to_num(0.0))
    distances = distances.masked_fill(means.to(codes.device).isnan().any(1), torch.inf)
    return float((distances.argmin(1) != logits.to(codes.device).argmax(1)).double().mean())
