"""Training images of a run that raised a prediction, for the sheets of `predict --explain`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.callbacks.framework.image_names import image_names
from fulgurite.callbacks.framework.sample import Sample, fetch
from fulgurite.cli.loaded_run import recipe_of_run
from fulgurite.cli.trained_network import placed
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.render import RGB, noted, sheet
from fulgurite.probes.representation.render_influence import influence_columns, influence_tiles
from fulgurite.probes.representation.training_influence import (
    DIMENSION,
    influence_of,
    margin_gradients,
    shares,
    strongest,
)
from fulgurite.recipes import run as runs

SHOWN = 5
HEAD = ["image", "class", "kind", "training_image", "label", "share"]


@dataclass
class TrainingImages:
    """Training images of a run, with the gradients of their margins by each of its networks.

    `networks` are those of the run's checkpoints, over which influences are averaged; `total` is the number
    of all training images.
    """

    sample: Sample
    networks: list[nn.Module]
    total: int
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self):
        assert self.sample.labels is not None  # `training_images_of` has refused others
        self.names = image_names(self.sample)
        self.labels = [self.sample.name(label) for label in self.sample.labels.tolist()]
        for place, network in enumerate(self.networks):
            parts = [
                margin_gradients(network, part.images, _labels(part), (DIMENSION, place))
                for part in map(self.sample.chunk, self.sample.chunks())
            ]
            gradients, residuals = zip(*parts, strict=True)
            self.seen.append((torch.cat(gradients), torch.cat(residuals)))

    def influence(self, images: Float[Tensor, "m c h w"], classes: Int[Tensor, "m"]) -> Float[Tensor, "m n"]:
        """How much each training image raised the margin of a class in each image (TRAK)."""
        found = torch.zeros(len(images), len(self.sample), dtype=torch.float64)
        for place, (network, own) in enumerate(zip(self.networks, self.seen, strict=True)):
            asked, _ = margin_gradients(network, images, classes, (DIMENSION, place))
            found += influence_of(*own, asked) / len(self.networks)
        return found

    def strip(self, influence: Float[Tensor, "n"]) -> RGB:
        """The training images that raised a prediction most, and those that lowered it most, as a picture."""
        k = min(SHOWN, len(self.sample))
        tiles = influence_tiles(influence, lambda chosen: self.sample[chosen].images, self.labels, k=k)
        count = len(self.networks)
        return noted(
            sheet({"": tiles}, columns=influence_columns(k)),
            f"training images by their share of the influence of {len(self.sample)} of {self.total} (TRAK, "
            f"{counted(count, 'checkpoint')})",
        )

    def rows(self, file: str, guess: str, influence: Float[Tensor, "n"]) -> Iterator[list[str]]:
        """Rows of a table with `HEAD`."""
        ((most, least),), parts = (
            strongest(influence[None], min(SHOWN, len(self.sample))),
            shares(influence),
        )
        for kind, chosen in (("raised", most), ("lowered", least)):
            for number in chosen.tolist():
                share = f"{float(parts[number]):.6f}"
                yield [file, guess, kind, self.names[number], self.labels[number], share]


def training_images_of(folder: Path, which: str, count: int) -> TrainingImages:
    """This many training images of a run, spread evenly, framed as validation images are.

    Args:
        folder: the run's.
        which: the checkpoint that predicts. "last" and "best" are averaged if both exist and differ.
        count: of the images.

    Raises:
        ValueError: the run trained no network on images with a class number each, or these are missing.
    """
    try:
        _, recipe = recipe_of_run(folder, which, augmented=False)
        recipe.data.prepare_data()
        recipe.data.setup("fit")
        loader = recipe.data.train_dataloader()
        networks = [placed(recipe.network)]
        classes = getattr(recipe.data, "classes", None) or ()
        sample = fetch(loader, count, classes=classes, device=device_of(networks[0]))
    except (ValueError, OSError) as error:
        raise ValueError(f"--training_images needs the run's training images: {error}") from None
    if sample.labels is None:
        raise ValueError(
            f"--training_images {count}: the training images of {folder} have no class number each, so none "
            "speaks for a class"
        )
    for other in _others(folder, which):
        network = placed(recipe_of_run(folder, other)[1].network)
        if not all(_equal(network, one) for one in networks):
            networks.append(network)
    return TrainingImages(sample, networks, len(getattr(loader, "dataset", sample)))


def _others(folder: Path, which: str) -> Sequence[str]:
    """The run's other checkpoint, of the last and the best."""
    known = {"best": "last", "last": "best"}
    if which not in known:
        return []
    try:
        runs.checkpoint(folder, known[which])
    except ValueError:
        return []
    return [known[which]]


def _equal(one: nn.Module, other: nn.Module) -> bool:
    own, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(own[name], theirs[name]) for name in own)


def _labels(sample: Sample) -> Tensor:
    assert sample.labels is not None
    return sample.labels
