"""Drift of features and weights, and linear probes of each stage, during fine-tuning."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from fulgurite.callbacks.boards.tensorboard import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.contract import check_labels
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample, fetch
from fulgurite.callbacks.optimizer_groups import GradientNorms, Group, optimizer_groups, table
from fulgurite.probes.borrow import device_of
from fulgurite.probes.plots import category_plot
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import grid
from fulgurite.probes.representation.linear import by_stage
from fulgurite.probes.representation.similarity import changes, cka_from_grams, gram, weights_of
from fulgurite.probes.representation.stages import Features, seen_by, stages

WEIGHTS = "all weights"  # no layer's path has a blank in it
CELLS = 4  # a side of the grid that maps are averaged over, before they are compared


class Drift(ProbeCallback):
    """How far each layer has come since the first look, in its weights and in what it makes of images.

    `moved` is the length of the way that a layer's weights have come, relative to their own length then;
    `alike` is the linear CKA of what a stage makes of the sample with what it made then, 1 where nothing has
    changed. For each group of the optimiser: its learning rate, 0 while frozen; the share of its weights
    that is frozen; and the length of its gradient, read before each step. A checkpoint also holds the weights
    of the first look, so that a resumed run is compared with the same network.

    Args:
        layers: whose answers to compare, by path; the network's stages without it.
        images: how many validation images; None for all. With fewer than 4 it stays out.
        **schedule: as for `ProbeCallback`.
    """

    needs = "layers"

    def __init__(self, layers: Sequence[str] | None = None, *, images: int | None = 256, **schedule):
        super().__init__(images=images, **schedule)
        self.layers, self.film.side = _checked(layers), 300
        self._start, self._grams = dict[str, Tensor](), dict[str, Tensor]()
        self._looks: list[tuple[str, dict[str, float], dict[str, float]]] = []
        self._label, self._stages = "", list[str]()
        self._groups, self._pulls = dict[str, Group](), GradientNorms()

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The weights of all layers, and the stages."""
        if len(sample) < 4:
            return _without(self, f"{len(sample)} images to compare by; wanted at least 4")
        self._stages = self._stages or _stages(network, sample, self.layers)
        return [WEIGHTS, *self._stages]

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Any]:
        """How far each layer's weights have come, and what CKA needs of each stage."""
        self._start = self._start or weights_of(network)
        layers = [name for name in subjects if name != WEIGHTS]
        made = seen_by(network, sample.images, layers, grid=CELLS) if layers else {}
        moved = {WEIGHTS: changes(network, self._start)} if WEIGHTS in subjects else {}
        return moved | {layer: gram(values).float() for layer, values in made.items()}

    def compose(self, seen: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """Numbers for each layer, stage and group; two profiles in a picture; and the groups as a table."""
        if not seen or not (self._label or self._looks):
            return {}  # it stays out; or a finished network, and nothing known of how it began
        moved: dict[str, float] = seen[WEIGHTS]
        self._grams = self._grams or {layer: seen[layer] for layer in self._stages}
        close = {layer: cka_from_grams(seen[layer], self._grams[layer]) for layer in self._stages}
        self._looks.append((self._label or "now", moved, close))
        pinned: dict[str, Artifact] = {"": _profiles(self._looks)}
        pinned |= {f"moved/{layer}": Scalar(value) for layer, value in moved.items()}
        pinned |= {f"alike/{layer}": Scalar(value) for layer, value in close.items()}
        for name, group in self._groups.items():
            pinned |= {f"lr/{name}": Scalar(group.lr), f"frozen/{name}": Scalar(group.frozen)}
            pinned |= {} if group.pull is None else {f"gradient/{name}": Scalar(group.pull)}
        return pinned | ({"groups": table(self._groups)} if self._groups else {})

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Read the gradients, as they are before clipping."""
        self._pulls.read(trainer.optimizers, optimizer)

    def state_dict(self) -> dict:
        """The film, what to compare with, and what has been seen."""
        own = {"start": self._start, "grams": self._grams, "looks": self._looks, "pulls": self._pulls.sums()}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on with them."""
        super().load_state_dict(state_dict)
        self._start, self._grams = state_dict["start"], state_dict["grams"]
        self._looks = [(label, moved, close) for label, moved, close in state_dict["looks"]]
        self._pulls = GradientNorms(state_dict.get("pulls"))

    def note(self, trainer: pl.Trainer, pl_module: pl.LightningModule, label: str) -> None:
        """The groups of the optimiser, and which of their weights are frozen."""
        self._label, self._groups = label, optimizer_groups(trainer.optimizers, pl_module, self._pulls)
        self._pulls = GradientNorms()


class StageProbes(ProbeCallback):
    """How much each stage knows of the classes: the accuracy of a linear classifier of its answers.

    The classifier is a ridge regression, fitted to training images in closed form and scored on validation
    images; without training data, fitted to every other image of the sample and scored on the rest, and not
    drawn beside earlier looks, which are another measurement. Maps are averaged over their positions.

    Args:
        layers: by path; the network's stages without it.
        images: how many validation images to score on; None for all.
        fitted: how many training images to fit to, spread evenly over the set, as training sees them.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(
        self, layers: Sequence[str] | None = None, *, images: int | None = 512, fitted: int = 512, **schedule
    ):
        super().__init__(images=images, **schedule)
        if fitted < 2:
            raise ValueError(f"fitted={fitted}; wanted at least 2 training images to fit to")
        self.layers, self.fitted, self.film.side = _checked(layers), fitted, 300
        self._train: Sample | None = None
        self._looks: list[tuple[str, dict[str, float]]] = []
        self._label, self._stages = "", list[str]()

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images to fit to and those to score on, both in chunks."""
        parts = self._parts(sample)
        if any(part.labels is None and not part.unfit for part in parts.values()):
            raise ValueError("the data have no labels, so there is nothing to fit a classifier to")
        for part in parts.values():
            check_labels(part, len(sample.classes), type(network).__name__)
        if len(parts["fit"]) < 2:
            return _without(self, f"{len(sample)} images to fit to and to score on; wanted at least 3")
        self._stages = self._stages or _stages(network, sample, self.layers)
        return [f"{name} {chunk}" for name, part in parts.items() for chunk in part.chunks()]

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Any]:
        """What each stage makes of each chunk."""
        parts, made = self._parts(sample), {}
        for subject in subjects:
            name, chunk = subject.split(" ")
            made[subject] = seen_by(network, parts[name].chunk(chunk).images, self._stages)
        return made

    def compose(self, seen: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """The accuracy at each stage, and their profile."""
        if not seen:
            return {}
        fit, score = (
            Features(_joined(seen, name, self._stages), _labels(part))
            for name, part in self._parts(sample).items()
        )
        shares = by_stage(fit, score)
        self._looks.append((self._label or "now", {layer: own.accuracy for layer, own in shares.items()}))
        lines = _lines(self._looks[-1:] if self._train is None else self._looks, self._stages)
        spans = [own.interval for own in shares.values()]
        up = "accuracy of a linear classifier; 95 % interval of the last"
        pinned: dict[str, Artifact] = {
            "": Picture(category_plot(self._stages, lines, ylabel=up, ymax=1.0, intervals=spans))
        }
        return pinned | {layer: Scalar(own.accuracy) for layer, own in shares.items()}

    def state_dict(self) -> dict:
        """The film, and what has been seen."""
        return super().state_dict() | {"looks": self._looks}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on with them."""
        super().load_state_dict(state_dict)
        self._looks = [(label, seen) for label, seen in state_dict["looks"]]

    def _parts(self, sample: Sample) -> dict[str, Sample]:
        if self._train is None:
            return {"fit": sample[::2], "score": sample[1::2]}
        return {"fit": self._train, "score": sample}

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loader, device = _training_data(trainer), device_of(pl_module)
        if loader is not None:
            self._train = fetch(loader, self.fitted, classes=(), device=device, mean=self.mean, std=self.std)
        super()._prepare(trainer, pl_module)

    def note(self, trainer: pl.Trainer, pl_module: pl.LightningModule, label: str) -> None:
        """When it is."""
        self._label = label


def _without(probe: ProbeCallback, why: str) -> Sequence[str]:
    """No subjects, and one line that says why; with `on_error="raise"` it is an error."""
    if probe.on_error == "raise":
        raise ValueError(why)
    if not probe._warned:
        probe._warned = True
        rank_zero_info(f"{probe.name} stays out: {why}")
    return []


def _training_data(trainer: pl.Trainer) -> Iterable | None:
    """The training data; a validating trainer has none, but its data module may."""
    if trainer.train_dataloader is not None:
        return trainer.train_dataloader
    try:
        return trainer.datamodule.train_dataloader()  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:
        # there is no data module, or it has set up nothing but validation
        return None


def _checked(layers: Sequence[str] | None) -> Sequence[str] | None:
    if layers is not None and (isinstance(layers, str) or not layers):
        raise ValueError(f"layers={layers!r}; wanted a list of their paths, or None for the stages")
    return layers


def _stages(network: nn.Module, sample: Sample, layers: Sequence[str] | None) -> list[str]:
    for layer in layers or ():
        layer_of(network, layer)
    found = stages(network, sample[:1].images) if layers is None else list(layers)
    seen_by(network, sample[:1].images, found)  # raises where they cannot be read
    return found


def _labels(sample: Sample) -> Tensor:
    assert sample.labels is not None  # `subjects` has refused such a sample
    return sample.labels


def _joined(seen: Mapping[str, Any], name: str, layers: Sequence[str]) -> dict[str, Tensor]:
    chunks = [made for subject, made in seen.items() if subject.startswith(f"{name} ")]
    return {layer: torch.cat([made[layer] for made in chunks]) for layer in layers}


def _lines(looks: Sequence[tuple[str, Mapping[str, float]]], names: Sequence[str]) -> dict[str, list[float]]:
    return {label: [values.get(name, math.nan) for name in names] for label, values in looks}


def _profiles(looks: Sequence[tuple[str, Mapping[str, float], Mapping[str, float]]]) -> Picture:
    moved = [(label, values) for label, values, _ in looks]
    close = [(label, values) for label, _, values in looks]
    names, layers = list(looks[-1][2]), list(looks[-1][1])
    above = category_plot(
        names,
        _lines(close, names),
        ylabel="CKA of each stage's features with those at the first look",
        ymax=1.0,
    )
    below = category_plot(
        layers,
        _lines(moved, layers),
        ylabel="relative weight change of each layer since the first look",
    )
    return Picture(grid([above, below], columns=1, gap=8))
