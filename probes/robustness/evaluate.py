"""Robust accuracy under a sequence of attacks, and as a curve over radii."""

import time
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import (
    are_probabilities,
    check_answers,
    check_attacks,
    check_counts,
    check_radii,
    check_threat,
)
from fulgurite.probes.attacks.attacked_network import NoGradientError, attacked
from fulgurite.probes.attacks.ensembles import FEW_CLASSES, Attack, default_attack, ensemble
from fulgurite.probes.attacks.losses import margin, misclassified
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.attacks.vanishing_gradients import masked
from fulgurite.probes.batches import Batches, batch_size
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.record import bare
from fulgurite.probes.robustness.report import Curve, Report, Stage

PROBABILITIES = (
    "the network returns probabilities; it was attacked by their logarithm, whose gradient vanishes where "
    "the network is confident: leave its softmax out"
)


def evaluate(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    attacks: Mapping[str, Attack] | None = None,
    *,
    batch_size: int | None = None,
    progress: str | None = None,
) -> "Report":
    """Robust accuracy under a sequence of attacks.

    First the clean images, then each attack in turn, only on images that the network still classifies
    correctly: an attack costs nothing where another has succeeded. One that needs a gradient where there is
    none is left out, with a note. Whether an image is misclassified is decided by the network itself, in eval
    mode and float32, not by the attack. A network that returns probabilities is attacked by their logarithm.

    The report says whether images that stay correct have a gradient at all (of 32 of them), and that the
    sanity checks were not run; `report.with_checks(sanity_checks(...))` gives their results instead.

    Args:
        network: maps images to logits.
        images: within the threat's bounds, any number; batches go to where the network is.
        labels: the true class of each image.
        threat: how far the images may be moved.
        attacks: by name; the `ensemble` without it.
        batch_size: images to attack together, which changes nothing but time, memory and rounding; without
            it, at most 256, fewer where they are large.
        progress: a label for progress bars.

    Raises:
        ValueError: no images, images outside the bounds, labels that are not classes, or an attack that
            returns something else than images within radius and bounds.
    """
    if attacks is not None:
        check_attacks(attacks)
    # an attack from outside may need gradients, in a hook of Lightning too
    with torch.inference_mode(False), torch.enable_grad():
        trial = _Trial(network, images, labels, threat, batch_size, progress)
        if attacks is None:
            attacks = ensemble(threat, trial.classes, at_once=trial.at_once)
        for name, attack in attacks.items():
            trial.run(name, attack, threat)
        return trial.report(threat)


def curve(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    threat: Threat,
    radii: Sequence[float | str],
    attack: Attack | None = None,
    *,
    batch_size: int | None = None,
    progress: str | None = None,
) -> "Curve":
    """The accuracy at each radius, from the smallest to the largest; radius 0 is the images as they are.

    An image misclassified at one radius counts as misclassified at every larger one, and is not attacked
    again. The curve ends before the first radius at which the attack needs a gradient and there is none.

    Args:
        network: maps images to logits.
        images: within the threat's bounds, any number; batches go to where the network is.
        labels: the true class of each image.
        threat: how they may be moved; its own radius does not matter.
        radii: in any order.
        attack: PGD with 50 steps without it, or under L1 APGD.
        batch_size: as for `evaluate`.
        progress: a label for progress bars.

    Raises:
        ValueError: as `evaluate`, and without radii, or without a gradient at the first of them.
    """
    check_threat(threat)
    check_attacks({"attack": default_attack(threat, steps=50) if attack is None else attack})
    threats = sorted({threat.at(radius).epsilon: threat.at(radius) for radius in check_radii(radii)}.items())
    if not threats:
        raise ValueError("no radii; wanted at least one, such as [0, 0.1, 0.2]")
    attack = default_attack(threat, steps=50) if attack is None else attack
    standing = dict[float, Bool[Tensor, "n"]]()
    with torch.inference_mode(False), torch.enable_grad():
        trial = _Trial(network, images, labels, threat, batch_size, progress)
        for radius, mine in threats:
            if radius and not trial.run(f"radius {radius:g}", attack, mine):
                break
            standing[radius] = trial.standing.clone()
    if not standing:
        raise NoGradientError("there is no gradient for the attack to follow; wanted another, such as square")
    return Curve(tuple(standing), torch.stack(list(standing.values())))


class ByLogarithm(nn.Module):
    """A network that returns probabilities, by their logarithm."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = bare(network)
        self.training = self.network.training

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logarithms of probabilities, which are logits."""
        shares = self.network(images).float()
        return shares.clamp(min=torch.finfo(shares.dtype).tiny).log()


def answers_of(
    network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"], *, batch_size: int
) -> tuple[nn.Module, Float[Tensor, "n k"]]:
    """The network, by its logarithm if it returns probabilities, and its logits.

    Raises:
        ValueError: it does not return logits for the classes of the labels.
    """
    with frozen_eval(network) as own, torch.no_grad():
        found = [own(part.to(device_of(own))) for part in images.split(batch_size)]
    if not isinstance(found[0], Tensor) or found[0].dim() != 2:
        check_answers(found[0], labels)  # raises, with what the network returned
    logits = torch.cat(found).float().to(images.device)
    if are_probabilities(logits):
        network, logits = ByLogarithm(network), logits.clamp(min=torch.finfo(logits.dtype).tiny).log()
    check_answers(logits, labels)
    return network, logits


def at_once(network: nn.Module, images: Float[Tensor, "n c h w"]) -> int:
    """The number of such images to attack together, fewer where memory might not suffice.

    At most 256 on a CPU. On a GPU four times as many: most of a search's passes wait for the launch of
    kernels, which take no longer for more images.
    """
    device = device_of(network)
    return batch_size(images, device, max_images=256 if device.type == "cpu" else 1024)


class _Trial:
    """The images of an evaluation: which are still correct, and the worst found of each."""

    def __init__(
        self,
        network: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
        threat: Threat,
        batch_size: int | None,
        progress: str | None,
    ):
        if batch_size is not None:
            check_counts(batch_size=batch_size)
        with attacked(network, images, labels, threat) as run:  # sees to images and labels
            self.images, self.labels = run.images, run.labels
        self._batches = Batches(at_once(network, images) if batch_size is None else batch_size)
        self._progress = progress
        started = time.perf_counter()
        self.network, logits = answers_of(network, self.images, self.labels, batch_size=self.at_once)
        self.classes = logits.shape[1]
        self.standing, self._unmoved = ~misclassified(logits, self.labels), logits.argmax(1)
        self._stages = [Stage("clean", self.standing.clone(), time.perf_counter() - started)]
        self._worst, self._logits, self._notes = self.images.clone(), logits, list[str]()

    @property
    def at_once(self) -> int:
        """How many images to attack together, as far as is known."""
        return self._batches.size

    def run(self, name: str, attack: Attack, threat: Threat) -> bool:
        """Attack the images that are still classified correctly; False where the attack lacks a gradient."""
        started = time.perf_counter()
        before = self.standing.clone(), self._worst.clone(), self._logits.clone()
        left = self.standing.nonzero()[:, 0]

        def attacked_part(part: slice) -> tuple[Tensor, Tensor]:
            rows = left[part]
            images, labels = (one[rows].to(device_of(self.network)) for one in (self.images, self.labels))
            moved = _within(attack(self.network, images, labels, threat), images, threat, name)
            with frozen_eval(self.network) as own, torch.no_grad():
                return moved, own(moved).float()

        label = None if self._progress is None else f"{self._progress}: {name}"
        with progress_bar(label=label, total=len(left), unit="image") as bar:
            try:
                for part, (moved, logits) in self._batches.over(len(left), attacked_part):
                    self._judge(left[part], moved.to(self.images), logits.to(self._logits))
                    bar.update(len(moved))
            except NoGradientError as error:
                self.standing, self._worst, self._logits = before
                self._notes.append(f"{name} was left out: {error}")
                return False
        self._stages.append(Stage(name, self.standing.clone(), time.perf_counter() - started))
        return True

    def report(self, threat: Threat) -> Report:
        """What was found."""
        notes = [PROBABILITIES] * isinstance(self.network, ByLogarithm) + self._notes
        if self.classes < 4 and any(stage.name == "APGD-T (margin)" for stage in self._stages):
            notes.append(FEW_CLASSES)
        confidence, answers = self._logits.softmax(1).max(1)
        found = tuple(self._stages), self._worst, answers, confidence
        none = masked(self.network, self.images, self.labels, self.standing, batch_size=self.at_once)
        return Report(threat, self.labels, *found, tuple(notes), self._unmoved, none)

    def _judge(
        self, rows: Int[Tensor, "m"], moved: Float[Tensor, "m c h w"], logits: Float[Tensor, "m k"]
    ) -> None:
        labels = self.labels[rows]
        fooled = misclassified(logits, labels)
        worse = fooled | (margin(logits, labels) > margin(self._logits[rows], labels))
        self._worst[rows[worse]], self._logits[rows[worse]] = moved[worse], logits[worse]
        self.standing[rows[fooled]] = False


def _within(
    moved: object, images: Float[Tensor, "m c h w"], threat: Threat, name: str
) -> Float[Tensor, "m c h w"]:
    """The images of an attack, if they are within radius and bounds up to rounding, which is removed."""
    if not isinstance(moved, Tensor) or moved.shape != images.shape:
        got = str(tuple(moved.shape)) if isinstance(moved, Tensor) else type(moved).__name__
        raise ValueError(f"the attack {name!r} returned {got}; wanted images of shape {tuple(images.shape)}")
    moved = moved.detach().to(images)
    low, high = threat.limits(images)
    least = 2**-22 * max(1.0, float(images.abs().max()))  # some roundings of a pixel
    allowed = threat.epsilon * (1 + 1e-5) + threat.length(torch.full_like(images[:1], least))
    distances = threat.distance(moved, images)
    far = ~(distances <= allowed)  # NaN is far
    out = ~((moved >= low - least) & (moved <= high + least)).flatten(1).all(1)
    if far.any():
        raise ValueError(
            f"the attack {name!r} moved {int(far.sum())} of {counted(len(images), 'image')} out of reach: by "
            f"{float(distances[far].max()):.4g}, where the radius is {threat.epsilon:.4g}"
        )
    if out.any():
        raise ValueError(
            f"the attack {name!r} moved {int(out.sum())} of {counted(len(images), 'image')} out of the "
            f"bounds {threat.bounds}"
        )
    return threat.bounded(moved)
