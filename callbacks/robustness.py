"""Accuracy under attack, the curve by radius, and sanity checks, during training."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar, Table
from fulgurite.callbacks.framework.label_sets import asking_for_label_sets
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.tasks import LABELS
from fulgurite.probes.attacks.argument_checks import (
    check_attacks,
    check_counts,
    check_images,
    check_radii,
    check_threat,
)
from fulgurite.probes.attacks.attacked_network import NoGradientError
from fulgurite.probes.attacks.ensembles import Attack, default_attack, ensemble, named
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.counted import counted
from fulgurite.probes.plots import line_plot
from fulgurite.probes.predict import predict
from fulgurite.probes.robustness.evaluate import at_once, curve, evaluate
from fulgurite.probes.robustness.gradient_masking import HEAD, Check, sanity_checks
from fulgurite.probes.robustness.gradient_masking import rows as rows_of
from fulgurite.probes.robustness.report import Curve, Report, Stage

CHUNK = 64  # images; fixed, so that rounding does not depend on the number of processes
SHARES = (0, 0.5, 1, 1.5, 2)  # of the radius, by default
CHECKS, ENSEMBLE = 300, 4000  # gradient passes, about, where images stay correct


class Expensive(NamedTuple):
    """The interval, in looks, of the expensive measurements."""

    ensemble: int | None
    curve: int | None
    checks: int | None


class ChunkResult(NamedTuple):
    """The report of a chunk of images, and which of them stay correct at each radius."""

    report: Report
    curve: Curve | None


class Robustness(ProbeCallback):
    """Accuracy clean, under attack and by radius, on up to `images` validation images; and nine checks.

    Scalars are `clean`, one for each attack, `at radius ...`, at times `ensemble`, and the number of `failed
    checks`; the radius curve is a picture; stages and checks are tables. Every attack runs on the
    images that the ones before it left correct, so that its scalar is the share that stays correct under all
    attacks so far. Of a multi-label network, an image is correct if all of its labels are.

    Args:
        threat: how far the images may be moved.
        attacks: by name, each time; PGD with 20 steps without it. The last also makes the radius curve.
        ensemble_every: runs from one with AutoAttack's standard ensemble to the next, the last run being
            one; None for none.
        curve_every: looks from one with the radius curve to the next, the last being one; None for none.
        checks_every: looks from one with sanity checks of the numbers to the next, the last being one; None
            for none.
        checked: images that the checks are made on.
        radii: of the curve; from 0 to twice the threat's radius without it.
        images: how many; None for all.
        **schedule: as for `ProbeCallback`.
    """

    tasks = LABELS
    fewer, expensive = "images", True

    def __init__(
        self,
        threat: Threat,
        *,
        attacks: Mapping[str, Attack] | None = None,
        ensemble_every: int | None = None,
        curve_every: int | None = 1,
        checks_every: int | None = 1,
        checked: int = 64,
        radii: Sequence[float | str] | None = None,
        images: int | None = 256,
        **schedule,
    ):
        super().__init__(images=images, **schedule)
        self.often = Expensive(ensemble_every, curve_every, checks_every)
        for what, number in zip(Expensive._fields, self.often, strict=True):
            if number is not None:
                check_counts(**{f"{what}_every": number})
        check_counts(checked=checked)
        check_threat(threat)
        if attacks is not None:
            check_attacks(attacks)
        self.threat = threat
        self.attacks = (
            {named(threat, 20): default_attack(threat, steps=20)} if attacks is None else dict(attacks)
        )
        self.radii = [share * threat.epsilon for share in SHARES] if radii is None else check_radii(radii)
        for radius in self.radii:
            threat.at(radius)  # raises where it is none
        self.checked = checked
        self.film.side = 480

    def check(self, network: nn.Module, sample: Sample) -> None:
        """There are labels, and images within the threat's bounds."""
        if sample.labels is None and sample.targets is None:
            raise ValueError("the validation data have no labels, so there is nothing to measure by")
        check_images(sample[:1].images, self.threat)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The sample in chunks, and the checks if they are due."""
        return [*["checks"] * self._due(self.often.checks), *sample.chunks(CHUNK)]

    def seconds_for(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> float:
        """About how long its last run takes, in which most images are correct and everything is due.

        Attacks leave out misclassified images, so that their predictions are the labels here. The curve takes
        as long as the attacks for each of its radii; checks and ensemble are known by their passes.
        """
        with asking_for_label_sets(network, sample) as own:
            started = perf_counter()
            predicted = predict(network, own.images).argmax(1).cpu()
            evaluate(network, own.images.cpu(), predicted, self.threat, self.attacks)
            attacked = perf_counter()
            images = own.images.clone().requires_grad_()
            torch.autograd.grad(network(images).sum(), images)[0].cpu()
            one_pass = perf_counter() - attacked
        checked = min(1.0, self.checked / len(sample)) * CHECKS
        passes = checked * (self.often.checks is not None) + ENSEMBLE * (self.often.ensemble is not None)
        radii = sum(radius != 0 for radius in self.radii) * (self.often.curve is not None)
        return (attacked - started) * (1 + radii) + passes * one_pass

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, ChunkResult | list[Check]]:
        """The result of each chunk, and the sanity checks."""
        return {
            name: self._checks(network, sample)
            if name == "checks"
            else self._chunk(network, sample.chunk(name, CHUNK))
            for name in subjects
        }

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """Numbers, the curve, and the tables."""
        chunks = [one for name, one in observations.items() if name != "checks"]
        report = _joined([one.report for one in chunks])
        if "checks" in observations:
            report = report.with_checks(observations["checks"])
        names = [stage.name for stage in report.stages]
        own = [name for name in ("clean", *self.attacks) if name in names]
        artifacts: dict[str, Artifact] = {name: Scalar(report.accuracy(name)) for name in own}
        if has_ensemble := len(names) > len(own):
            artifacts["ensemble"] = Scalar(report.accuracy())
        points: list[tuple[float, float]] = []
        if curves := [one.curve for one in chunks if one.curve is not None]:
            # an evaluation that had to end early in one chunk ends early for all
            shortest = min((one.radii for one in curves), key=len)
            standing = torch.cat([one.standing[: len(shortest)] for one in curves], 1)
            points = list(zip(shortest, Curve(shortest, standing).accuracies(), strict=True))
        if points:
            artifacts |= {f"at radius {radius:.3g}": Scalar(share) for radius, share in points if radius}
            lines = {list(self.attacks)[-1]: points}
            if has_ensemble:
                lines["ensemble"] = [(self.threat.epsilon, report.accuracy())]
            xlabel, ylabel = (
                f"radius in {type(self.threat).__name__}",
                f"{'exact match' if sample.task == 'multilabel' else 'accuracy'} on "
                f"{counted(len(sample), 'image')}",
            )
            artifacts["curve"] = Picture(
                line_plot(
                    lines,
                    xlabel=xlabel,
                    ylabel=f"{ylabel}, with 95 % intervals",
                    ymin=0.0,  # the same in all epochs
                    ymax=1.0,
                    vline=self.threat.epsilon,
                    chance=sample.chance,
                    images=len(sample),
                )
            )
        rows = [row[:-1] for row in report.rows()] + [[note, "", "", "", ""] for note in report.remarks()]
        artifacts["stages"] = Table(report.head[:-1], rows)
        if "checks" in observations:
            found = observations["checks"]
            artifacts["checks"] = Table(HEAD, rows_of(found))
            artifacts["failed checks"] = Scalar(float(sum(not check.passed for check in found)))
        return artifacts

    def _due(self, every: int | None) -> bool:
        """Whether a measurement of every few looks, and of the last one, is due."""
        number = self.look.number
        return every is not None and (self.look.last or (number > 0 and number % every == 0))

    def _chunk(self, network: nn.Module, part: Sample) -> ChunkResult:
        with asking_for_label_sets(network, part) as own:
            return self._of_classes(network, own)

    def _of_classes(self, network: nn.Module, part: Sample) -> ChunkResult:
        attacks = dict(self.attacks)
        if self._due(self.often.ensemble):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the report's notes say it at every look
                fit = at_once(network, part.images)
                attacks |= ensemble(self.threat, len(part.classes), at_once=fit)
        images, labels = _on_cpu(part)
        report = evaluate(network, images, labels, self.threat, attacks)
        traced = None
        if self._due(self.often.curve):
            last = list(self.attacks.values())[-1]
            try:
                traced = curve(network, images, labels, self.threat, self.radii, last)
            except NoGradientError:  # the report says so too
                traced = Curve((), torch.zeros(0, len(labels), dtype=torch.bool))
        # without the images, which would travel between processes
        return ChunkResult(replace(report, images=report.images[:, :0]), traced)

    def _checks(self, network: nn.Module, sample: Sample) -> list[Check]:
        count = min(self.checked, len(sample))
        few = sample[[place * len(sample) // count for place in range(count)]]
        with asking_for_label_sets(network, few) as own:
            return sanity_checks(network, *_on_cpu(own), self.threat)


def _on_cpu(sample: Sample) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, "n"]]:
    assert sample.labels is not None  # `check` has refused such a sample
    return sample.images.cpu(), sample.labels


def _joined(reports: Sequence[Report]) -> Report:
    """The reports of several chunks as one, with the attacks that all of them contain."""
    of = [{stage.name: stage for stage in report.stages} for report in reports]
    stages = [
        Stage(name, torch.cat([one[name].standing for one in of]), sum(one[name].seconds for one in of))
        for name in of[0]
        if all(name in one for one in of)
    ]
    labels, images, answers, confidence, unmoved = (
        torch.cat([getattr(report, name) for report in reports])
        for name in ("labels", "images", "answers", "confidence", "unmoved")
    )
    notes = dict.fromkeys(note for report in reports for note in report.notes)
    found = tuple(stages), images, answers, confidence, tuple(notes), unmoved
    none, of = (sum(counts) for counts in zip(*(one.without_gradient for one in reports), strict=True))
    return Report(reports[0].threat, labels, *found, (none, of))
