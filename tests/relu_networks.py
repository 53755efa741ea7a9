"""Networks with ReLUs, and the rules for their backward pass."""

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

IMAGES = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
RULES = ["deconvnet", "desalinet"]


class Small(nn.Module):
    """Two convolutions with something between them, and a ReLU before the linear layer."""

    def __init__(self, between=F.relu, pool=nn.Identity()):  # noqa: B008
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.between, self.pool, self.last = between, pool, nn.LazyLinear(4)
        self.eval()(IMAGES[:1])

    def forward(self, images):
        maps = self.pool(self.between(self.first(images)))
        return self.last(F.relu(self.second(maps)).flatten(1))


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    library, _, model = name.partition("/")
    if library == "timm":
        return timm.create_model(model, pretrained=False).eval()
    options = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(model, weights=None, **options).eval()


class PreActivation(nn.Module):
    """A ReLU opens the branch of a residual block, and what it gets goes on next to it."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.branch, self.last = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Linear(512, 4),
        )
        self.activation = activation

    def forward(self, images):
        maps = self.stem(images)
        maps = maps + self.branch(self.activation(maps))
        return self.last(self.activation(maps).flatten(1))


class Parallel(nn.Module):
    """One ReLU module in two branches and after them."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(512, 4)
        self.activation = activation

    def forward(self, images):
        left, right = self.left(images), self.right(images)
        left, right = self.activation(left), self.activation(right)
        return self.last(self.activation(torch.cat([left - right, left * right], 1)).flatten(1))


HARD = {
    "functional": lambda: Small(F.relu),
    "ReLU6": lambda: Small(nn.ReLU6()),
    "before the branch": lambda: PreActivation(nn.ReLU()),
    "before the branch, ReLU6": lambda: PreActivation(F.relu6),
    "in parallel": lambda: Parallel(nn.ReLU()),
    "in parallel, ReLU6": lambda: Parallel(nn.ReLU6(inplace=True)),
}


class Half(nn.Module):
    """Some channels go through a ReLU, in place on a view."""

    def __init__(self, relu):
        super().__init__()
        self.relu = relu

    def forward(self, maps):
        self.relu(maps[:, :4])
        return maps
