"""MAP-Elites: fooling images of all classes at once by evolution, without a gradient."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.objectives import channels
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.stream import stream
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.evolved_cppn import EvolvedCPPN, mutated
from fulgurite.probes.synthesis.watch import Watch

HALVED = 1000  # generations after which the direct encoding's rate of mutation halves


@dataclass(frozen=True)
class Elites:
    """The most convincing image of each class that was found.

    Args:
        images: one for each class, in [0, 1].
        history: the probability of each class for its image, after each generation.
    """

    images: Float[Tensor, "k c h w"]
    history: Float[Tensor, "generations k"]

    @property
    def probabilities(self) -> Float[Tensor, "k"]:
        """Of each class, for its image."""
        return self.history[-1]


def map_elites(
    network: nn.Module,
    shape: tuple[int, int, int],
    *,
    encoding: str = "cppn",
    children: int = 100,
    generations: int = 300,
    rate: float = 0.1,
    eta: float = 15.0,
    layer: str = "",
    seed: int = 0,
    watch: Watch | None = None,
) -> Elites:
    """For each class the image that it is most probable for, found by mutation and selection.

    In each generation children of random elites are shown to the network, and each class keeps the child that
    is better than its elite. Directly encoded images come out as noise; those of compositional
    pattern-producing networks as regular patterns, which show what a class is recognised by.
    Nguyen et al. 2015, arxiv.org/abs/1412.1897, whose rates these are; no gradient is needed.

    Args:
        network: maps images in [0, 1] to logits.
        shape: channels, height and width.
        encoding: `direct`, a gene for each pixel, or `cppn`.
        children: of each generation.
        generations: how many; at least 1.
        rate: share of the genes that mutate; for pixels, halved every 1000 generations.
        eta: of the polynomial mutation: the larger, the smaller the changes.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.
        seed: of all draws.
        watch: a bar with the median probability, and interruption.

    Raises:
        ValueError: no children or generations, an unknown encoding, or a rate outside (0, 1].
    """
    if min(children, generations) < 1 or not 0 < rate <= 1 or eta <= 0:
        raise ValueError(
            f"children={children}, generations={generations}, rate={rate:g}, eta={eta:g}; wanted at least "
            "one child and generation, a rate in (0, 1] and a positive eta"
        )
    if encoding not in ("direct", "cppn"):
        raise ValueError(f"encoding={encoding!r}; wanted 'direct' or 'cppn'")
    draws, watch = torch.Generator().manual_seed(seed), watch or Watch()
    if encoding == "direct":
        born = Pixels(torch.rand(children, *shape, generator=draws))
    else:
        born = EvolvedCPPN(shape, range(seed * children, (seed + 1) * children))
    elites, best, history = None, torch.empty(0), list[Tensor]()
    bar = progress_bar(range(generations), watch.label, unit="generation")
    try:
        for generation in bar:
            chances = _probabilities(network, born().detach(), layer, children)
            if elites is None:
                elites, best = born.take([0] * chances.shape[1]), torch.full([chances.shape[1]], -torch.inf)
            highest, which = chances.max(0)
            better = (highest > best).nonzero()[:, 0]
            if len(better):
                elites.put(better, born.take(which[better]))
            best[better] = highest[better]
            history.append(best.clone())
            bar.set_postfix_str(f"median probability {float(best.median()):.3f}", refresh=False)
            born = elites.take(torch.randint(len(best), [children], generator=draws))
            if isinstance(born, EvolvedCPPN):
                born.mutate(draws, rate=rate, eta=eta)
            else:
                share = rate / 2 ** (generation // HALVED)
                born.set_images(mutated(born().detach(), draws, rate=share, eta=eta))
    except KeyboardInterrupt:
        if not watch.interruptible or elites is None or not history:
            raise
        watch.interrupted = True
    assert elites is not None
    return Elites(elites().detach(), torch.stack(history))


def _probabilities(
    network: nn.Module, images: Float[Tensor, "n c h w"], layer: str, batch: int
) -> Float[Tensor, "n k"]:
    parts = [values for _, values in stream(network, images, channels(layer), batch_size=batch)]
    return torch.cat(parts, 1).T.softmax(1).cpu()
