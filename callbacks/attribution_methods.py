"""The attribution methods of a callback: names, options, and a default choice that suits the network."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.attribution.backward import KeptGradients
from fulgurite.probes.attribution.methods import attribute, knobs_of, method_of
from fulgurite.probes.objectives import class_score
from fulgurite.probes.record import layer_of
from fulgurite.probes.task_objectives import output

COPIES = {"steps": 1, "draws": 1, "masks": 2, "samples": 2}
"""Options that are the number of copies of an image that a method passes through the network; their least."""
Methods = Sequence[str] | Mapping[str, Mapping[str, Any]]


class AttributionMethods(dict[str, Mapping[str, Any]]):
    """The keyword arguments of each method, by its name.

    Args:
        methods: names, or a dict from names to keyword arguments; a usual choice of those that suit the
            network without it.
        usual: that choice.
        layer: the layer whose maps the CAM methods weight; the last one by default.
        score_layer: where the scores are read; before the last ReLU, if the logits pass through one.
    """

    def __init__(self, methods: Methods | None, usual: Sequence[str], *, layer: str | None, score_layer: str):
        self.usual, self.layer, self.score_layer = methods is None, layer, score_layer
        methods = usual if methods is None else methods
        if isinstance(methods, str) or not methods:
            raise ValueError(f"methods={methods!r}; wanted a list of names, such as {list(usual)}")
        self._told = False  # of steps that keep their gradients
        self._warned = False  # of steps that keep their gradients
        super().__init__(methods if isinstance(methods, Mapping) else {name: {} for name in methods})
        for name, knobs in self.items():
            own = knobs_of(method_of(name))
            if wrong := [knob for knob in knobs if knob not in own]:
                raise ValueError(f"{name} has no {wrong[0]!r}; it has {', '.join(own) or 'no knobs'}")

    def check(self, network: nn.Module, sample: Sample, owner: str) -> None:
        """The layers are the network's; the quick methods are tried on one image.

        Raises:
            ValueError: no such layer, or a method that was asked for cannot be used.
        """
        layer_of(network, self.score_layer)
        if self.layer is not None:
            layer_of(network, self.layer)
        for name in list(self):
            if "progress" not in knobs_of(method_of(name)):
                self._try(name, network, sample[:1], owner)

    def map(
        self,
        name: str,
        network: nn.Module,
        sample: Sample,
        classes: Int[Tensor, "n"],
        *,
        part: float = 1.0,
    ) -> Float[Tensor, "n _ h w"]:
        """A method's maps of the sample for a class of each image, by a part of its steps, draws or masks.

        That steps of the network keep their gradients is told once, not by each method at each look.
        """
        score = output if sample.task == "regression" else class_score
        objective = score(classes, layer=self.score_layer)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            maps = attribute(name, network, sample.images, objective, **self._knobs(name, part))
        for own in found:
            if not (issubclass(own.category, KeptGradients) and self._told):
                warnings.warn(own.message, stacklevel=2)
            self._told |= issubclass(own.category, KeptGradients)
        return maps

    def _knobs(self, name: str, part: float) -> dict[str, Any]:
        knobs = {"layer": self.layer, **self[name]}
        if part < 1:
            usual = {knob: own.default for knob, own in knobs_of(method_of(name)).items() if knob in COPIES}
            knobs |= {
                knob: max(COPIES[knob], round(part * knobs.get(knob, default)))
                for knob, default in usual.items()
            }
        return knobs

    def _try(self, name: str, network: nn.Module, sample: Sample, owner: str) -> None:
        try:
            self.map(name, network, sample, torch.zeros(1, dtype=torch.long, device=sample.device))
        except ValueError as error:
            if not self.usual or len(self) == 1:
                raise
            del self[name]
            rank_zero_info(f"{owner} goes without {name}: {error}")
