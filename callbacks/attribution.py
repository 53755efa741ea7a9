"""Attribution maps of validation images by several methods, at each epoch."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.methods import attribute, knobs_of, method_of
from fulgurite.probes.attribution.render_maps import comparison, row
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB

USUAL = ("input_x_gradient", "integrated_gradients", "guided_backprop", "grad_cam", "layer_cam")


class Attribution(ProbeCallback):
    """Attribution maps of several methods, on a sheet with class and probability, or a picture for each.

    Args:
        methods: their names, as in `probes.attribution.methods.METHODS`; or a dict from names to keyword
            arguments, such as `{"rise": {"masks": 500}}`. Without it, a usual choice, less what the network
            is not made for: guided backpropagation needs ReLUs.
        layer: the layer whose maps the CAM methods weight; the last one by default.
        targets: the class to explain: the "true" one, the "predicted" one, or "both".
        sheet: compare all methods on one sheet; otherwise a picture for each method.
        score_layer: where the scores are read; before the last ReLU, if the logits pass through one.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(
        self,
        methods: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
        *,
        layer: str | None = None,
        targets: Literal["true", "predicted", "both"] = "predicted",
        sheet: bool = True,
        score_layer: str = "",
        **schedule,
    ):
        super().__init__(**{"images": 6, **schedule})
        if targets not in ("true", "predicted", "both"):
            raise ValueError(f'targets={targets!r}; wanted "true", "predicted" or "both"')
        self.usual = methods is None
        methods = USUAL if methods is None else methods
        if isinstance(methods, str) or not methods:
            raise ValueError(f"methods={methods!r}; wanted a list of names, such as {list(USUAL)}")
        self.methods = dict(methods) if isinstance(methods, Mapping) else {name: {} for name in methods}
        for name, knobs in self.methods.items():
            own = knobs_of(method_of(name))
            if wrong := [knob for knob in knobs if knob not in own]:
                raise ValueError(f"{name} has no {wrong[0]!r}; it has {', '.join(own) or 'no knobs'}")
        self.layer, self.targets, self.sheet, self.score_layer = layer, targets, sheet, score_layer
        self.film.side = 512

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers are the network's; the quick methods are tried on one image."""
        layer_of(network, self.score_layer)
        if self.layer is not None:
            layer_of(network, self.layer)
        for name in list(self.methods):
            if "progress" not in knobs_of(method_of(name)):
                self._try(name, network, sample[:1])

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        return sample.each()

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, Sequence[RGB]]]:
        """For each image a row of tiles for each explained class."""
        mine = sample.take(subjects)
        images = mine.images
        probabilities = predict(network, images).softmax(1)
        guesses = probabilities.argmax(1)
        truths = guesses if mine.labels is None else mine.labels.to(guesses.device)
        targets = {"true": truths, "predicted": guesses}
        if self.targets != "both":
            targets = {self.targets: targets[self.targets]}
        rows: dict[str, dict[str, Sequence[RGB]]] = {subject: {} for subject in subjects}
        for what, classes in targets.items():
            maps = {name: self._map(name, network, mine, classes) for name in self.methods}
            for place, subject in enumerate(subjects):
                number = int(classes[place])
                caption = f"{mine.name(number)}: {probabilities[place, number]:.0%}"
                own = {name: values[place] for name, values in maps.items()}
                rows[subject][what] = row(images[place], own, caption)
        return rows

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """One sheet, or a sheet for each method."""
        rows = {
            f"{subject.removeprefix('image ')} {what}": tiles
            for subject, targets in observations.items()
            for what, tiles in targets.items()
        }
        if self.sheet:
            return {"": Picture(comparison(rows, self.methods))}
        return {
            name: Picture(comparison({key: [tiles[0], tiles[place]] for key, tiles in rows.items()}, [name]))
            for place, name in enumerate(self.methods, 1)
        }

    def _try(self, name: str, network: nn.Module, sample: Sample) -> None:
        try:
            self._map(name, network, sample, torch.zeros(1, dtype=torch.long, device=sample.device))
        except ValueError as error:
            if not self.usual or len(self.methods) == 1:
                raise
            del self.methods[name]
            rank_zero_info(f"{self.name} goes without {name}: {error}")

    def _map(
        self, name: str, network: nn.Module, sample: Sample, classes: Int[Tensor, "n"]
    ) -> Float[Tensor, "n _ h w"]:
        objective = class_score(classes, layer=self.score_layer)
        knobs = {"layer": self.layer, **self.methods[name]}
        return attribute(name, network, sample.images, objective, **knobs)
