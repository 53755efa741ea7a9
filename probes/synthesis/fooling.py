"""Images that fool: noise and photographs that a network classifies as any class, by gradient ascent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.objectives import log_probability, probability
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.optimizers import sgd, unit_gradient
from fulgurite.probes.synthesis.watch import Watch

BLOCK = 10  # steps between two checks whether all are done


@dataclass(frozen=True)
class FoolingImages:
    """Images made to be classified as a class.

    Args:
        images: in [0, 1].
        classes: that each was to be classified as.
        probabilities: that the network gives these classes.
        steps: after how many steps each reached the confidence asked for; NaN where it did not.
    """

    images: Float[Tensor, "n c h w"]
    classes: Int[Tensor, "n"]
    probabilities: Float[Tensor, "n"]
    steps: Float[Tensor, "n"]

    @property
    def rate(self) -> float:
        """The share that reached the confidence asked for, in [0, 1]; NaN of no images."""
        return float((~self.steps.isnan()).float().mean())

    @property
    def median_steps(self) -> float:
        """The median number of steps of those that reached it; NaN where none did."""
        return float(self.steps.nanmedian())


def fooling_images(
    network: nn.Module,
    classes: Int[Tensor, "n"],
    shape: tuple[int, int, int],
    *,
    background: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
    layer: str = "",
    confidence: float = 0.99,
    steps: int = 100,
    lr: float = 0.01,
    precise: bool = False,
    watch: Watch | None = None,
) -> FoolingImages:
    """Noise that a network classifies as a class with confidence, by gradient ascent without any prior.

    People see only noise: high confidence is no evidence that a network is right. Nguyen et al. 2015,
    arxiv.org/abs/1412.1897. An image that has reached the confidence no longer changes.

    Args:
        network: maps images in [0, 1] to logits.
        classes: the class of each image.
        shape: channels, height and width.
        background: per channel, what the noise is around; mid-grey without it.
        seeds: of each image's noise; its place without them.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        confidence: the probability to reach, in (0, 1).
        steps: at most.
        lr: root mean square change of a pixel at each step.
        precise: compute in float64, see `ascend`.
        watch: what to show and to keep on the way.

    Raises:
        ValueError: no such class or layer, or a confidence outside (0, 1).
    """
    level = torch.tensor([0.5] * shape[0] if background is None else list(background))[:, None, None]
    draws = [torch.Generator().manual_seed(s) for s in (range(len(classes)) if seeds is None else seeds)]
    start = torch.stack([level + 0.1 * torch.randn(shape, generator=own) for own in draws]).clamp(0, 1)
    return fooled_photographs(
        network,
        start,
        classes,
        layer=layer,
        confidence=confidence,
        steps=steps,
        lr=lr,
        precise=precise,
        watch=watch,
    )


def fooled_photographs(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    classes: Int[Tensor, "n"],
    *,
    layer: str = "",
    confidence: float = 0.99,
    steps: int = 100,
    lr: float = 0.0005,
    precise: bool = False,
    watch: Watch | None = None,
) -> FoolingImages:
    """Photographs with a change that people do not see, which a network classifies as another class.

    Steps of a small root mean square along the gradient, until the confidence is reached. Szegedy et al.
    2014, arxiv.org/abs/1312.6199, by plain gradient ascent. Attacks with a bound on the change are in
    `probes/attacks`.

    Args:
        network: maps images in [0, 1] to logits.
        images: the photographs.
        classes: that each is to be classified as.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        confidence: the probability to reach, in (0, 1).
        steps: at most.
        lr: root mean square change of a pixel at each step.
        precise: compute in float64, see `ascend`.
        watch: what to show and to keep on the way.

    Raises:
        ValueError: no images, no such class or layer, or a confidence outside (0, 1).
    """
    if not len(images):
        raise ValueError("no images; the batch is empty")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence:g}; wanted a probability between 0 and 1")
    watch, history = watch or Watch(), list[Tensor]()
    # a little above, so that rounding leaves none below
    objective = log_probability(classes, layer=layer).up_to(math.log(confidence + 0.01 * (1 - confidence)))
    made, enough = images, math.log(confidence)
    bar = progress_bar(label=watch.label, total=steps)
    for done in range(
        0, max(1, steps), BLOCK
    ):  # plain steps remember nothing, so blocks of them are the same
        block = Watch(interruptible=watch.interruptible)
        count = min(BLOCK, steps - done)
        made = ascend(
            network,
            objective,
            Pixels(made),
            steps=count,
            by=sgd(lr, normalise=unit_gradient),
            precise=precise,
            watch=block,
        )
        history.append(block.history)
        bar.update(count)
        watch.interrupted = block.interrupted
        if block.interrupted or bool((block.history[-1:] >= enough).all()):
            break
    bar.close()
    watch.history = torch.cat(history)
    reached = values_of(network, probability(classes, layer=layer), made).cpu()
    before = watch.history >= enough  # of each step, before it
    first = torch.where(before.any(0), before.float().argmax(0), len(watch.history)).float()
    return FoolingImages(made, classes.cpu(), reached, torch.where(reached >= confidence, first, torch.nan))
