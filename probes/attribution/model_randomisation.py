"""Model randomisation: whether attribution maps depend on the weights at all (Adebayo et al. 2018)."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.attribution.methods import attribute
from fulgurite.probes.frozen_eval import device_of, same_randomness
from fulgurite.probes.objectives import Objective
from fulgurite.probes.record import bare, layer_of
from fulgurite.probes.stages import classifier_layer, stages
from fulgurite.probes.trace import Call, trace
from fulgurite.probes.untrained import draw_anew


@dataclass(frozen=True)
class Randomisation:
    """The similarity of maps before and after weights were re-initialised.

    Args:
        layers: the last layer that was re-initialised, from the classifier to the stem.
        correlations: by method: the rank correlation of each image's map with its map of the trained network,
            in [-1, 1]; 0 for a map without differences.
    """

    layers: tuple[str, ...]
    correlations: Mapping[str, Float[Tensor, "layers n"]]


def cascading_randomisation(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective,
    methods: Sequence[str],
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[Sequence[str]], Sequence[str]] = lambda steps: steps,
    **knobs,
) -> Randomisation:
    """Maps of each method as weights are re-initialised from the classifier down, compared with those before.

    A method that explains the network loses its maps: their rank correlation (Spearman's, of the signed
    values) falls towards 0. Guided backpropagation famously does not, as it reconstructs edges of the image.
    Adebayo et al. 2018, arxiv.org/abs/1810.03292. Works on a copy; costs each method once more for each
    layer.

    Weights of convolutions and linear layers are drawn as by He et al. 2015, their biases are 0; other layers
    are reset, those that cannot be get normal numbers of the same mean and spread.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        objective: a number per image, such as `class_score(labels)`.
        methods: by name.
        layers: by path, in the order in which they run; the classifier and the stages without it. With each,
            all weights are re-initialised that run after the layer before it.
        seed: draws the weights.
        progress: wraps the layers, to show how far it is.
        **knobs: of the methods, see `attribute`.

    Raises:
        ValueError: no such method or layer, or one that runs before all weights.
    """
    images = checked(images)
    groups = _groups(network, images, layers)
    drawn = copy.deepcopy(bare(network))
    before = {name: _ranks(attribute(name, network, images, objective, **knobs)) for name in methods}
    found = {name: list[Tensor]() for name in methods}
    for place, layer in enumerate(progress(list(groups))):
        with same_randomness(device_of(drawn)), torch.no_grad():
            torch.manual_seed(seed + place)
            for path in groups[layer]:
                draw_anew(layer_of(drawn, path))
        for name in methods:
            after = _ranks(attribute(name, drawn, images, objective, **knobs))
            found[name].append(_correlation(before[name], after))
    return Randomisation(tuple(groups), {name: torch.stack(own) for name, own in found.items()})


def _groups(network: nn.Module, images: Tensor, layers: Sequence[str] | None) -> dict[str, list[str]]:
    """The layers from the last to the first, each with the parts that are re-initialised with it."""
    calls = trace(network, images[:1])
    if layers is None:
        last = classifier_layer(calls)
        layers = [name for name in stages(calls) if name != last] + [last]
    ends = {call.path: place for place, call in enumerate(calls)}
    for name in layers:
        layer_of(network, name)
        if name not in ends:
            raise ValueError(f"layer {name!r} does not run in a pass; name one that does")
    order = sorted(layers, key=lambda name: ends[name])
    groups: dict[str, list[str]] = {}
    start = -1
    for name in order:
        groups[name] = [call.path for call in calls[start + 1 : ends[name] + 1] if _has_own(call)]
        start = ends[name]
        if not groups[name]:
            raise ValueError(f"there are no weights of {name!r} to re-initialise; name a layer that has some")
    # what runs after the last layer goes with it
    groups[order[-1]] += [call.path for call in calls[start + 1 :] if _has_own(call)]
    return dict(reversed(groups.items()))


def _has_own(call: Call) -> bool:
    return any(True for _ in call.module.parameters(recurse=False))


def _ranks(maps: Float[Tensor, "n d h w"]) -> Float[Tensor, "n p"]:
    values = maps.flatten(1).cpu().double()
    return torch.from_numpy(rankdata(values.numpy(), axis=1))


def _correlation(one: Float[Tensor, "n p"], other: Float[Tensor, "n p"]) -> Float[Tensor, "n"]:
    one, other = (ranks - ranks.mean(1, keepdim=True) for ranks in (one, other))
    norms = one.norm(dim=1) * other.norm(dim=1)
    return ((one * other).sum(1) / norms.clamp(min=1e-12)).float()
