"""Whether adversarial images of one network fool others: a matrix of sources and targets."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts
from fulgurite.probes.attacks.attacked_network import attacked
from fulgurite.probes.attacks.ensembles import Attack
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.attacks.transferable_attacks import Ensemble
from fulgurite.probes.counted import counted
from fulgurite.probes.feature_extractor import takes
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.intervals import wilson
from fulgurite.probes.predict import predict
from fulgurite.probes.robustness.evaluate import at_once
from fulgurite.probes.robustness.report import aligned

NOISE = "random noise"
OTHERS = "all others together"
NONE_RIGHT = "none right"
"""What is said of a target without a share: it classifies no image correctly, so that none can fool it."""


@dataclass(frozen=True, eq=False)
class TransferMatrix:
    """Which images each network misclassifies, clean and as adversarial images of each source.

    Args:
        names: of the networks.
        right: of each network, which images it classifies correctly as they are.
        fooled: of each source and each target, which adversarial images of the source the target gets wrong;
            the last source is random noise of the same size.
        ensemble: whether the source before it is, for each target, all other networks together.
    """

    names: tuple[str, ...]
    right: Bool[Tensor, "networks n"]
    fooled: Bool[Tensor, "sources networks n"]
    ensemble: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the rows."""
        return (*self.names, *([OTHERS] if self.ensemble else []), NOISE)

    def clean(self) -> list[float]:
        """The accuracy of each network on the images as they are."""
        return self.right.double().mean(1).tolist()

    def counts(self, source: int, target: int) -> tuple[int, int]:
        """Of the images that the target classifies correctly, how many fool it, and how many there are."""
        return int((self.fooled[source, target] & self.right[target]).sum()), int(self.right[target].sum())

    def success(self) -> list[list[float]]:
        """The share of those, for each source and, last, for noise, by target; NaN where none is right."""
        rows = range(len(self.fooled))
        pairs = [[self.counts(row, column) for column in range(len(self.names))] for row in rows]
        return [[count / of if of else float("nan") for count, of in row] for row in pairs]

    def interval(self, source: int, target: int) -> tuple[float, float]:
        """Wilson's 95 % interval of a share."""
        count, of = self.counts(source, target)
        return wilson(count, of) if of else (0.0, 1.0)

    def table(self) -> list[list[str]]:
        """A head and a row for clean accuracy, each source, and noise: for a CSV."""
        rows = [["source", *self.names], ["clean accuracy", *(f"{share:.4f}" for share in self.clean())]]
        for name, shares in zip(self.sources, self.success(), strict=True):
            rows.append([name, *(f"{share:.4f}" for share in shares)])
        return rows

    def text(self) -> str:
        """The table in columns; "none right" where the target classifies no image correctly."""
        head, clean, *rows = self.table()
        said = [[name, *(NONE_RIGHT if cell == "nan" else cell for cell in cells)] for name, *cells in rows]
        return aligned([head, clean, *said], right=len(self.names))


def transfer_matrix(
    networks: Mapping[str, nn.Module],
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    attack: Attack,
    *,
    ensemble: bool = False,
    batch_size: int | None = None,
) -> TransferMatrix:
    """Attack each network, and test the adversarial images on all of them.

    Adversarial examples generalise across networks (Szegedy et al. 2014, arxiv.org/abs/1312.6199). Success is
    counted only on images that the target classifies correctly; noise of the same size, drawn evenly from the
    ball, is the baseline.

    Args:
        networks: by name; each maps images to logits of the same classes.
        images: within the threat's bounds.
        labels: the true class of each image.
        threat: how far they may be moved.
        attack: such as `pgd`, or `diverse(pgd)`.
        ensemble: also attack, for each target, the mean logits of all other networks.
        batch_size: images at a time; without it, at most 256, fewer where they are large.

    Raises:
        ValueError: no networks, or one called as a row is, one that cannot take the images, an ensemble of
            fewer than two, or as `attacked`.
    """
    if not isinstance(networks, Mapping):
        raise ValueError(
            f'networks that are a {type(networks).__name__}; wanted them by name, such as {{"a": network}}'
        )
    if rows := {NOISE, OTHERS} & networks.keys():
        raise ValueError(f"a network called {min(rows)!r}, as a row of the table is; wanted another name")
    if not networks:
        raise ValueError("no networks; wanted at least one, better two, by name")
    if ensemble and len(networks) < 2:
        raise ValueError("an ensemble of the other networks, but there is one; wanted at least two")
    if batch_size is not None:
        check_counts(batch_size=batch_size)
    for name, network in networks.items():
        _check_takes(name, network, images[:1])
    size = batch_size or min(at_once(network, images) for network in networks.values())
    right, fooled = list[Tensor](), list[Tensor]()
    for some, answers in zip(images.split(size), labels.split(size), strict=True):
        moved = list[Tensor]()
        for network in networks.values():
            own, truth = (part.to(device_of(network)) for part in (some, answers))
            with attacked(network, own, truth, threat) as run:
                run.logits(run.images)  # refuses labels and answers that are none
            moved.append(attack(network, own, truth, threat).cpu())
        moved.append(threat.sample(some.cpu(), PerImageRandom(some.cpu())))
        wrong = [
            [_wrong(network, shown, answers) for network in networks.values()] for shown in (some, *moved)
        ]
        if ensemble:
            wrong.insert(-1, [_by_others(name, networks, some, answers, threat, attack) for name in networks])
        found = torch.stack([torch.stack(row) for row in wrong])
        right.append(~found[0])
        fooled.append(found[1:])
    return TransferMatrix(tuple(networks), torch.cat(right, 1), torch.cat(fooled, 2), ensemble)


def _check_takes(name: str, network: nn.Module, image: Float[Tensor, "1 c h w"]) -> None:
    try:
        with takes(network, image), frozen_eval(network) as own, torch.no_grad():
            own(image.float().to(device_of(network)))
    except ValueError as error:
        convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
        wanted = next((layer.in_channels for layer in convolutions), image.shape[1])
        if wanted == image.shape[1]:
            raise ValueError(f"the network {name!r}: {error}") from error
        raise ValueError(
            f"the network {name!r} takes images of {counted(wanted, 'channel')}, and these have "
            f"{image.shape[1]}; wanted networks that all take the same images"
        ) from error


def _by_others(
    name: str,
    networks: Mapping[str, nn.Module],
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    attack: Attack,
) -> Bool[Tensor, "n"]:
    """Which images that fool all other networks together a network misclassifies."""
    device = device_of(networks[name])
    others = Ensemble([network for other, network in networks.items() if other != name])
    moved = attack(others, images.to(device), labels.to(device), threat)
    return _wrong(networks[name], moved, labels)


def _wrong(
    network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
) -> Bool[Tensor, "n"]:
    return predict(network, images.to(device_of(network))).argmax(1).cpu() != labels.cpu()
