"""Concept activation vectors: how sensitive a class score is to a concept given by examples (TCAV)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.attribution.activation_gradients import activation_graph
from fulgurite.probes.batches import Batches, batch_size
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.objectives import class_score
from fulgurite.probes.representation.logistic import every_fifth

LEAST = {
    "images of the class": 1,
    "images of the concept": 5,
    "random images": 10,
    "sets of random images": 1,
    "draws of random images": 19,  # with which the smallest p-value is 0.05
}


@dataclass(frozen=True)
class ConceptSensitivity:
    """The effect of a concept on a class score, compared with that of random images.

    Args:
        layer: where.
        vectors: of each set of random images, the concept's unit vector in the layer's channels.
        scores: with each vector, the share of the class's images whose score grows along it, from 0 to 1.
        alignments: the mean cosine of the class score's gradient with each vector, from -1 to 1.
        chance: the same of each vector between two sets of random images.
        accuracy: of held-out images, how many the vectors distinguish from random ones, on average.
    """

    layer: str
    vectors: Float[Tensor, "r d"]
    scores: Float[Tensor, "r"]
    alignments: Float[Tensor, "r"]
    chance: Float[Tensor, "k"]
    accuracy: float

    @property
    def score(self) -> float:
        """The mean of the scores: 1 where the concept always raises the class score, 0 where it lowers it."""
        return float(self.scores.mean())

    @property
    def alignment(self) -> float:
        """The mean of the alignments."""
        return float(self.alignments.mean())

    @property
    def p_value(self) -> float:
        """The probability that random images are as aligned with the gradient as the concept is, or more.

        The mean of those of the single vectors, from 1 / (draws + 1) to 1.
        """
        as_far = (self.chance.abs() >= self.alignments.abs()[:, None]).sum(1)
        return float((1 + as_far).double().mean()) / (1 + len(self.chance))


def concept_sensitivity(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    target: int,
    concept: Float[Tensor, "m c h w"],
    others: Float[Tensor, "o c h w"],
    layer: str,
    *,
    sets: int = 20,
    draws: int = 100,
    score_layer: str = "",
    seed: int = 0,
) -> ConceptSensitivity:
    """How a class score changes along the direction of a concept in a layer, with a test against chance.

    A concept activation vector goes from the mean of the layer's outputs for random images, averaged over
    their positions, to that for images of the concept, see `concept_vector`. The derivative of the class
    score along it, at all positions at once, is taken at each image of the class. Each of `sets` vectors has
    its own random images, drawn from `others`; `draws` more are between two disjoint sets of random images.
    Kim et al. 2018, arxiv.org/abs/1711.11279, where outputs are flattened, and vectors a classifier's.

    There, a t-test compares scores. All vectors of a concept share its images, so that it finds random
    images significant, too; and by its sign alone, any direction that is not at a right angle to the gradient
    scores 0 or 1. Here, the cosine with the gradient is compared with those of random images.

    Args:
        network: maps images to logits.
        images: of the class, in [0, 1].
        target: the class.
        concept: images of the concept.
        others: random images, twice as many as of the concept or more; with fewer, sets are smaller.
        layer: one with maps, or tokens of a known grid.
        sets: vectors of the concept.
        draws: vectors of random images.
        score_layer: where the class score is read; the output without it.
        seed: of the draws of random images.

    Raises:
        ValueError: fewer than 5 images of the concept, 10 random images or 19 draws; or as `grad_cam`.
    """
    counts = [len(images), len(concept), len(others), sets, draws]
    for count, (noun, least) in zip(counts, LEAST.items(), strict=True):
        if count < least:
            raise ValueError(f"{count} {noun}; wanted at least {least}")
    own, random = (
        features_and_slopes(network, part, target, layer, score_layer)[0] for part in (concept, others)
    )
    slopes = features_and_slopes(network, images, target, layer, score_layer)[1]
    slope = (slopes / slopes.norm(dim=1, keepdim=True).clamp(min=1e-300)).mean(0)
    size, generator = min(len(own), len(random) // 2), torch.Generator().manual_seed(seed)
    drawn = (torch.randperm(len(random), generator=generator) for _ in range(max(sets, draws)))
    found, chance = [], []
    for number, order in enumerate(drawn):
        one, other = random[order[: 2 * size]].split(size)
        if number < sets:
            found.append(concept_vector(own, one))
        if number < draws:
            chance.append(concept_vector(other, one)[0] @ slope)
    vectors, accuracies = zip(*found, strict=True)
    vectors = torch.stack(vectors)
    return ConceptSensitivity(
        layer=layer,
        vectors=vectors,
        scores=(slopes @ vectors.T > 0).double().mean(0),
        alignments=vectors @ slope,
        chance=torch.stack(chance),
        accuracy=sum(accuracies) / sets,
    )


def concept_vector(
    concept: Float[Tensor, "m d"], others: Float[Tensor, "o d"]
) -> tuple[Float[Tensor, "d"], float]:
    """The unit vector from the mean of other images' features to that of the concept's, and its accuracy.

    Means are of four fifths of the images; accuracy is the mean share of the rest of both that lies on its
    own side of the middle. These are the pattern-based vectors of Pahde et al. 2022,
    arxiv.org/abs/2202.03482: a classifier's weights follow directions in which features hardly vary.

    Raises:
        ValueError: fewer than two images of either.
    """
    if min(len(concept), len(others)) < 2:
        raise ValueError(
            f"{counted(len(concept), 'image')} of the concept and {len(others)} others; wanted 2 of each"
        )
    concept, others = concept.double(), others.double()
    aside = [every_fifth(torch.zeros(len(own), dtype=torch.long)) for own in (concept, others)]
    its, their = (own[~out].mean(0) for own, out in zip((concept, others), aside, strict=True))
    vector = (its - their) / (its - their).norm().clamp(min=1e-300)
    leads = [
        (own[out] - (its + their) / 2) @ vector for own, out in zip((concept, others), aside, strict=True)
    ]
    right = [(leads[0] > 0).double().mean(), (leads[1] <= 0).double().mean()]
    return vector, float(sum(right)) / 2


def features_and_slopes(
    network: nn.Module, images: Float[Tensor, "n c h w"], target: int, layer: str, score_layer: str = ""
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """A layer's outputs averaged over positions, and the class score's gradient summed over them."""
    device = device_of(network)
    objective = class_score(target, layer=score_layer)

    def run(rows: slice) -> tuple[Tensor, Tensor]:
        with activation_graph(network, images[rows].to(device), objective, layer) as graph:
            (slope,) = torch.autograd.grad(graph.scores[0], graph.leaf)
            maps, slopes = (graph.to_maps(own).detach().double() for own in (graph.leaf, slope))
            return maps.mean((2, 3)).cpu(), slopes.sum((2, 3)).cpu()

    parts = [found for _, found in Batches(batch_size(images, device)).over(len(images), run)]
    features, slopes = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(slopes)
