"""Texture synthesis and style transfer: images whose Gram matrices are those of another image."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.counted import counted
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.feature_objectives import gram, gram_match, match
from fulgurite.probes.objectives import Objective
from fulgurite.probes.representation.stages import stages
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.colours import luminance, same_mean_and_deviation, with_luminance
from fulgurite.probes.synthesis.lbfgs import lbfgs
from fulgurite.probes.synthesis.optimizers import By, adam, cosine_decay
from fulgurite.probes.synthesis.priors import total_variation
from fulgurite.probes.synthesis.watch import Watch


def texture(
    network: nn.Module,
    example: Float[Tensor, "n c h w"],
    size: tuple[int, int],
    *,
    layers: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    steps: int = 300,
    by: str = "lbfgs",
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "m c h2 w2"]:
    """New images of the texture of an example: the same Gram matrices, and nothing else in common.

    They start as noise around the example's mean colour. Early layers alone give its colours and finest
    grain; the more later layers join, the larger the structures that come out alike. Gatys et al. 2015,
    arxiv.org/abs/1505.07376; each layer's loss is relative to its own Gram matrix, so that none needs a
    weight.

    Args:
        network: maps images in [0, 1] to logits.
        example: of the texture.
        size: height and width of the new images.
        layers: by path; see `style_layers_of` without it.
        seeds: of the noise, one for each new image.
        steps: of the optimiser.
        by: `lbfgs`, or `adam`.
        precise: compute in float64, see `ascend`.
        watch: what to show and to keep on the way.

    Raises:
        ValueError: there is more than one example, or no such layer.
    """
    if len(example) != 1:
        raise ValueError(f"{len(example)} examples of a texture; wanted one")
    layers = style_layers_of(network, example) if layers is None else layers
    return ascend(
        network,
        style_match(network, example, layers),
        Pixels(_noise_like(example, size, seeds)),
        steps=steps,
        by=_optimizer(by),
        watch=watch,
        precise=precise,
    )


def style_transfer(
    network: nn.Module,
    content: Float[Tensor, "n c h w"],
    styles: Sequence[Float[Tensor, "1 c _ _"]],
    *,
    content_layer: str | None = None,
    style_layers: Sequence[str] | None = None,
    weight: float = 10.0,
    mix: Sequence[float] | None = None,
    tv: float = 0.0,
    start: Literal["content", "noise"] = "content",
    keep_colours: bool = False,
    steps: int = 200,
    by: str = "lbfgs",
    seed: int = 0,
    precise: bool = False,
    watch: Watch | None = None,
) -> Float[Tensor, "n c h w"]:
    """Photographs in the style of other images: features of a deep layer kept, Gram matrices exchanged.

    Gatys et al. 2016, Image style transfer using convolutional neural networks. Both losses are relative (0
    where features or Gram matrices are the same, 1 where there are none), so that a `weight` means the same
    for every network and size.

    Args:
        network: maps images in [0, 1] to logits.
        content: the photographs.
        styles: images of the styles, of any size each.
        content_layer: by path; see `content_layer_of` without it.
        style_layers: by path; see `style_layers_of` without it.
        weight: of the style, the content having 1.
        mix: weights of several styles, the same for all without it.
        tv: weight of the total variation, which smooths.
        start: from the photographs, or from noise around their mean colours.
        keep_colours: take only the luminance from the style; see `with_luminance`.
        steps: of the optimiser.
        by: `lbfgs`, or `adam`.
        seed: of the noise.
        precise: compute in float64, see `ascend`.
        watch: what to show and to keep on the way.

    Raises:
        ValueError: no styles, weights that are not one for each, negative weights, or no such layer.
    """
    mix = [1.0] * len(styles) if mix is None else list(mix)
    if not styles or len(mix) != len(styles) or min(mix) < 0 or not sum(mix):
        raise ValueError(
            f"mix={mix} for {counted(len(styles), 'style')}; wanted at least one style, a weight for each, "
            "none negative and not all 0"
        )
    if min(weight, tv) < 0:
        raise ValueError(f"weight={weight:g}, tv={tv:g}; wanted no negative ones")
    content_layer = content_layer_of(network, content) if content_layer is None else content_layer
    style_layers = style_layers_of(network, content) if style_layers is None else style_layers
    shown = content
    if keep_colours:
        shown = luminance(content).expand_as(content)
        middle = shown.mean(0, keepdim=True)
        styles = [same_mean_and_deviation(luminance(own).expand_as(own), middle) for own in styles]
    objective = match(content_layer, outputs(network, shown, [content_layer])[content_layer])
    for own, share in zip(styles, mix, strict=True):
        objective = objective + weight * share / sum(mix) * style_match(network, own, style_layers)
    noise = _noise_like(shown, shown.shape[2:], range(seed, seed + len(shown)))
    made = ascend(
        network,
        objective,
        Pixels(shown if start == "content" else noise),
        steps=steps,
        by=_optimizer(by),
        priors=[total_variation(tv / shown[0].numel())] if tv else [],
        watch=watch,
        precise=precise,
    )
    return with_luminance(content, luminance(made)) if keep_colours else made


def style_match(network: nn.Module, style: Float[Tensor, "1 c h w"], layers: Sequence[str]) -> Objective:
    """Minus the mean over layers of the relative squared distance of Gram matrices to those of a style.

    Raises:
        ValueError: no layers, or a layer that the network does not have.
    """
    if not layers:
        raise ValueError("no style layers; wanted at least one")
    codes = outputs(network, style, layers)
    parts = [gram_match(layer, gram(codes[layer])) for layer in layers]
    return (1 / len(layers)) * sum(parts[1:], parts[0])


def style_layers_of(network: nn.Module, images: Float[Tensor, "n c h w"]) -> list[str]:
    """The layers whose Gram matrices define a style by default: all stages but the last.

    The last stage represents classes, not textures.
    """
    found = stages(network, images[:1])
    return found[:-1] or found


def content_layer_of(network: nn.Module, images: Float[Tensor, "n c h w"]) -> str:
    """The layer whose features define the content by default: the stage in the middle."""
    found = stages(network, images[:1])
    return found[len(found) // 2]


def _optimizer(name: str) -> By:
    if name not in ("lbfgs", "adam"):
        raise ValueError(f"by={name!r}; wanted 'lbfgs' or 'adam'")
    return lbfgs() if name == "lbfgs" else adam(0.03, schedule=cosine_decay)


def _noise_like(
    images: Float[Tensor, "n c h w"], size: Sequence[int], seeds: Sequence[int]
) -> Float[Tensor, "m c h2 w2"]:
    """Noise around the mean colour, one image for each seed."""
    means = images.mean((2, 3), keepdim=True).cpu()
    parts = [
        0.1 * torch.randn(1, images.shape[1], *size, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    ]
    return (means + torch.cat(parts)).clamp(0, 1).to(images)
