"""Similarity of representations by CKA, and relative weight change."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.counted import counted
from fulgurite.probes.moments import Moments
from fulgurite.probes.record import layers_of


def cka(one: Float[Tensor, "n p"], other: Float[Tensor, "m q"]) -> float:
    """Linear centred kernel alignment: 1 if one is the other, rotated and scaled, about 0 if unrelated.

    Exact and unbiased in the number of images, so that it does not grow with the number of features; it may
    fall a little below 0. NaN if one of them is the same for all images. In float64. Kornblith et al. 2019,
    arxiv.org/abs/1905.00414, with the estimator of Song et al. 2012; Nguyen et al. 2021,
    arxiv.org/abs/2010.15327.

    Raises:
        ValueError: fewer than four images, or not the same number.
    """
    _check(one, other)
    if len(one) <= max(one.shape[1], other.shape[1]):
        return cka_from_grams(gram(one), gram(other))
    one, other = (_centred(values) for values in (one, other))
    cross, own, theirs = _hsic(one, other), _hsic(one, one), _hsic(other, other)
    return _ratio(cross, own, theirs)


def gram(features: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """The products of all pairs of images, centred for `cka_from_grams`: all that CKA needs of a
    representation.

    In float64; what is kept in float32 changes CKA by less than 1e-5.
    """
    _check(features, features)
    values = _centred(features)
    products = (values @ values.T).fill_diagonal_(0)
    count, rows = len(products), products.sum(1)
    shift = rows / (count - 2)
    centred = products - shift[:, None] - shift + rows.sum() / ((count - 1) * (count - 2))
    return centred.fill_diagonal_(0)


def cka_from_grams(one: Float[Tensor, "n n"], other: Float[Tensor, "m m"]) -> float:
    """`cka` of two representations from the `gram` of each."""
    if one.shape != other.shape:
        raise ValueError(
            f"the products of {len(one)} and of {counted(len(other), 'image')}; wanted the same images"
        )
    one, other = one.double(), other.double()
    return _ratio((one * other).sum(), one.square().sum(), other.square().sum())


def cka_from_moments(moments: Moments, one: str, other: str) -> float:
    """`cka` of two layers, or of a layer in two networks, from sums over a stream of images.

    Args:
        moments: of at least four images, with the pairs (one, other), (one, one) and (other, other).
        one: the name of the features.
        other: the name of the other features.

    Raises:
        ValueError: a pair is missing, or there are fewer than four images.
    """
    if moments.count < 4:
        raise ValueError(f"{counted(moments.count, 'image')}; wanted at least 4")
    pairs = ((one, other), (one, one), (other, other))
    if missing := [pair for pair in pairs if pair not in moments.pairs]:
        raise ValueError(f"no products of the pair {missing[0]}; wanted Moments(pairs=[{missing[0]}, ...])")
    return _ratio(*(_hsic_from_moments(moments, *pair) for pair in pairs))


def changes(network: nn.Module, start: Mapping[str, Tensor]) -> dict[str, float]:
    """The relative weight change of each layer: the norm of the difference over the norm at the start.

    For layers that have a matrix or filters, with their biases; infinite for a layer that began at 0.

    Args:
        network: as it is now.
        start: the parameters it began with, by name, as `weights_of` gives them; so may be those of its state
            dict.

    Raises:
        ValueError: a parameter is missing from `start`, or has another shape there.
    """
    moved = {}
    for layer, now in _layers(network).items():
        for name, weight in now.items():
            if name not in start or start[name].shape != weight.shape:
                there = tuple(start[name].shape) if name in start else "missing"
                raise ValueError(f"{name} is {tuple(weight.shape)} now and was {there} at the start")
        ways = [
            (weight.double() - start[name].to(weight.device).double()).norm() for name, weight in now.items()
        ]
        lengths = [start[name].double().norm() for name in now]
        way, length = (float(torch.stack([part.cpu() for part in parts]).norm()) for parts in (ways, lengths))
        moved[layer] = way / length if length else (torch.inf if way else 0.0)
    return moved


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters, for `changes`, on the CPU."""
    return {
        name: weight.to("cpu", copy=True) for own in _layers(network).values() for name, weight in own.items()
    }


def _layers(network: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The parameters of each layer that has a matrix among them, by the names of the state dict."""
    layers = {}
    for layer, module in layers_of(network).items():
        own = {name: weight.detach() for name, weight in module.named_parameters(layer, recurse=False)}
        if any(weight.dim() > 1 for weight in own.values()):
            layers[layer] = own
    return layers


def _hsic(one: Float[Tensor, "n p"], other: Float[Tensor, "n q"]) -> Tensor:
    """The unbiased estimate, from sums over images alone."""
    count = len(one)
    squares, theirs = one.square().sum(1), other.square().sum(1)
    between = one.T @ other
    both = squares @ theirs
    inner = between.square().sum() - both
    sum_one, sum_other = one.sum(0), other.sum(0)
    totals = (sum_one.square().sum() - squares.sum()) * (sum_other.square().sum() - theirs.sum())
    mixed = (
        sum_one @ between @ sum_other - sum_one @ (one.T @ theirs) - sum_other @ (other.T @ squares) + both
    )
    return inner + totals / ((count - 1) * (count - 2)) - 2 * mixed / (count - 2)


def _hsic_from_moments(moments: Moments, one: str, other: str) -> Tensor:
    """The unbiased estimate, from sums that are centred first: large means would cost digits."""
    sums, count = moments.sums, moments.sums["count"]
    shift, their_shift = sums[f"sum/{one}"] / count, sums[f"sum/{other}"] / count
    squares = sums[f"norm/{one}"] - count * shift.square().sum()
    theirs = sums[f"norm/{other}"] - count * their_shift.square().sum()
    for spread, name in ((squares, one), (theirs, other)):
        if spread <= 1e-13 * sums[f"norm/{name}"]:
            return torch.zeros_like(count)  # the same for all images, but for rounding
    between = count * moments.covariance(one, other)
    # the sum over images of both squared lengths, from the mean
    length, their_length = shift.square().sum(), their_shift.square().sum()
    both = (
        sums[f"norms/{one}/{other}"]
        + 4 * (shift @ sums[f"product/{one}/{other}"] @ their_shift)
        - 2 * (their_shift @ sums[f"norm by/{one}/{other}"] + shift @ sums[f"by norm/{one}/{other}"])
        + their_length * sums[f"norm/{one}"]
        + length * sums[f"norm/{other}"]
        - 3 * count * length * their_length
    )
    totals = squares * theirs / ((count - 1) * (count - 2))
    return between.square().sum() - both + totals - 2 * both / (count - 2)


def _ratio(cross: Tensor, own: Tensor, theirs: Tensor) -> float:
    if not (float(own) > 0 and float(theirs) > 0):
        return torch.nan
    return float(cross / (own.sqrt() * theirs.sqrt()))


def _centred(features: Tensor) -> Tensor:
    """In float64, about the mean, to which the estimate is blind: large means would cost digits."""
    values = features.detach().double()
    values = values - values.mean(0)
    # a feature that is the same for all stays at 0: what is left of it is rounding
    least = 4 * torch.finfo(features.dtype).eps * features.detach().double().abs().amax(0)
    return torch.where(values.abs().amax(0) > least, values, 0.0)


def _check(one: Tensor, other: Tensor) -> None:
    if len(one) != len(other) or len(one) < 4:
        raise ValueError(
            f"{len(one)} and {counted(len(other), 'image')}; wanted the same ones twice, at least 4"
        )
    for values in (one, other):
        if wrong := int((~values.isfinite()).any(1).sum()):
            raise ValueError(f"features that are not finite in {wrong} of {counted(len(values), 'image')}")
