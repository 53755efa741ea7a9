"""Small CNNs: a VGG for small images, ResNets with a 3 x 3 stem."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import ResNet


class GridPool(nn.AdaptiveAvgPool2d):
    """Averages over the cells of a square grid, whatever the maps' size: `nn.AdaptiveAvgPool2d`.

    Its backward pass is deterministic on a GPU too, unlike that of `nn.AdaptiveAvgPool2d`: where cells do not
    overlap it is plain average pooling, and else, where deterministic algorithms are required, two matrix
    products with the weights of rows and columns in each cell.
    """

    def __init__(self, cells: int):
        super().__init__(cells)
        self.cells = cells

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c g g"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The mean of each cell."""
        height, width = maps.shape[2:]
        if height % self.cells == width % self.cells == 0 and min(height, width) >= self.cells:
            return F.avg_pool2d(maps, (height // self.cells, width // self.cells))
        if not (maps.is_cuda and torch.are_deterministic_algorithms_enabled()):
            return super().forward(maps)
        down, across = (self._parts(side, maps) for side in (height, width))
        return down @ maps @ across.T

    def _parts(self, side: int, maps: Tensor) -> Float[Tensor, "cells side"]:
        cells, places = (
            torch.arange(self.cells, device=maps.device)[:, None],
            torch.arange(side, device=maps.device),
        )
        first, past = cells * side // self.cells, -(-(cells + 1) * side // self.cells)
        inside = ((first <= places) & (places < past)).to(maps)
        return inside / inside.sum(1, keepdim=True)


class SmallVGG(nn.Module):
    """Three convolutions and a hidden layer that keeps positions.

    Its class images have shapes, because the score depends on position. At 32 px the grid is the last pooling
    itself; the smallest image has 8 px. After Simonyan & Zisserman 2015, arxiv.org/abs/1409.1556.
    """

    def __init__(
        self, classes: int, channels: int, *, width: int = 32, hidden: int = 128, dropout: float = 0.2
    ):
        super().__init__()
        self.conv1, self.norm1, self.relu1 = _stage(channels, width)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2, self.norm2, self.relu2 = _stage(width, 2 * width)
        self.pool2 = nn.MaxPool2d(2)
        self.conv3, self.norm3, self.relu3 = _stage(2 * width, 2 * width)
        self.pool3 = nn.MaxPool2d(2)
        self.grid = GridPool(4)
        self.hidden = nn.Linear(2 * width * 4 * 4, hidden)
        self.relu4 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits."""
        x = self.pool1(self.relu1(self.norm1(self.conv1(images))))
        x = self.pool2(self.relu2(self.norm2(self.conv2(x))))
        x = self.pool3(self.relu3(self.norm3(self.conv3(x))))
        x = self.relu4(self.hidden(self.grid(x).flatten(1)))
        return self.classifier(self.dropout(x))


class AllConv(nn.Module):
    """Convolutions only: strides instead of pooling, 1x1 convolutions instead of a hidden layer, a mean.

    Its class images are textures, because the score does not depend on position. After All-CNN-C of
    Springenberg et al. 2015, arxiv.org/abs/1412.6806, but a third as wide, two layers shorter and with
    BatchNorm.
    """

    def __init__(self, classes: int, channels: int, *, width: int = 32):
        super().__init__()
        self.conv1, self.norm1, self.relu1 = _stage(channels, width)
        self.conv2, self.norm2, self.relu2 = _stage(width, width, stride=2)
        self.conv3, self.norm3, self.relu3 = _stage(width, 2 * width)
        self.conv4, self.norm4, self.relu4 = _stage(2 * width, 2 * width, stride=2)
        self.conv5, self.norm5, self.relu5 = _stage(2 * width, 2 * width)
        self.conv6, self.norm6, self.relu6 = _stage(2 * width, 2 * width, size=1)
        self.classifier = nn.Conv2d(2 * width, classes, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits."""
        x = self.relu1(self.norm1(self.conv1(images)))
        x = self.relu2(self.norm2(self.conv2(x)))
        x = self.relu3(self.norm3(self.conv3(x)))
        x = self.relu4(self.norm4(self.conv4(x)))
        x = self.relu5(self.norm5(self.conv5(x)))
        x = self.relu6(self.norm6(self.conv6(x)))
        return self.pool(self.classifier(x)).flatten(1)


class SmallCNN(nn.Module):
    """Two convolutions and a hidden layer without BatchNorm: 72 000 weights, enough for digits of 8 x 8."""

    def __init__(self, classes: int, channels: int, *, width: int = 16, hidden: int = 128):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.grid = GridPool(4)
        self.hidden = nn.Linear(2 * width * 4 * 4, hidden)
        self.relu3 = nn.ReLU()
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits."""
        x = self.relu2(self.conv2(self.relu1(self.conv1(images))))
        x = self.relu3(self.hidden(self.grid(self.pool(x)).flatten(1)))
        return self.classifier(x)


class StridedCNN(nn.Module):
    """Two convolutions with stride 2 and a hidden layer, no BatchNorm: fast on MNIST, for many passes.

    The network of Wong et al. 2020, arxiv.org/abs/2001.03994, for MNIST.
    """

    def __init__(self, classes: int, channels: int, *, width: int = 16, hidden: int = 100):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.relu2 = nn.ReLU()
        self.grid = GridPool(7)
        self.hidden = nn.Linear(2 * width * 7 * 7, hidden)
        self.relu3 = nn.ReLU()
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits."""
        x = self.relu2(self.conv2(self.relu1(self.conv1(images))))
        return self.classifier(self.relu3(self.hidden(self.grid(x).flatten(1))))


class PreActResNet18(nn.Module):
    """A ResNet-18 for small images that normalises and activates before each convolution, not after it.

    He et al. 2016, arxiv.org/abs/1603.05027; the network of most robustness results on CIFAR-10.
    """

    def __init__(self, classes: int, channels: int, *, width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(_PreAct(width, width), _PreAct(width, width))
        self.layer2 = nn.Sequential(_PreAct(width, 2 * width, 2), _PreAct(2 * width, 2 * width))
        self.layer3 = nn.Sequential(_PreAct(2 * width, 4 * width, 2), _PreAct(4 * width, 4 * width))
        self.layer4 = nn.Sequential(_PreAct(4 * width, 8 * width, 2), _PreAct(8 * width, 8 * width))
        self.norm = nn.BatchNorm2d(8 * width)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8 * width, classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(images)))))
        return self.classifier(self.pool(self.relu(self.norm(x))).flatten(1))


class _PreAct(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        ready = self.relu1(self.norm1(x))
        around = x if self.shortcut is None else self.shortcut(ready)
        return around + self.conv2(self.relu2(self.norm2(self.conv1(ready))))


def _stage(
    inputs: int, outputs: int, *, size: int = 3, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def cifar_stem(network: ResNet) -> ResNet:
    """The same ResNet for images of 32 px: its 7x7 stem becomes a fresh 3x3 one that keeps the size.

    Changes the network that it is given. The stem for CIFAR of He et al. 2016, arxiv.org/abs/1512.03385.
    """
    stem = network.conv1
    network.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return network
