"""A classifier layer initialised by logistic regression before fine-tuning."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.data.image_data_module import ImageData
from fulgurite.models.weights import ends
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.representation.logistic import STRICT, logistic
from fulgurite.probes.representation.stages import features


def fit_head(network: nn.Module, data: ImageData) -> None:
    """Replace the last layer by a logistic regression of the training images.

    Linear probing, then fine-tuning: Kumar et al. 2022, arxiv.org/abs/2202.10054.

    Args:
        network: its last layer is fitted in place.
        data: its training images, as they are, without augmentation.

    Raises:
        ValueError: the logits are not linear in the last stage's output, averaged over its positions.
    """
    data.setup()
    stage_features = features(network, data.train, progress="features")
    *_, stage = stage_features.of
    fitted = logistic(stage_features.of[stage], stage_features.labels, penalties=STRICT).layer()
    _, heads = ends(network)
    head = network.get_submodule(heads[-1])
    assert isinstance(head, nn.Linear | nn.Conv2d)
    state_before = {name: value.clone() for name, value in head.state_dict().items()}
    if not _set_head(network, head, fitted, data, stage_features.of[stage]):
        head.load_state_dict(state_before)
        raise ValueError(
            f"the head of this {type(network).__name__} is not linear in the output of {stage}, averaged "
            "over its positions; leave out fitted_head"
        )


@torch.no_grad()
def _set_head(
    network: nn.Module,
    head: nn.Linear | nn.Conv2d,
    fitted: nn.Linear,
    data: ImageData,
    values: Float[Tensor, "n d"],
) -> bool:
    """Give the head the fitted weights; whether the network's logits are then the fitted ones."""
    if head.weight.numel() != fitted.weight.numel() or head.bias is None:
        return False
    head.weight.copy_(fitted.weight.view_as(head.weight))
    head.bias.copy_(fitted.bias)
    images = torch.stack([data.train[k][0] for k in range(min(4, len(data.train)))])
    with frozen_eval(network) as net:
        answers = net(images.to(device_of(net))).cpu()
    expected = fitted(values[: len(images)].float())
    return torch.allclose(answers, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
