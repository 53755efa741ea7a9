"""Progress of an ascent: a bar with the objective's value, its history, the best images so far."""

from collections.abc import Iterator, Sequence
from time import monotonic

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.progress import progress_bar

EVERY = 1.0  # seconds between two values on the bar: reading one waits for a GPU


class Watch:
    """Progress bar, history and best images of an ascent.

    The bar shows the objective itself, averaged over the images, without the priors that are subtracted from
    it: their weight is relative to a gradient of length one for most methods, so that the difference may fall
    while the images become better.

    Args:
        label: of a progress bar, shown if it takes more than three seconds; none without it.
        best: end with each image as it was when the objective less the priors was largest, instead of as it
            was at last, and let Ctrl-C end the ascent so, too. Not for normalised gradients with priors: the
            objective then has another weight in this difference than in the steps.
        interruptible: let Ctrl-C end the ascent with the images as they are, or the best.
        loss: what is maximised is minus a loss, which is what the bar shows.
    """

    def __init__(
        self,
        label: str | None = None,
        *,
        best: bool = False,
        interruptible: bool = False,
        loss: bool = False,
    ):
        self.label, self.best, self.interrupted, self.loss = label, best, False, loss
        self.interruptible = interruptible or best
        self.history: Float[Tensor, "steps n"] = torch.empty(0, 0)
        """The objective of each image before each step, without the priors; NaN where no step was made."""

    def begin(self, steps: int, images: int) -> None:
        """Forget an earlier ascent."""
        self.interrupted, self.history = False, torch.full((steps, images), torch.nan)

    def bar(self, steps: int) -> "Bar":
        """A progress bar over the steps."""
        return Bar(steps, self.label, loss=self.loss)

    def add(self, rows: slice, values: Sequence[Float[Tensor, "m"]]) -> None:
        """Keep the history of some of the images."""
        if values:
            self.history[: len(values), rows] = torch.stack([*values]).to("cpu", torch.float32)


class Bar:
    """Iterates over the numbers of steps, and shows how far they are."""

    def __init__(self, steps: int, label: str | None, *, loss: bool = False):
        self.loss = loss
        self.steps = progress_bar(range(steps), label)
        self.last_shown = monotonic()

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def update(self, values: Float[Tensor, "n"]) -> None:
        """Show the mean of the objective, now and then."""
        if not self.steps.disable and monotonic() - self.last_shown > EVERY:
            mean = values.mean().item()
            words = f"loss {-mean:.4g}" if self.loss else f"objective {mean:.4g}"
            self.steps.set_postfix_str(words, refresh=False)
            self.last_shown = monotonic()


class Best:
    """The parameters behind each image when its value was largest."""

    def __init__(self, parameters: Sequence[nn.Parameter]):
        self.parameters = parameters
        self.kept = [parameter.detach().clone() for parameter in parameters]
        self.values: Tensor | None = None

    @torch.no_grad()
    def offer(self, values: Float[Tensor, "n"]) -> None:
        """Keep the images that are better than before, as they are now."""
        if self.values is None:
            self.values = torch.full_like(values, -torch.inf)
        better = values > self.values  # NaN is not better
        self.values = torch.where(better, values, self.values)
        for own, kept in zip(self.parameters, self.kept, strict=True):
            kept.copy_(torch.where(better.view(-1, *[1] * (own.dim() - 1)), own, kept))

    @torch.no_grad()
    def restore(self) -> None:
        """Make the images what they were at their best."""
        for own, kept in zip(self.parameters, self.kept, strict=True):
            own.copy_(kept)
