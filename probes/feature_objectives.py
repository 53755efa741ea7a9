"""Objectives of a layer's whole output: matching features, Gram matrices, energy, diversity."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.channels import features
from fulgurite.probes.objectives import Objective, layer_objective, pooled
from fulgurite.probes.per_image import PerImage
from fulgurite.probes.record import LayerOutputs


def match(layer: str, code: Float[Tensor, "n ..."]) -> Objective:
    """Minus the squared distance of a layer's output to a code, relative to the code's squared length.

    0 where the layer outputs the code itself, which is not pooled and has its channels first, as `outputs`
    gives it; one for all images, or one for each. Mahendran & Vedaldi 2015, arxiv.org/abs/1412.0035.
    """
    return _likeness(layer, code, lambda out: out, "match")


def match_log_probabilities(code: Float[Tensor, "n k"], *, layer: str = "") -> Objective:
    """Minus the squared distance of the log-probabilities to others, relative to their squared length.

    A code of logits keeps one number more: how large they are together. Codes as for `match`.
    """
    return _likeness(layer, code, lambda out: F.log_softmax(pooled(out), 1), "match of log-probabilities")


def gram_match(layer: str, grams: Float[Tensor, "n d d"]) -> Objective:
    """Minus the squared distance of a layer's Gram matrix to others, relative to their squared length.

    0 for a texture that this layer cannot distinguish; `gram` computes the matrices, one for all images, or
    one for each. Gatys et al. 2015, arxiv.org/abs/1505.07376.
    """
    return _likeness(layer, grams, gram, "Gram match")


def inner_product(layer: str, code: Float[Tensor, "n ..."]) -> Objective:
    """The inner product of a layer's output with a code, relative to the code's squared length.

    1 where the layer outputs the code itself: what a caricature makes large. Codes as for `match`.
    """

    def product(out: Tensor, target: PerImage) -> Tensor:
        expected = target.fitting(out, layer)
        return (out * expected).flatten(1).sum(1) / expected.flatten(1).square().sum(1)

    name = f"inner product at {layer or 'the output'}"
    return layer_objective([PerImage(code, many=len(code) > 1)], layer, product, name)


def exaggeration(layer: str, *, power: float = 0.0) -> Objective:
    """The inner product of a layer's output with that of the reference, relative to the reference's length.

    For `ascend(reference=...)`: what a caricature makes large. Of the reference, only what is above 0 counts:
    1 is what it reaches itself. Times the cosine, at least 0.1, to the power of `power`: the larger that is,
    the more the whole pattern must be alike. Mahendran & Vedaldi 2016, arxiv.org/abs/1512.02017; the cosine
    is Lucid's.
    """

    def product(out: Tensor, expected: Tensor) -> Tensor:
        ours, theirs = out.flatten(1), expected.flatten(1).clamp(min=0)
        inner, length = (ours * theirs).sum(1), theirs.square().sum(1).clamp(min=1e-12)
        if not power:
            return inner / length
        cosine = inner / (length.sqrt() * ours.norm(dim=1)).clamp(min=1e-12)
        return inner / length * cosine.clamp(min=0.1) ** power

    return _compared_with_reference(layer, product, f"exaggeration of {layer or 'the output'}")


def likeness(layer: str) -> Objective:
    """Minus the squared distance of a layer's output to that of the reference, relative to its length.

    For `ascend(reference=...)`: as `match`, but also where both images are transformed at random.
    """

    def near(out: Tensor, expected: Tensor) -> Tensor:
        length = expected.flatten(1).square().sum(1).clamp(min=1e-12)
        return -(out - expected).flatten(1).square().sum(1) / length

    return _compared_with_reference(layer, near, f"likeness at {layer or 'the output'}")


def energy(layer: str) -> Objective:
    """Half the squared length of a layer's whole output: what DeepDream makes large."""
    name = f"energy of {layer or 'the output'}"
    return layer_objective([], layer, lambda out: out.flatten(1).square().sum(1) / 2, name)


def nearest_features(layer: str, code: Float[Tensor, "d *positions"]) -> Objective:
    """Summed over a layer's positions, the largest inner product with any position of a code.

    What makes a DeepDream come nearer to a second image, the guide: the code is the layer's output for
    it, as `outputs` gives it, channels first. Images may be of another size than the guide. Mordvintsev, Olah
    & Tyka 2015.

    Raises:
        ValueError: the code has no positions.
    """
    if code.dim() < 2:
        raise ValueError(f"a code {tuple(code.shape)} without positions; wanted [channels, height, width]")
    parts = PerImage(code.flatten(1), many=False)

    def likest(out: Tensor) -> Tensor:
        # the most similar position of the guide is chosen without a gradient: it is a constant
        theirs, ours = parts.on(out.device).to(out.dtype), out.flatten(2)
        which = (theirs.T @ ours.detach()).argmax(1)
        return (theirs.T[which].mT * ours).flatten(1).sum(1)

    return layer_objective([], layer, likest, f"features of a guide at {layer or 'the output'}")


def diversity(layer: str) -> Objective:
    """Minus the mean cosine between an image's Gram matrix and those of the other images of its batch.

    It couples the images: each one's value depends on the others, so `ascend` optimises all of them at once,
    whatever its `batch`, and methods that cut a batch refuse it. A single image has 0. Olah et al. 2017,
    distill.pub/2017/feature-visualization.
    """

    def unlike(out: Tensor) -> Tensor:
        matrices = F.normalize(gram(out).flatten(1))
        others = len(out) - 1
        cosines = matrices @ matrices.T
        return (1 - cosines.sum(1)) / others if others else 0 * cosines[0]

    return replace(layer_objective([], layer, unlike, f"diversity at {layer or 'the output'}"), couples=True)


def gram(out: Float[Tensor, "n d *positions"]) -> Float[Tensor, "n d d"]:
    """The products of every two channels, averaged over positions."""
    flat = out.flatten(2) if out.dim() > 2 else out[..., None]
    return flat @ flat.mT / flat.shape[2]


def _compared_with_reference(layer: str, value: Callable[[Tensor, Tensor], Tensor], name: str) -> Objective:
    def compared(seen: Mapping[str, Tensor]) -> Tensor:
        if not isinstance(seen, LayerOutputs) or seen.reference is None:
            raise ValueError(f"{name}: there is no reference to compare with; wanted ascend(reference=...)")
        return value(features(seen, layer), features(seen.reference, layer))

    return Objective(frozenset({layer}), compared, name=name)


def _likeness(layer: str, target: Tensor, transform: Callable[[Tensor], Tensor], what: str) -> Objective:
    def likeness(out: Tensor, code: PerImage) -> Tensor:
        transformed = transform(out)
        expected = code.fitting(transformed, layer)
        return -(transformed - expected).flatten(1).square().sum(1) / expected.flatten(1).square().sum(1)

    name = f"{what} at {layer or 'the output'}"
    return layer_objective([PerImage(target, many=len(target) > 1)], layer, likeness, name)
