"""Class-wise principal components of penultimate features, to find shortcuts (Neuhaus et al. 2023)."""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.attribution.cam import grad_cam
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import class_score, pooled
from fulgurite.probes.record import bare, layer_of, record
from fulgurite.probes.stages import classifier_layer
from fulgurite.probes.trace import trace


@dataclass(frozen=True)
class ClassComponents:
    """The components of one class's score, the one with the largest share first.

    Args:
        directions: of each component; its part of the score is the inner product with features less `mean`.
        mean: of the features of the class's images.
        shares: of each in the variance of the score over the class's images; all components' add up to 1.
    """

    directions: Float[Tensor, "m d"]
    mean: Float[Tensor, "d"]
    shares: Float[Tensor, "m"]

    def scores(self, codes: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """What each component adds to the class score, above or below the class's mean score."""
        return (codes - self.mean) @ self.directions.T


def class_components(
    codes: Float[Tensor, "n d"], weights: Float[Tensor, "d"], *, count: int | None = None
) -> ClassComponents:
    """The principal components of one class's weighted features, by their share of the class score.

    Features are weighted by the classifier's weights of the class, so that they sum to its score, and
    centred; the parts of all components sum to the score less its mean. A component with a large share whose
    strongest images show something else than the class is a shortcut. Neuhaus et al. 2023,
    arxiv.org/abs/2212.04871.

    Args:
        codes: penultimate features of the class's images (see `codes_and_logits`).
        weights: of the class, in the classifier.
        count: how many components to keep; all without it.

    Raises:
        ValueError: fewer than three images.
    """
    if len(codes) < 3:
        raise ValueError(f"{counted(len(codes), 'image')} of a class; wanted at least 3 to find components")
    own, row = codes.double(), weights.double()
    mean = own.mean(0)
    _, _, axes = torch.linalg.svd((own - mean) * row, full_matrices=False)
    directions = axes.sum(1, keepdim=True) * axes * row
    variances = ((own - mean) @ directions.T).square().mean(0)
    order = variances.argsort(descending=True)[:count]
    shares = variances / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return ClassComponents(directions[order].to(codes), mean.to(codes), shares[order].to(codes))


def codes_and_logits(
    network: nn.Module, images: Float[Tensor, "n c h w"], classifier: str
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
    """The classifier's input, averaged over positions, and the logits, from one pass."""
    with frozen_eval(network) as net, torch.no_grad(), record(net, [""], inputs=[classifier]) as seen:
        net(images)
        linear = isinstance(layer_of(net, classifier), nn.Linear)
    code = seen[classifier].float()
    return pooled(code.movedim(-1, 1) if linear else code), pooled(seen[""].float())


def class_weights(network: nn.Module, images: Float[Tensor, "n c h w"]) -> tuple[str, Float[Tensor, "k d"]]:
    """The path of the classifier, and its weights: a row for each class.

    Raises:
        ValueError: the classifier is neither a linear layer nor a convolution of one pixel.
    """
    path = classifier_layer(trace(network, images[:1]))
    layer = layer_of(network, path)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if (weight.dim() > 2 and weight[0, 0].numel() > 1) or getattr(layer, "groups", 1) > 1:
        raise ValueError(
            f"the classifier {path!r} is a convolution of several pixels or groups; wanted a linear layer, "
            "or a 1 x 1 convolution"
        )
    return path, weight.detach().flatten(1).float()


def component_maps(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    classifier: str,
    components: ClassComponents,
    component: int,
) -> Float[Tensor, "n 1 h w"]:
    """Where in each image a component's part of the score comes from: its Grad-CAM, signed.

    Raises:
        ValueError: as `grad_cam` does.
    """
    own = copy.deepcopy(bare(network))
    layer = layer_of(own, classifier)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    row = components.directions[component]
    with torch.no_grad():  # every class's score is the component's
        layer.weight.copy_(row.view(1, -1, *[1] * (layer.weight.dim() - 2)).expand_as(layer.weight))
        if layer.bias is not None:
            layer.bias.fill_(float(-(row @ components.mean)))
    return grad_cam(own, images, class_score(0, layer=classifier))
