"""The fixed sample of validation or training images that probes look at, by number, in [0, 1]."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from fulgurite.callbacks.framework.label_forms import form_of
from fulgurite.callbacks.framework.lazy_images import LoadedImages, spread
from fulgurite.probes.tasks import Task, probabilities, set_name

CHUNK = 256


@dataclass(frozen=True)
class Numbered:
    """Some images of a data set by their numbers; they are decoded on request."""

    source: LoadedImages
    ids: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height and width."""
        return len(self.ids), *self.source.shape

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, indices: Sequence[int] | slice) -> "Numbered":
        ids = self.ids[indices] if isinstance(indices, slice) else tuple(self.ids[place] for place in indices)
        return Numbered(self.source, ids)


@dataclass(frozen=True)
class Sample:
    """Images with their labels, if they have any, and the names of the classes.

    Where the data have other labels than one class number for each image, `unfit` describes them, and there
    are no labels; where it is numbers (1 and 0 for the labels of many, or what a regression is to find),
    `targets` holds them. The `task` determines how logits are read. `sample[indices]` is the sample of those
    images. Images of a data set are decoded when `images` is read, so that a large sample is best used in
    chunks.
    """

    pixels: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"] | Numbered
    labels: Int[Tensor, "n"] | None
    classes: tuple[str, ...]
    device: torch.device
    unfit: str = ""
    targets: Float[Tensor, "n k"] | None = None
    task: Task = "multiclass"
    part: str = "validation"
    """The part of the data that they are from: "validation", "test" or "training"."""
    maps: Integer[Tensor, "n h w"] | None = None
    """The class number at each position, of label maps, as of segmentation."""

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices: Sequence[int] | slice) -> "Sample":
        known = self.labels, self.targets, self.maps
        labels, targets, maps = (None if own is None else own[indices] for own in known)
        return replace(self, pixels=self.pixels[indices], labels=labels, targets=targets, maps=maps)

    def evenly(self, count: int) -> "Sample":
        """This many of its images, spread evenly, or all."""
        return self[spread(len(self), count)]

    def chunks(self, size: int = CHUNK) -> list[str]:
        """The names of its chunks, each of which a network takes at once."""
        return [f"{start:06d}" for start in range(0, len(self), size)]

    def chunk(self, name: str, size: int = CHUNK) -> "Sample":
        """The part of this name."""
        return self[int(name) : int(name) + size]

    def each(self) -> list[str]:
        """The names of its images, by their places."""
        return [f"image {place:02d}" for place in range(len(self))]

    def take(self, names: Sequence[str]) -> "Sample":
        """The images of these names."""
        return self[[int(name.removeprefix("image ")) for name in names]]

    @property
    def images(self) -> Float[Tensor, "n c h w"]:
        """The images in [0, 1], where the network is."""
        pixels = self.pixels
        moved = (pixels.source.pixels(pixels.ids) if isinstance(pixels, Numbered) else pixels).to(self.device)
        return moved / 255 if moved.dtype == torch.uint8 else moved

    @property
    def masks(self) -> Bool[Tensor, "n h w"] | None:
        """Where the object of each image is, if the data set knows it (see `LoadedImages.masks`)."""
        pixels = self.pixels
        found = pixels.source.masks(pixels.ids) if isinstance(pixels, Numbered) else None
        return None if found is None else found.to(self.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def name(self, label: int) -> str:
        """The name of a class; its number if it has none."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)

    @property
    def chance(self) -> float | None:
        """The accuracy of guesses among the classes; None where an image has no single class."""
        known = self.classes and self.task in ("multiclass", "binary")
        return 1 / max(2, len(self.classes)) if known else None

    # how logits are read, by task

    def probabilities(self, logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Of each class, or of each label; the outputs of a regression as they are."""
        return probabilities(logits, self.task)

    def predicted(self, logits: Float[Tensor, "n k"]) -> Int[Tensor, "n"]:
        """The class, or the label, with the largest logit; the first output of a regression."""
        return logits.argmax(1) * (self.task != "regression")

    def true(self, logits: Float[Tensor, "n k"]) -> Int[Tensor, "n"] | None:
        """The true class; of several true labels the one with the largest logit; None where none is known.

        Where an image has no label of many, it is the label with the largest logit.
        """
        if self.labels is not None:
            return self.labels.to(logits.device)
        if self.task != "multilabel" or self.targets is None:
            return None
        own = self.targets.to(logits.device) > 0.5
        own = own | ~own.any(1, keepdim=True)
        return logits.masked_fill(~own, -torch.inf).argmax(1)

    def truth(self, place: int) -> str:
        """The true labels or values of an image, where it has no class number."""
        if self.targets is None or self.task in ("multiclass", "binary", "segmentation"):
            return ""
        own = self.targets[place]
        if self.task == "multilabel":
            return f"true {set_name(own, self.classes)}"
        return f"true {', '.join(f'{value:.3g}' for value in own.tolist())}"

    def caption(self, label: int, value: float) -> str:
        """A class or label and its probability; an output and its value; a class and its average logit."""
        if self.task == "segmentation":
            return f"{self.name(label)}: mean logit {value:.3g}"
        return (
            f"{self.name(label)}: {value:.3g}"
            if self.task == "regression"
            else f"{self.name(label)}: {value:.0%}"
        )


class SampleData(Dataset):
    """A sample as a data set that is read by index: images in [0, 1] with their class numbers."""

    def __init__(self, sample: Sample):
        self.sample = sample

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        part = self.sample[list(indices)]
        if part.labels is None:
            raise ValueError("images without class numbers; wanted one for each")
        return list(zip(part.images, part.labels, strict=True))


def sample_of(
    source: LoadedImages, count: int | None, *, classes: Sequence[str], device: torch.device
) -> Sample:
    """`count` images spread evenly over a data set, all without it.

    Raises:
        ValueError: no images, a batch of an unknown form, or images outside [0, 1].
    """
    ids = source.evenly(count)
    found = [source.labels[one] for one in ids]
    unfit = next((label for label in found if isinstance(label, str)), "")
    known = [label for label in found if isinstance(label, Tensor)]
    sizes = {label.shape for label in known}
    labels = torch.stack(known) if len(known) == len(ids) and len(sizes) == 1 else None
    targets = maps = None
    if len(sizes) > 1:
        unfit = "of several sizes"
    elif labels is not None and labels.dim() == 3:
        unfit = f"a class number at each of {labels.shape[1]} x {labels.shape[2]} positions"
        maps, labels = labels, None
    elif labels is not None and (labels.dim() > 1 or labels.is_floating_point()):
        unfit, targets, labels = form_of(labels), labels.reshape(len(ids), -1).float(), None
    elif labels is not None:
        labels = labels.long()
    return Sample(Numbered(source, tuple(ids)), labels, tuple(classes), device, unfit, targets, maps=maps)


def fetch(
    loader: Iterable,
    count: int | None,
    *,
    classes: Sequence[str],
    device: torch.device,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Sample:
    """`count` images spread evenly over a loader's data set, all without it; see `LoadedImages`.

    Raises:
        ValueError: no images, a batch of an unknown form, or images outside [0, 1].
    """
    source = LoadedImages(loader, device=device, mean=mean, std=std)
    return sample_of(source, count, classes=classes, device=device)


def loader_of(trainer: pl.Trainer) -> tuple[str, Iterable]:
    """The loader to take the sample from, and its part: "validation", else "test", else "training" images.

    Raises:
        ValueError: the trainer has none.
    """
    sources = {
        "validation": trainer.val_dataloaders,
        "test": trainer.test_dataloaders,
        "training": trainer.train_dataloader,
    }
    for part, source in sources.items():
        if (loader := _first(source)) is not None:
            return part, loader
    raise ValueError("the Trainer has no validation, test or training data to take images from")


def training_loader_of(trainer: pl.Trainer) -> Iterable | None:
    """The training data; a validating trainer has none, but its data module may."""
    if trainer.train_dataloader is not None:
        return trainer.train_dataloader
    try:
        return trainer.datamodule.train_dataloader()  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:
        # there is no data module, or it has set up nothing but validation
        return None


def classes_of(trainer: pl.Trainer, loader: Iterable) -> tuple[str, ...]:
    """The names of the classes, from the data set, the data module or the model, whichever has them first."""
    dataset = getattr(loader, "dataset", None)
    sources = [dataset]
    while (dataset := getattr(dataset, "dataset", None)) is not None:
        sources.append(dataset)
    sources += [getattr(trainer, "datamodule", None), trainer.lightning_module]
    for source in sources:
        names = getattr(source, "classes", None)
        if isinstance(names, list | tuple) and names:
            return tuple(str(name) for name in names)
    return ()


def _first(source: object) -> Iterable | None:
    if isinstance(source, Mapping):
        source = list(source.values())
    if isinstance(source, list | tuple):
        return _first(source[0]) if source else None
    return source if isinstance(source, Iterable) else None
