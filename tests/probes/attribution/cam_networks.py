"""Networks whose class activation maps are known, and the methods that make such maps."""

import torch
import torchvision
from torch import nn

from fulgurite.probes.attribution.cam import cam, grad_cam, layer_cam, score_cam

CAMS = [cam, grad_cam, layer_cam, score_cam]
IMAGES = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def averaging() -> nn.Sequential:
    """A network that averages its last maps, and makes its scores of the averages by one linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )


def torchvisions(name: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, **options).eval()


def one_convolution() -> nn.Sequential:
    """Captum's BasicModel_ConvNet_One_Conv."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4), nn.ReLU())
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[0].bias.copy_(torch.tensor([-50.0, -75.0]))
        network[3].weight.copy_(torch.tensor([1.0] * 5 + [-1.0] * 3).expand(4, 8))
        network[3].bias.zero_()
    return network
