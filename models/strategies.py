"""Fine-tuning strategies: linear probe, last stages, layer-wise learning rates, gradual unfreezing."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from fulgurite.models.finetuning import Schedule
from fulgurite.models.stages import stages_of
from fulgurite.probes.record import nearest

Strategy = Literal["linear", "last", "layerwise", "gradual", "full", "scratch"]


def schedule_of(
    strategy: str,
    network: nn.Module,
    *,
    stages: int = 1,
    decay: float = 0.4,
    every: int = 1,
    shape: Sequence[int] | None = None,
) -> Schedule:
    """Fine-tuning tables of a strategy, for any network.

    - "linear": only the head learns.
    - "last": the head and the last `stages` stages before it.
    - "layerwise": all learn, each stage at `decay` times the rate of the next (Howard & Ruder 2018,
      arxiv.org/abs/1801.06146, take 1 / 2.6).
    - "gradual": the same, but only the head at first, and one more stage after every `every` epochs.
    - "full": all learn at the same rate. "scratch" is the same, for a network with fresh weights.

    Raises:
        ValueError: an unknown strategy, or figures that do not suit the network.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"no strategy {strategy!r}; {nearest(strategy, get_args(Strategy))}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay={decay}; wanted a share of the next stage's rate, above 0 and up to 1")
    if every < 1:
        raise ValueError(f"every={every}; wanted 1 epoch or more from one thawing to the next")
    patterns = [stage.pattern for stage in stages_of(network, shape=shape)]
    head = len(patterns) - 1
    if strategy == "last" and not 1 <= stages <= head:
        raise ValueError(f"stages={stages}; this {type(network).__name__} has {head} before its head")
    # the first stage that learns, in each phase
    firsts = {"linear": [head], "last": [head - stages], "gradual": range(head, -1, -1)}.get(strategy, [0])
    ratio = decay if strategy in ("layerwise", "gradual") else 1.0
    return [
        (
            phase * every,
            {
                pattern: ratio ** (head - depth) if depth >= first else None
                for depth, pattern in enumerate(patterns)
            },
        )
        for phase, first in enumerate(firsts)
    ]
