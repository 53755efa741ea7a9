"""Class activation maps: CAM, Grad-CAM, Guided Grad-CAM, Layer-CAM, Score-CAM."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.attribution.activation_gradients import activation_graph
from fulgurite.probes.attribution.autograd_graph import children, kind, nodes_of
from fulgurite.probes.attribution.backward import guided_backprop
from fulgurite.probes.attribution.gradient import checked, gradients
from fulgurite.probes.attribution.perturbations import Fill, filling, scoring
from fulgurite.probes.channels import at_least_float32
from fulgurite.probes.objectives import Objectives, as_list, squeeze_single

# steps from maps to scores that leave the scores linear in the maps
_LINEAR = {
    *("AccumulateGrad", "Add", "Addmm", "AsStrided", "AvgPool2D", "AdaptiveAvgPool2D", "Clone", "LazyClone"),
    *("Convolution", "Expand", "Gather", "Index", "Mean", "Mm", "Mul", "Neg", "Permute", "Reshape"),
    *("ReshapeAlias", "Select", "Slice", "Squeeze", "Stack", "Sub", "Sum", "T", "ToCopy"),
    *("Transpose", "Unsqueeze", "UnsafeView", "View"),
}
_PRODUCTS = {"Addmm", "Mm", "Mul"}


def cam(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    *,
    layer: str | None = None,
    enlarge: bool = True,
) -> Float[Tensor, "*k n 1 u v"]:
    """The layer's channels weighted by the linear classifier's weights of their averages, signed.

    A map's mean is the score less its bias. For networks that compute their scores from the averages of a
    layer's maps by one linear layer, as residual networks do. Zhou et al. 2016, arxiv.org/abs/1512.04150.
    Arguments, errors and cost as for `grad_cam`.

    Raises:
        ValueError: the objective is not linear in the layer's averaged maps.
    """
    with activation_graph(network, images, objective, layer) as (name, leaf, scores, to_maps):
        nodes = nodes_of(scores)
        bent = {kind(node) for node in nodes} - _LINEAR
        bent |= {kind(node) for node in nodes if kind(node) in _PRODUCTS and len(children(node)) > 1}
        maps, channel_scores = to_maps(leaf.detach()), to_maps(gradients(scores, leaf))
        weights = channel_scores.sum((-2, -1), keepdim=True)
        largest = weights.abs().amax(2, keepdim=True)
        uneven = (channel_scores * maps.shape[2:].numel() - weights).abs() > 1e-4 * largest
        if bent or bool(uneven.any()):
            why = f"there is {', '.join(sorted(bent))} between" if bent else "places weigh differently"
            raise ValueError(
                f"the objective is not linear in the averaged maps of layer {name!r}: {why}; wanted a class "
                "score of a network that ends in averaging and one linear layer; for others there is grad_cam"
            )
        return _as_map(weights * maps, images, objective, enlarge)


def grad_cam(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    *,
    layer: str | None = None,
    enlarge: bool = True,
) -> Float[Tensor, "*k n 1 u v"]:
    """The layer's channels weighted by the objective's gradient, averaged over their places, signed.

    The paper shows what is positive. Selvaraju et al. 2017, arxiv.org/abs/1610.02391. Costs a forward pass
    and the backward pass from the objective to the layer; below the layer no graph is built.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        objective: a number per image, or several objectives.
        layer: the layer with the maps; by default, the last that outputs maps larger than 1 x 1 before the
            network's head (see `cut`) and the layers that the objective reads. Tokens count as maps where the
            network says their grid (see `token_grid`), channels may come last; where a class token alone is
            read, it is the last block with other tokens that matter, which costs two more forward passes and
            a backward one.
        enlarge: bilinearly, to the size of the images; else a map has the size of the layer's.

    Raises:
        ValueError: there is no such layer, it outputs no maps or runs twice, or the objective does not
            depend on it, or on its class token alone.
    """
    with activation_graph(network, images, objective, layer) as (_, leaf, scores, to_maps):
        weights = to_maps(gradients(scores, leaf)).mean((-2, -1), keepdim=True)
        return _as_map(weights * to_maps(leaf.detach()), images, objective, enlarge)


def layer_cam(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    *,
    layer: str | None = None,
    enlarge: bool = True,
) -> Float[Tensor, "*k n 1 u v"]:
    """The layer's channels weighted place by place by the positive part of the gradient, signed.

    Sharp for early layers too. Jiang et al. 2021, ieeexplore.ieee.org/document/9462463. Arguments, errors and
    cost as for `grad_cam`.
    """
    with activation_graph(network, images, objective, layer) as (_, leaf, scores, to_maps):
        weights = to_maps(gradients(scores, leaf)).clamp(min=0)
        return _as_map(weights * to_maps(leaf.detach()), images, objective, enlarge)


def guided_grad_cam(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objectives, *, layer: str | None = None
) -> Float[Tensor, "*k n c h w"]:
    """Guided backpropagation where Grad-CAM is positive, times it, signed.

    Selvaraju et al. 2017, arxiv.org/abs/1610.02391. Arguments and errors as for `grad_cam` and
    `guided_backprop`; costs both.
    """
    places = grad_cam(network, images, objective, layer=layer).clamp(min=0)
    return places * guided_backprop(network, images, objective)


def score_cam(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    *,
    layer: str | None = None,
    fill: Fill = "grey",
    enlarge: bool = True,
    progress: str | None = None,
) -> Float[Tensor, "*k n 1 u v"]:
    """The layer's channels weighted by the objective for the image masked by each channel alone.

    The weights are a softmax over channels, so the map is as signed as the layer's output; no gradient is
    needed. Wang et al. 2020, arxiv.org/abs/1910.01279. Costs a forward pass for each channel.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        objective: a number per image, or several objectives.
        layer: as for `grad_cam`.
        fill: what replaces the image where a channel is at its lowest: "grey", "mean", "blur" or a level.
        enlarge: as for `grad_cam`.
        progress: a label for a progress bar.
    """
    with activation_graph(network, images, objective, layer) as (_, leaf, _, to_maps):
        images = checked(images)
        maps = to_maps(leaf.detach()).to(images.dtype)
    hidden = filling(images, fill)
    with scoring(network, objective, images, copies=maps.shape[1]) as score, torch.no_grad():
        channel_scores = images.new_zeros(len(as_list(objective)), *maps.shape[:2])
        for rows, channels, *_ in score.parts(maps.shape[1], progress=progress):
            masks = _enlarged(maps[rows, channels][:, None], images.shape[2:])
            low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
            masks = (masks - low) / (high - low).clamp(min=torch.finfo(masks.dtype).tiny)
            channel_scores[:, rows, channels] = score(hidden[rows] + masks * (images - hidden)[rows], rows)
    weights = channel_scores.softmax(-1)[..., None, None]
    return _as_map(weights * maps, images, objective, enlarge)


def _as_map(
    weighted: Float[Tensor, "k n d u v"], images: Tensor, objective: Objectives, enlarge: bool
) -> Float[Tensor, "*k n 1 _ _"]:
    maps = weighted.sum(2, keepdim=True).to(at_least_float32(images).dtype)
    if enlarge:
        maps = _enlarged(maps.flatten(0, 1), images.shape[2:]).unflatten(0, maps.shape[:2])
    return squeeze_single(maps, objective)


def _enlarged(maps: Float[Tensor, "n 1 u v"], size: torch.Size) -> Float[Tensor, "n 1 _ _"]:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
