"""Report of linear classifiers on stages: text, JSON, and what is logged."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar, Table
from fulgurite.data.image_data_module import ImageData
from fulgurite.probes.plots import category_plot
from fulgurite.probes.representation.linear import Head, Proportion
from fulgurite.probes.robustness.report import aligned

HEAD = ["stage", "features", "accuracy", "95 % interval", "penalty"]


class Stage(NamedTuple):
    """The classifier of a stage, and how many of the validation images it classifies correctly."""

    head: Head
    share: Proportion


def text(networks_stages: Mapping[str, Mapping[str, Stage]], counts: Mapping[str, int]) -> str:
    """The table of stages and the best stage, as text."""
    *others, last = networks_stages
    rows = [
        [*row, *(f"{_share(networks_stages[name], row[0]):.4f}" for name in others)]
        for row in _rows(networks_stages[last])
    ]
    best, first = _best(networks_stages[last])
    sum_ = f"{last}: fitted to {counts['train']} images, scored on {counts['val']}"
    base = f"the largest class alone: {counts['largest'] / counts['val']:.4f}"
    lines = f"best: {best}, {networks_stages[last][best].share.accuracy:.1%}"
    lines += "" if first == best else f"; {first} is the first whose accuracy lies within its interval"
    return f"{sum_}; {base}\n\n{aligned([[*HEAD, *others], *rows], right=len(HEAD) + len(others))}\n\n{lines}"


def _rows(stages_of_network: Mapping[str, Stage]) -> list[list[str]]:
    return [
        [
            layer,
            str(head.weight.shape[1]),
            f"{share.accuracy:.4f}",
            "{:.4f} to {:.4f}".format(*share.interval),
            f"{head.penalty:g}",
        ]
        for layer, (head, share) in stages_of_network.items()
    ]


def _best(stages_of_network: Mapping[str, Stage]) -> tuple[str, str]:
    """The best stage, the first of several; and the first one within its interval."""
    best = max(stages_of_network, key=lambda layer: stages_of_network[layer].share.right)
    low = stages_of_network[best].share.interval[0]
    return best, next(layer for layer, stage in stages_of_network.items() if stage.share.accuracy >= low)


def as_json(
    networks_stages: Mapping[str, Mapping[str, Stage]], data: ImageData, counts: Mapping[str, int]
) -> dict[str, Any]:
    """Their part of `stages.json`."""
    return {
        "classes": list(data.classes),
        "images": dict(counts),
        "networks": {
            name: {layer: _numbers(stage) for layer, stage in stages_of_network.items()}
            for name, stages_of_network in networks_stages.items()
        },
        "best": dict(
            zip(
                ("stage", "first within its interval"),
                _best(networks_stages[list(networks_stages)[-1]]),
                strict=True,
            )
        ),
    }


def _numbers(stage: Stage) -> dict[str, Any]:
    head, share = stage
    return {
        "features": head.weight.shape[1],
        "accuracy": share.accuracy,
        "interval": list(share.interval),
        "right": share.right,
        "penalty": head.penalty,
    }


def artifacts(
    networks_stages: Mapping[str, Mapping[str, Stage]],
    counts: Mapping[str, int],
    *,
    chance: float | None = None,
) -> dict[str, Artifact]:
    """What is logged: the curve over the stages, the table, and a number for each stage."""
    last = networks_stages[list(networks_stages)[-1]]
    drawn = category_plot(
        list(last),
        {
            name: [_share(stages_of_network, layer) for layer in last]
            for name, stages_of_network in networks_stages.items()
        },
        ylabel=f"accuracy of a linear classifier on {counts['val']} validation images, with 95 % intervals",
        ymax=1.0,
        intervals=[stage.share.interval for stage in last.values()],
        chance=chance,
    )
    scalars = {
        f"stages/{name}/{layer}": Scalar(_share(stages_of_network, layer))
        for name, stages_of_network in networks_stages.items()
        for layer in stages_of_network
    }
    return {"stages": Picture(drawn), "stages/table": Table(HEAD, _rows(last)), **scalars}


def _share(stages_of_network: Mapping[str, Stage], layer: str) -> float:
    return stages_of_network[layer].share.accuracy
