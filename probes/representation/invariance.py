"""Invariance of layers: how far a transformation of the image moves features, next to another image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.channels import feature_maps
from fulgurite.probes.feature_extractor import Calls, feature_extractor
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.representation.image_transforms import image_transform
from fulgurite.probes.representation.recovered_accuracy import as_maps

INVARIANCE: str = "invariance"
EQUIVARIANCE: str = "equivariance"
GROUP = 16


@dataclass(frozen=True)
class Movement:
    """Sums over images of how far features move, from which scores follow; they add up over images.

    Args:
        moved: squared distances of each image's features to those of its transformed self.
        count: how many images.
        apart: squared distances to those of other transformed images, of all pairs in groups of images.
        pairs: how many pairs.
    """

    moved: float = 0.0
    count: int = 0
    apart: float = 0.0
    pairs: int = 0

    def __add__(self, other: "Movement") -> "Movement":
        return Movement(
            self.moved + other.moved,
            self.count + other.count,
            self.apart + other.apart,
            self.pairs + other.pairs,
        )

    @property
    def score(self) -> float:
        """1 where nothing moves, 0 where an image moves as far as to another one; NaN if all are equal."""
        return 1 - (self.moved / self.count) / (self.apart / self.pairs) if self.apart > 0 else torch.nan


def invariance(
    network: nn.Module, images: Float[Tensor, "n c h w"], transforms: Sequence[str], layers: Sequence[str]
) -> dict[str, dict[str, dict[str, Movement]]]:
    """How far transformations move the features of layers, as they are and with positions brought back.

    `found[transform][layer]["invariance"].score` is 1 if the features are the same for the transformed image,
    and 0 if they are as far away as those of another image; "equivariance" is the same after each position is
    put where it came from, so that it is 1 if features move along with the image. Positions are compared, all
    of them: a layer with maps is hardly invariant to flips before they are averaged over positions. After
    global pooling the two are the same.

    Images are compared with others in groups of up to sixteen. A pass over the images, and one for each
    transformation: cheap enough for every epoch.

    Args:
        network: maps images to logits.
        images: in [0, 1], at least two.
        transforms: by name, see `image_transform`.
        layers: by path.

    Raises:
        ValueError: no such layer or transformation, fewer than two images, or features that are not finite.
    """
    known = [image_transform(word) for word in dict.fromkeys(transforms)]
    if len(images) < 2:
        raise ValueError(f"{len(images)} image; wanted at least 2, to know how far apart images are")
    found = {
        transform.name: {layer: dict.fromkeys((INVARIANCE, EQUIVARIANCE), Movement()) for layer in layers}
        for transform in known
    }
    size, groups = (images.shape[2], images.shape[3]), -(-len(images) // GROUP)
    with frozen_eval(network) as net, torch.no_grad():
        device, calls = device_of(net), Calls()
        for first in range(groups):
            # far from each other in the data, which may be sorted by class
            part = images[first::groups].to(device)
            with feature_extractor(net, layers, counts=calls) as extract:
                own = _maps(extract(part), layers)
                for transform in known:
                    moved = _maps(extract(transform(part)), layers)
                    for layer in layers:
                        back = transform.undone(moved[layer], size)
                        for name, other in ((INVARIANCE, moved[layer]), (EQUIVARIANCE, back)):
                            found[transform.name][layer][name] += _movement(own[layer], other, layer)
    return found


def _maps(outputs: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Float[Tensor, "_ c h w"]]:
    return {layer: as_maps(feature_maps(outputs, layer)) for layer in layers}


def _movement(one: Tensor, other: Tensor, layer: str) -> Movement:
    one, other = one.flatten(1).double(), other.flatten(1).double()
    count, moved = len(one), float((one - other).square().sum())
    squares = float(one.square().sum() + other.square().sum())
    # over all pairs, those of an image with itself included
    every = count * squares - 2 * float(one.sum(0) @ other.sum(0))
    if not every < torch.inf:
        raise ValueError(f"features of {layer!r} that are not finite")
    # what is left of equal features is rounding
    apart = every - moved if every - moved > 1e-12 * count * squares else 0.0
    return Movement(moved, count, apart, count * (count - 1))
