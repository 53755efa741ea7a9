"""Drift of features and weights, and linear probes of each stage, during fine-tuning."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.chunks import chunk_of, chunks_of, joined
from fulgurite.callbacks.framework.contract import check_labels
from fulgurite.callbacks.framework.film import AllEpochs
from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.framework.reference import Reference
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import LayerProbe
from fulgurite.callbacks.optimizer_groups import GradientNorms, Group, optimizer_groups, table
from fulgurite.probes.counted import counted
from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import grid
from fulgurite.probes.representation.linear import by_stage
from fulgurite.probes.representation.similarity import changes, cka_from_grams, gram
from fulgurite.probes.representation.stages import Features, image_features

WEIGHTS = "all weights"  # no layer's path has a blank in it
OWN = "of the last look"  # whether the last value that is kept of a layer is
CELLS = 4  # a side of the grid that maps are averaged over, before they are compared


class Drift(LayerProbe):
    """Weight change of each layer, and CKA of each stage's features, since the start.

    `moved` is the relative weight change: the length of the difference, over that of the weights then; `CKA`
    is the linear CKA of a stage's features of the sample with those at the start, 1 where nothing has
    changed; `CKA with the previous time` shows how fast they still change, and as a control `CKA of shuffled
    images`, about 0, compares them with those of other images. One forward pass: cheap enough for every
    epoch. For each group of the optimiser: its learning rate, 0 while frozen; the share of its weights that
    is frozen; and the length of its gradient, read before each step. A checkpoint also holds the weights of
    the start, so that a resumed run is compared with the same network.

    Args:
        layers: the layers to compare, by path; the network's stages by default.
        images: how many validation images; None for all. With fewer than 4 it does not run.
        reference: what to compare with instead of the network at the start: a file with weights for it,
            or a function that makes another network with layers of the same paths; see `Reference`.
        **schedule: as for `ProbeCallback`.
    """

    fewer = "images"

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        *,
        images: int | None = 256,
        reference: Literal["start"] | str | Path | Callable[[], nn.Module] = "start",
        **schedule,
    ):
        super().__init__(layers, images=images, **schedule)
        self.film.side, self.reference = 480, Reference(reference)
        self._groups, self._pulls = dict[str, Group](), GradientNorms()

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The weights of all layers, and the stages."""
        if len(sample) < 4:
            return self.stay_out(f"{counted(len(sample), 'image')} to compare by; wanted at least 4")
        return [WEIGHTS, *self.find(network, sample)]

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Any]:
        """The weight change of each layer; and the Gram matrix of each stage, now and in the reference."""
        assert self.reference is not None
        if not self.reference.known:
            return {}  # a finished network without its initial weights
        layers = [name for name in subjects if name != WEIGHTS]
        now = self._grams(network, sample, layers)
        first, last = self.memory.first, self.memory.last
        # of as many images: a longer run may look at more from now on
        then = {
            layer: first[layer] for layer in layers if layer in first and len(first[layer]) == len(sample)
        }
        starts = self.look.first and self.reference.what == "start"
        if missing := [layer for layer in layers if layer not in then]:
            if starts:
                then |= now
            else:
                with self.reference.network(network) as other:
                    then |= self._grams(other, sample, missing)
        before = {}
        for layer in layers:
            if layer in missing:
                self.memory.keep(layer, then[layer])  # the reference's, not those of this look
            else:
                if last.get(f"{layer}/{OWN}", self._looked_twice()):
                    before[layer] = last[layer]
                self.memory.keep(layer, now[layer])
            self.memory.keep(f"{layer}/{OWN}", layer not in missing or starts)
        moved = {}
        if WEIGHTS in subjects and self.reference.weights:
            moved = {WEIGHTS: changes(network, self.reference.weights)}
        return moved | {
            layer: (now[layer], then[layer], *((before[layer],) if layer in before else ()))
            for layer in layers
        }

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """Numbers for each layer, stage and group; two profiles in a picture; and the groups as a table."""
        if not observations:
            return {}
        moved: dict[str, float] = observations.get(WEIGHTS, {})
        products = {layer: observations[layer] for layer in self.found}
        close = {layer: cka_from_grams(now, then) for layer, (now, then, *_) in products.items()}
        order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(self.seed))
        chance = {
            layer: cka_from_grams(now, then[order][:, order]) for layer, (now, then, *_) in products.items()
        }
        looks = [*self.memory.last.get(LOOKS, []), (self.look.name, moved, close)]
        self.memory.keep(LOOKS, looks)
        artifacts: dict[str, Artifact] = {"": self._profiles(looks, chance, len(sample))}
        artifacts |= {f"moved/{layer}": Scalar(value) for layer, value in moved.items()}
        artifacts |= {f"CKA/{layer}": Scalar(value) for layer, value in close.items()}
        artifacts |= {f"CKA of shuffled images/{layer}": Scalar(value) for layer, value in chance.items()}
        for layer, (now, _, *before) in products.items():
            if before:
                artifacts[f"CKA with the previous time/{layer}"] = Scalar(cka_from_grams(now, *before))
        for name, group in self._groups.items():
            artifacts |= {f"lr/{name}": Scalar(group.lr), f"frozen/{name}": Scalar(group.frozen)}
            artifacts |= {} if group.pull is None else {f"gradient/{name}": Scalar(group.pull)}
        return artifacts | ({"groups": table(self._groups)} if self._groups else {})

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Read the gradients, as they are before clipping."""
        self._pulls.read(trainer.optimizers, optimizer)

    def state_dict(self) -> dict:
        """What it has kept, and the gradients since the last time."""
        return {**super().state_dict(), "pulls": self._pulls.sums()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on with them."""
        super().load_state_dict(state_dict)
        self._pulls = GradientNorms(state_dict.get("pulls"))

    def note(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The groups of the optimiser, and which of their weights are frozen."""
        self._groups = optimizer_groups(trainer.optimizers, pl_module, self._pulls)
        self._pulls = GradientNorms()

    def _profiles(
        self,
        looks: Sequence[tuple[str, Mapping[str, float], Mapping[str, float]]],
        chance: Mapping[str, float],
        images: int,
    ) -> Picture:
        assert self.reference is not None
        started = self.reference.what == "start"
        then, since = ("at the start", "since the start") if started else ("of the reference",) * 2
        moved, close = [(label, own) for label, own, _ in looks], [(label, own) for label, _, own in looks]
        names, layers = list(looks[-1][2]), list(looks[-1][1])
        up = f"CKA of each stage's features of {counted(images, 'image')} with those {then}"
        plots = [category_plot(names, _lines([*close, ("shuffled", chance)], names), ylabel=up, ymax=1.0)]
        if layers:
            up = f"relative weight change of each layer {since}"
            plots.append(category_plot(layers, _lines(moved, layers), ylabel=up))
        return AllEpochs(grid(plots, columns=1, gap=8))

    def _looked_twice(self) -> bool:
        """Of an earlier version's checkpoint: whether the last values are a look's, not the reference's."""
        assert self.reference is not None
        looks = self.memory.last.get(LOOKS, [])
        begun = self.reference.what == "start" and looks and looks[0][0] == "start"
        return len(looks) > (0 if begun else 1)

    def _grams(self, network: nn.Module, sample: Sample, layers: Sequence[str]) -> dict[str, Tensor]:
        made = image_features(network, sample.images, layers, grid=CELLS) if layers else {}
        return {layer: gram(values).float().cpu() for layer, values in made.items()}


class StageProbes(LayerProbe):
    """Linear probes: the accuracy of a linear classifier on the features of each stage.

    The classifier is a ridge regression, fitted to training images in closed form and scored on validation
    images; without training data, fitted to every other image of the sample and scored on the rest; earlier
    epochs are then left out of the plot, as they are not comparable. Maps are averaged over their positions.
    One forward pass of both: cheap enough for every epoch.

    Args:
        layers: by path; the network's stages without it.
        images: how many validation images to score on; None for all.
        fitted: how many training images to fit to, spread evenly over the set, as training sees them.
        **schedule: as for `ProbeCallback`.
    """

    needs = "logits"
    fewer = "images"

    def __init__(
        self, layers: Sequence[str] | None = None, *, images: int | None = 512, fitted: int = 512, **schedule
    ):
        super().__init__(layers, images=images, **schedule)
        if fitted < 2:
            raise ValueError(f"fitted={fitted}; wanted at least 2 training images to fit to")
        self.training_images, self.film.side = fitted, 480

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels and enough images, and the layers can be read."""
        parts = self._parts(sample)
        if any(part.labels is None and not part.unfit for part in parts.values()):
            raise ValueError("the data have no labels, so there is nothing to fit a classifier to")
        for part in parts.values():
            check_labels(part, len(sample.classes), type(network).__name__)
        self.subjects(network, sample)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images to fit to and those to score on, both in chunks."""
        parts = self._parts(sample)
        if len(parts["fit"]) < 2:
            return self.stay_out(
                f"{counted(len(sample), 'image')} to fit to and to score on; wanted at least 3"
            )
        self.find(network, sample)
        return chunks_of(parts)

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Any]:
        """The features of each stage for each chunk."""
        parts, made = self._parts(sample), {}
        for subject in subjects:
            made[subject] = image_features(network, chunk_of(parts, subject)[1].images, self.found)
        return made

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """The accuracy at each stage, and their profile."""
        if not observations:
            return {}
        fit, score = (
            Features(joined(observations, name), _labels(part)) for name, part in self._parts(sample).items()
        )
        shares = by_stage(fit, score)
        now = self.look.name, {layer: own.accuracy for layer, own in shares.items()}
        looks = [*self.memory.last.get(LOOKS, []), now]
        self.memory.keep(LOOKS, looks)
        lines = _lines(looks[-1:] if self.training_sample is None else looks, self.found)
        spans = [shares[layer].interval for layer in self.found]
        up = "accuracy of a linear classifier; 95 % interval of the last"
        plot = category_plot(self.found, lines, ylabel=up, ymax=1.0, intervals=spans, chance=sample.chance)
        kind = Picture if self.training_sample is None else AllEpochs
        artifacts: dict[str, Artifact] = {"": kind(plot)}
        return artifacts | {layer: Scalar(own.accuracy) for layer, own in shares.items()}

    def _parts(self, sample: Sample) -> dict[str, Sample]:
        if self.training_sample is None:
            return {"fit": sample[::2], "score": sample[1::2]}
        return {"fit": self.training_sample, "score": sample}


def _labels(sample: Sample) -> Tensor:
    assert sample.labels is not None  # `check` has refused such a sample
    return sample.labels


def _lines(looks: Sequence[tuple[str, Mapping[str, float]]], names: Sequence[str]) -> dict[str, list[float]]:
    return {label: [values.get(name, math.nan) for name in names] for label, values in looks}
