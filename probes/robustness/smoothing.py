"""Randomised smoothing: predictions under noise, and certified radii (Cohen et al. 2019)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.stats import norm
from torch import Tensor, nn

from fulgurite.probes import counter_random
from fulgurite.probes.attacks.argument_checks import (
    check_counts,
    check_images,
    check_logits,
    class_numbers,
    outputs_nan,
)
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.threat import L2
from fulgurite.probes.batches import Batches
from fulgurite.probes.batches import batch_size as fitting
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.intervals import clopper_pearson
from fulgurite.probes.objectives import pooled
from fulgurite.probes.predict import predict
from fulgurite.probes.progress import progress_bar

ABSTAINS = -1
MOST_AT_ONCE = 4096  # noisy copies, where memory allows
PART = 2**26  # noise values that are drawn together


@dataclass(frozen=True, eq=False)
class Certificates:
    """The smoothed network's prediction for each image, and its certified L2 radius.

    Args:
        sigma: the noise's standard deviation.
        draws: noisy copies of each image that the radius rests on.
        alpha: the allowed probability that a radius, or a prediction, is wrong.
        labels: the true class of each image.
        answers: a class, or `ABSTAINS`.
        radii: 0 where it abstains.
    """

    sigma: float
    draws: int
    alpha: float
    labels: Int[Tensor, "n"]
    answers: Int[Tensor, "n"]
    radii: Float[Tensor, "n"]

    def abstentions(self) -> float:
        """The share of images without a prediction."""
        return float((self.answers == ABSTAINS).double().mean())

    def accuracies(self, radii: Sequence[float]) -> list[float]:
        """The certified accuracy at each radius: the share of correct predictions with a larger one."""
        right = self.answers == self.labels
        return [float((right & (self.radii > radius)).double().mean()) for radius in radii]

    def points(self, count: int = 41) -> list[tuple[float, float]]:
        """Radii up to the largest that these draws can certify, and the certified accuracies."""
        top = largest_radius(self.sigma, self.draws, alpha=self.alpha)
        radii = [top * place / (count - 1) for place in range(count)]
        return list(zip(radii, self.accuracies(radii), strict=True))

    def average_radius(self) -> float:
        """The mean certified radius, 0 for wrong predictions and abstentions."""
        return float(torch.where(self.answers == self.labels, self.radii, 0.0).mean())

    def as_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON; None for an abstention."""
        answers = [None if answer == ABSTAINS else answer for answer in self.answers.tolist()]
        return {
            "sigma": self.sigma,
            "draws": self.draws,
            "alpha": self.alpha,
            "images": len(self.labels),
            "abstentions": self.abstentions(),
            "average radius": self.average_radius(),
            "answers": answers,
            "radii": self.radii.tolist(),
            "curve": self.points(),
        }


def certify(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    sigma: float,
    *,
    draws: int = 100_000,
    selection: int = 100,
    alpha: float = 0.001,
    batch_size: int | None = None,
    progress: str | None = None,
) -> Certificates:
    """The smoothed network's prediction for each image, and the L2 radius within which it cannot change.

    The smoothed network predicts the class that the network gives most often under Gaussian noise. It is
    guessed from `selection` noisy copies; then `draws` others give a lower bound p of its probability, by
    Clopper and Pearson, and the radius sigma * inverse normal(p). Where p is not above one half, it abstains.
    Each radius is wrong with a probability of at most `alpha`. The noise of an image depends on its pixels
    and the number of the copy alone: not on batches, nor on the device. Cohen et al. 2019,
    arxiv.org/abs/1902.02918.

    The network sees pixels outside [0, 1], and must be trained with such noise to predict well: see
    `models.noisy_training`.

    Args:
        network: maps images to logits.
        images: in [0, 1], any number; copies go to where the network is.
        labels: the true class of each image.
        sigma: the noise's standard deviation, in pixels.
        draws: 100,000 certify at most 3.8115 sigma, 1,000 at most 2.46.
        selection: copies that the prediction is guessed from.
        alpha: see above.
        batch_size: copies to classify together; as many as suit the device without it.
        progress: a label for a progress bar.

    Raises:
        ValueError: noise or `alpha` out of range, counts below 1, images outside [0, 1], labels that are no
            classes, a network of one class, or one that outputs NaN.
    """
    check_sigma(sigma)
    check_counts(draws=draws, selection=selection)
    if batch_size is not None:
        check_counts(batch_size=batch_size)
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha={alpha}; wanted a probability above 0 and below 0.5, such as 0.001")
    images = check_images(images, L2(1.0))
    labels = class_numbers(labels, images, "labels")
    # before all the copies: one class is certified everywhere, and what is no class is never predicted
    check_logits(
        predict(network, images[:1].to(device_of(network))), labels.max().to(device_of(network))[None]
    )
    counts = _counts(network, images, sigma, selection, draws, batch_size, progress)
    answers = counts[0].argmax(1)
    hits = counts[1].gather(1, answers[:, None])[:, 0].tolist()
    bounds = [clopper_pearson(hit, draws, alpha=alpha) for hit in hits]
    sure = torch.tensor([bound > 0.5 for bound in bounds])
    radii = torch.tensor([_radius(sigma, bound) for bound in bounds], dtype=torch.float64)
    return Certificates(sigma, draws, alpha, labels.cpu(), torch.where(sure, answers, ABSTAINS), radii)


def largest_radius(sigma: float, draws: int, *, alpha: float = 0.001) -> float:
    """The radius where all draws give the same class: no larger one can be certified."""
    return _radius(sigma, clopper_pearson(draws, draws, alpha=alpha))


class Smoothed(nn.Module):
    """The smoothed network as a module: logarithms of the mean probabilities over noisy copies of each image.

    The noise is the same for all images and calls, so that it can be attacked by gradients. Salman et al.
    2019, arxiv.org/abs/1906.04584.

    Args:
        network: maps images to logits.
        sigma: the noise's standard deviation.
        draws: noisy copies of each image, which go through the network together.
    """

    def __init__(self, network: nn.Module, sigma: float, draws: int = 64):
        super().__init__()
        check_sigma(sigma)
        check_counts(draws=draws)
        self.network, self.sigma, self.draws = network, sigma, draws

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logarithms."""
        numbers = torch.arange(self.draws, device=images.device)
        noise = counter_random.normal(0, numbers, *images.shape[1:]).to(images)
        copies = (images[:, None] + self.sigma * noise).flatten(0, 1)
        shares = self.network(copies).log_softmax(1).unflatten(0, (len(images), self.draws))
        return shares.logsumexp(1) - math.log(self.draws)


def check_sigma(sigma: float) -> None:
    """Check that it is a standard deviation of noise.

    Raises:
        ValueError: it is none.
    """
    if not (isinstance(sigma, int | float) and 0 < sigma < math.inf):
        raise ValueError(f"sigma={sigma!r}; wanted a finite standard deviation above 0, such as 0.25")


def _counts(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    sigma: float,
    selection: int,
    draws: int,
    batch_size: int | None,
    progress: str | None,
) -> Int[Tensor, "2 n k"]:
    """How often each class is predicted, in the selection and among the draws after it."""
    device, each = device_of(network), selection + draws
    own = PerImageRandom(images).numbers.to(device)
    shape, pixels = images.shape[1:], images.to(device)
    size = batch_size or fitting(
        images, device, max_images=min(MOST_AT_ONCE, max(1, PART // images[0].numel()))
    )
    batches, found = Batches(size), dict[str, Tensor]()

    def answers(rows: slice) -> Int[Tensor, "m"]:
        places = torch.arange(rows.start, rows.stop, device=device)
        image, copy = places // each, places % each
        noise = counter_random.normal(0, own[image] + copy, *shape).to(pixels)
        logits = pooled(own_network(noise.mul_(sigma).add_(pixels[image])).float())
        if not found:
            found["counts"] = torch.zeros(2 * len(images) * logits.shape[1], dtype=torch.long, device=device)
            found["classes"] = torch.tensor(logits.shape[1])
            found["NaN"] = torch.zeros((), dtype=torch.long, device=device)
        found["NaN"] += logits.isnan().any(1).sum()
        return logits.argmax(1)

    bar = progress_bar(label=progress, total=len(images) * each, unit="noisy image")
    with frozen_eval(network) as own_network, torch.no_grad(), bar:
        for rows, classes in batches.over(len(images) * each, answers):
            places = torch.arange(rows.start, rows.stop, device=device)
            later = (places % each >= selection).long()
            cells = (later * len(images) + places // each) * int(found["classes"]) + classes
            found["counts"].scatter_add_(0, cells, torch.ones_like(cells))
            bar.update(len(places))
    if int(found["NaN"]):
        raise ValueError(outputs_nan(int(found["NaN"]), f"{len(images) * each} noisy copies"))
    return found["counts"].view(2, len(images), -1).cpu()


def _radius(sigma: float, bound: float) -> float:
    return sigma * float(norm.ppf(bound)) if bound > 0.5 else 0.0
