"""All attribution methods by name."""

import inspect
from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.attribution.attention import attention_rollout
from fulgurite.probes.attribution.backward import backward_rules, deconvnet, guided_backprop
from fulgurite.probes.attribution.cam import cam, grad_cam, guided_grad_cam, layer_cam, score_cam
from fulgurite.probes.attribution.gradient import gradient, input_x_gradient, saliency, strongest
from fulgurite.probes.attribution.lime import lime
from fulgurite.probes.attribution.occlusion import occlusion
from fulgurite.probes.attribution.path_gradients import integrated_gradients, smoothgrad
from fulgurite.probes.attribution.rise import rise
from fulgurite.probes.objectives import Objectives
from fulgurite.probes.record import nearest

Method = Callable[..., Tensor]

METHODS: Mapping[str, Method] = {
    method.__name__: method
    for method in (
        *(gradient, saliency, input_x_gradient, smoothgrad, integrated_gradients),
        *(backward_rules, guided_backprop, deconvnet),
        *(cam, grad_cam, guided_grad_cam, layer_cam, score_cam),
        *(occlusion, rise, lime),
        attention_rollout,
    )
}

OF_ATTENTION = frozenset({"attention_rollout"})
"""Methods for vision transformers only; for other networks they raise a ValueError."""
OF_RULES = frozenset({"backward_rules", "guided_backprop", "deconvnet", "guided_grad_cam"})
"""Methods with other rules for ReLUs, which warn of steps that keep their own gradients."""
CONTRIBUTIONS = frozenset(
    {
        *("input_x_gradient", "integrated_gradients"),
        *("cam", "grad_cam", "layer_cam", "score_cam", "occlusion", "rise", "lime"),
    }
)
"""Methods whose values are what each place adds to the objective; others give its sensitivity."""


def method_of(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: there is none; the message lists the nearest.
    """
    if name not in METHODS:
        raise ValueError(f"no attribution method {name!r}; {nearest(name, METHODS)}")
    return METHODS[name]


def knobs_of(method: Method) -> Mapping[str, inspect.Parameter]:
    """The options of a method: its keyword arguments."""
    parameters = inspect.signature(method).parameters
    return {
        name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY
    }


def attribute(
    name: str, network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objectives, **knobs
) -> Float[Tensor, "*k n d h w"]:
    """The map of a method by its name; it gets those of the `knobs` that it has: many can share them."""
    method = method_of(name)
    own = knobs_of(method)
    return method(network, images, objective, **{knob: value for knob, value in knobs.items() if knob in own})


def importance(name: str, maps: Float[Tensor, "*k n d h w"]) -> Float[Tensor, "*k n 1 h w"]:
    """How much each pixel matters by a method's map, as one channel: the order of deletion and insertion.

    What a pixel adds (see `CONTRIBUTIONS`) is summed over the channels, signed; of sensitivities, such as
    gradients, it is the largest absolute value among the channels.
    """
    method_of(name)
    return maps.sum(-3, keepdim=True) if name in CONTRIBUTIONS else strongest(maps)
