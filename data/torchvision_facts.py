"""Classes, channels, sizes and statistics of torchvision's classification data sets."""

from typing import Any, NamedTuple

from torchvision import datasets

_FLAG = ({"train": True}, {"train": False})
_SPLIT = ({"split": "train"}, {"split": "test"})
_WHOLE = ({}, None)

PARTS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "QMNIST", "USPS"), _FLAG),
    "EMNIST": ({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
    **dict.fromkeys(("Country211", "DTD", "Flowers102", "Food101", "GTSRB"), _SPLIT),
    **dict.fromkeys(("RenderedSST2", "STL10", "SVHN", "StanfordCars"), _SPLIT),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), ({"split": "trainval"}, {"split": "test"})),
    "Imagenette": ({"split": "train"}, {"split": "val"}),
    **dict.fromkeys(("Caltech101", "Caltech256", "EuroSAT", "SEMEION", "SUN397"), _WHOLE),
}
"""The arguments for the training and the test images of each set; `None` where it is not divided."""

HANDED = frozenset(
    ("EMNIST", "GTSRB", "KMNIST", "MNIST", "QMNIST", "RenderedSST2", "SEMEION", "SVHN", "USPS")
)
"""Sets of signs: their mirror images mean something else or nothing."""


class Facts(NamedTuple):
    """Channels, size and other facts of a set's images, and its classes."""

    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


_DIGITS = tuple("0123456789")
_BALANCED = tuple(datasets.EMNIST.classes_split_dict["balanced"])
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_STL10 = "airplane bird car cat deer dog horse monkey ship truck"
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

FACTS: dict[str, Facts] = {
    "MNIST": Facts(1, 28, (0.1307,), (0.3081,), _DIGITS),
    "QMNIST": Facts(1, 28, (0.1307,), (0.3081,), _DIGITS),
    "EMNIST": Facts(1, 28, (0.1751,), (0.3332,), _BALANCED),
    "KMNIST": Facts(1, 28, (0.1918,), (0.3483,), tuple(datasets.KMNIST.classes)),
    "FashionMNIST": Facts(1, 28, (0.2860,), (0.3530,), tuple(datasets.FashionMNIST.classes)),
    "CIFAR10": Facts(3, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), tuple(_CIFAR10.split())),
    "CIFAR100": Facts(3, 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), tuple(_CIFAR100.split())),
    "SVHN": Facts(3, 32, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), _DIGITS),
    "STL10": Facts(3, 96, (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713), tuple(_STL10.split())),
}
