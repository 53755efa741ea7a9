"""Requirements of probes on a network's output and on labels, checked on one image before training."""

from dataclasses import replace
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.segmentation import is_map_of_logits, of_maps
from fulgurite.callbacks.framework.tasks import ELSE, Wanted, adapted
from fulgurite.probes.attacks.argument_checks import are_probabilities
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.private_state import restored
from fulgurite.probes.tasks import LogitsOf

Needs = Literal["logits", "layers", "weights"]
_SHAPES = ("View", "Squeeze", "Reshape", "Alias", "Clone", "Select", "Slice", "Permute", "Transpose")


def named(
    sample: Sample,
    network: nn.Module,
    needs: Needs = "logits",
    wanted: Wanted | None = None,
    *,
    reported: set[str] | None = None,
) -> tuple[Sample, LogitsOf | None]:
    """The sample, with its task and a name for each class; and a function from outputs to logits.

    Args:
        sample: what the probe looks at.
        network: maps images to logits, unless less is needed.
        needs: what the probe reads: "logits", to go with labels that say the same; "layers", for which the
            network only has to run; or "weights".
        wanted: the requirements of the probe, and what the user states about the network; see `Wanted`.
        reported: what has been reported as not restorable, so that each is reported once.

    Raises:
        ValueError: the network cannot be run on the images; it gives no logits; there are more or fewer of
            them than names, or labels that are not the numbers of its classes; or the probe does not serve
            such a network.
    """
    wanted = wanted or Wanted()
    if needs == "weights":
        return sample, None
    answer = _answer(network, sample[:1].images, set() if reported is None else reported)
    if needs == "layers":
        return sample, None
    name = type(network).__name__
    if is_map_of_logits(answer) and "segmentation" in wanted.served:
        own = "binary" if answer.shape[1] == 1 else "multiclass"
        if sample.maps is not None and wanted.task in (None, own):
            _refuse_sigmoid(network, sample, name)
            return of_maps(sample, answer.shape, name, wanted.names)
        if sample.unfit and sample.targets is None and sample.maps is None:
            raise ValueError(
                f"{name} maps 1 image to {tuple(answer.shape)}, but the data give labels that are "
                f"{sample.unfit}; wanted a class number at each position, [n, height, width] or "
                "[n, 1, height, width]"
            )
    count = _numbers(answer, name)
    _refuse_sigmoid(network, sample, name)
    sample, logits_of = adapted(sample, count, name, wanted)
    if sample.task in ("multilabel", "regression"):
        return sample, logits_of
    count = max(count, 2) if wanted.label is None else 2
    names, given = sample.classes, wanted.names if wanted.label is None else None
    if given and len(given) != count:
        raise ValueError(f"{counted(len(given), 'name')} for the {counted(count, 'class')} of {name}")
    if names and len(names) != count:
        raise ValueError(
            f"the data name {counted(len(names), 'class')}, but {name} gives {counted(count, 'logit')}; "
            "wanted one for each; if their numbers are right all the same, give the probe classes=, "
            f"{counted(count, 'name')}"
        )
    check_labels(sample, count, name)
    names = [sample.name(label) for label in range(count)]
    # names may repeat: ImageNet has two classes "crane"
    names = [f"{name} ({label})" if names.count(name) > 1 else name for label, name in enumerate(names)]
    return replace(sample, classes=tuple(names)), logits_of


def check_labels(sample: Sample, classes: int, network: str) -> None:
    """Check that labels, if there are any, are numbers of the network's classes.

    Raises:
        ValueError: they are not.
    """
    if sample.unfit:
        raise ValueError(
            f"the data give labels that are {sample.unfit}; wanted one class number for each image; give "
            f"those, {ELSE}"
        )
    if sample.labels is not None and len(sample):
        low, high = int(sample.labels.min()), int(sample.labels.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels from {low} to {high}, but {network} gives {counted(classes, 'logit')}; wanted "
                f"labels from 0 to {classes - 1}; number the classes so, {ELSE}"
            )


def _answer(network: nn.Module, images: Tensor, reported: set[str]) -> object:
    """The output of the network; warns if a second pass differs: training then cannot stay unchanged."""
    name = type(network).__name__
    with restored(network) as lost:
        try:
            answer, again = _run(network, images), _run(network, images)
        except Exception as error:
            reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
            raise ValueError(
                f"{name} cannot be run on images {tuple(images.shape)}: {reason}; wanted forward(images); a "
                "property network_to_probe of the model can name the part that has one"
            ) from error
    if isinstance(answer, Tensor) and isinstance(again, Tensor) and not _same(answer, again):
        lost = [f"its output differs when run once more from the same state, by {_difference(answer, again)}"]
    if lost and name not in reported:
        reported.add(name)
        rank_zero_warn(
            f"{name} holds a state that cannot be restored after a probe has run, so that a training may end "
            f"differently than without probes: {lost[0]}"
        )
    return answer


def _run(network: nn.Module, images: Tensor) -> object:
    with frozen_eval(network) as own, torch.no_grad():
        return own(images)


def _same(one: Tensor, other: Tensor) -> bool:
    if one.device.type == "cpu":
        return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    # sums on a GPU may be added up in any order
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True)


def _difference(one: Tensor, other: Tensor) -> str:
    return f"up to {float((one - other).abs().max()):.2g}" if one.shape == other.shape else "its shape"


def _numbers(answer: object, name: str) -> int:
    """The number of values that the network outputs for an image."""
    remedy = f"a property network_to_probe of the model can name or wrap the part that gives them, {ELSE}"
    one = isinstance(answer, Tensor) and tuple(answer.shape) == (1,)
    if not (one or (isinstance(answer, Tensor) and answer.dim() == 2 and len(answer) == 1)):
        came = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        if isinstance(answer, Tensor) and answer.dim() > 2:
            remedy = (
                "average maps over their positions where they are logits, or ask probes' functions about a "
                f"pixel or a mask (pixel_score, mask_score); {remedy}"
            )
        raise ValueError(f"{name} maps 1 image to {came}; wanted logits [images, classes]; {remedy}")
    assert isinstance(answer, Tensor)
    if not answer.is_floating_point():
        raise ValueError(f"{name} gives {answer.dtype}, wanted logits in floating point; {remedy}")
    if not one and are_probabilities(answer):
        raise _probabilities(name, "softmax")
    return answer.numel()


def _refuse_sigmoid(network: nn.Module, sample: Sample, name: str) -> None:
    """A sigmoid is seen by the graph: its values alone might be logits."""
    with restored(network), frozen_eval(network) as own:
        answer = own(sample[:1].images.requires_grad_())
        node = answer.grad_fn
        while node is not None and any(word in node.name() for word in _SHAPES):
            node = node.next_functions[0][0]
    if node is not None and node.name().startswith("SigmoidBackward"):
        raise _probabilities(name, "sigmoid")


def _probabilities(name: str, function: str) -> ValueError:
    return ValueError(
        f"{name} gives probabilities; wanted logits, as they are before its {function}, or the logarithm; a "
        f"property network_to_probe of the model can name or wrap the part that gives them, {ELSE}"
    )
