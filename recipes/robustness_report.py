"""Robustness report of a run: attacks, curve, worst images and sanity checks on test images."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from jsonargparse import Namespace
from torch import Tensor, nn

from fulgurite.callbacks.boards.board import log_all
from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.boards.tensorboard import tensorboard
from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar, Table
from fulgurite.callbacks.framework.sample import Sample, fetch
from fulgurite.models.classifier import ATTACKS, Classifier
from fulgurite.probes.atomic import check_writable, write_atomic
from fulgurite.probes.attacks.ensembles import named, quick, standard
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.gradient_pass import FAST, PLAIN, GradientPass
from fulgurite.probes.attacks.render_attack import name_of, row, within
from fulgurite.probes.attacks.threat import THREATS, Threat, check_radius, threat_within
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.plots import line_plot
from fulgurite.probes.predict import predict
from fulgurite.probes.render import captioned, sheet
from fulgurite.probes.robustness import gradient_masking
from fulgurite.probes.robustness.evaluate import at_once, curve, evaluate
from fulgurite.probes.robustness.report import Check, Curve, Report, aligned, one_answer
from fulgurite.recipes.recipe import Recipe, classifier_of

FILE = "robustness.json"
SHARES = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2)  # of the threat's radius, for the curve
IMAGES = 256  # attacked by default
CHECKED, WORST = 128, 8  # images that the checks are made on, and that are shown


def report_robustness(
    recipe: Recipe, folder: Path, threat: Threat, *, images: int, ensemble: bool, step: int
) -> list[Check]:
    """Attack test images of a run, print the report, and save it in the run's folder.

    Prints and saves the robust accuracies after each attack and all before it, with their
    confidence intervals, per class, the radius curve, the worst-off images, and the nine checks.
    """
    network = recipe.network
    sample, part = test_images(recipe, images)
    assert sample.labels is not None
    batch = sample.images, sample.labels.to(sample.images.device)
    gradient_pass = _fastest(network, batch, threat)
    attacks = quick(threat, gradient_pass=gradient_pass)
    if ensemble:
        count, fit = predict(network, sample.images[:1]).shape[1], at_once(network, sample.images)
        attacks = standard(threat, count, gradient_pass=gradient_pass, at_once=fit)
    report = evaluate(network, *batch, threat, attacks, progress="attacks")
    radii = [share * threat.epsilon for share in SHARES]
    radius_curve = curve(network, *batch, threat, radii, progress="curve")
    few = [place * len(sample) // min(CHECKED, len(sample)) for place in range(min(CHECKED, len(sample)))]
    checks = gradient_masking.sanity_checks(network, batch[0][few], batch[1][few], threat, progress="checks")
    report = report.with_checks(checks)
    if recipe.threat is not None:
        print(f"{_above(classifier_of(recipe), recipe.threat, part)}; below, {len(sample)} of them")
    print(summary(report, radius_curve, sample, checked=len(few)))
    _save(folder, report, radius_curve, sample, step, checked=len(few))
    return checks


def test_images(recipe: Recipe, count: int | None) -> tuple[Sample, str]:
    """This many of a recipe's test images, or all, on its network's device, and the part of the data."""
    recipe.data.setup("test")
    classes = getattr(recipe.data, "classes", None) or ()
    part = getattr(recipe.data, "tested_on", "test")
    fetched = fetch(recipe.data.test_dataloader(), count, classes=classes, device=device_of(recipe.network))
    return replace(fetched, part=part), part


def threat_of(recipe: Recipe, args: Namespace) -> Threat | None:
    """The chosen threat, or the run's own; None where there is neither, or no image to attack.

    Raises:
        ValueError: it is no threat, its radius is 0 or turns any image into any other, a number of images
            below 0, or options of an attack without a radius or without images.
    """
    own = recipe.threat
    if args.images is not None and args.images < 0:
        raise ValueError(f"--images {args.images}; wanted at least 1, or 0 to attack none")
    if args.threat and not args.radius and type(own) is not THREATS[args.threat]:
        raise ValueError(f"--threat {args.threat} needs a --radius, such as 0.1 or 8/255")
    if args.images == 0:
        if options := [name for name in ("radius", "threat", "ensemble") if args[name] is not None]:
            raise ValueError(
                f"--{options[0]} {args[options[0]]} is about attacks, and --images 0 attacks none; wanted at "
                f"least --images 1, or no --{options[0]}"
            )
        return None
    if not (args.radius or own):
        if options := [name for name in ("images", "ensemble") if args[name] is not None]:
            others = ", or --minimal, --smooth or --corruptions" if options == ["images"] else ""
            raise ValueError(
                f"--{options[0]} is about attacks, and this run was not trained for a radius; wanted "
                f"a --radius as well, such as 0.1 or 8/255{others}"
            )
        return None
    kind = THREATS[args.threat] if args.threat else type(own) if own else THREATS["linf"]
    if args.radius:
        return threat_within(kind, args.radius, f"--radius {args.radius}")
    assert own is not None
    check_radius(own, f"the run's own radius {own.radius:g}, without --radius,")
    return own


def check_place(folder: Path) -> None:
    """Check that the results of `judge` can be written.

    Raises:
        OSError: it cannot.
    """
    if (folder / FILE).is_dir():
        raise IsADirectoryError(f"{folder / FILE} is a folder; the figures are to be a file there")
    for place in (folder, folder / "test", folder / "pictures"):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"{place} is not a folder; what is found is to be written into it")
        check_writable((place if place.exists() else folder) / FILE)


def summary(report: Report, radius_curve: Curve, sample: Sample, *, checked: int) -> str:
    """The report as text."""
    before, after = report.per_class("clean"), report.per_class()
    classes = [
        [sample.name(label), f"{before[label]:.4f}", f"{after[label]:.4f}"] for label in sorted(before)
    ]
    looked = f"Sanity checks (gradient masking) on {checked} of the {len(sample)} images:"
    radii = [
        [f"{r:.4g}", f"{a:.4f}"] for r, a in zip(radius_curve.radii, radius_curve.accuracies(), strict=True)
    ]
    return "\n\n".join(
        [
            report.text(),
            aligned([["class", "clean", "robust"], *classes], right=2),
            aligned([["radius", f"accuracy ({named(report.threat, 50)})"], *radii], right=1),
            f"{looked}\n{gradient_masking.table(report.checks or ())}\n{_verdict(report)}",
        ]
    )


def _verdict(report: Report) -> str:
    """A summary of the checks."""
    verdict = report.verdict()
    failed = any(not check.passed for check in report.checks or ())
    if failed and any(stage.name == "Square" for stage in report.stages):
        verdict += (
            f"; the checks are about {named(report.threat, 20)}, which gradients can mislead: go by what all "
            f"attacks leave, {report.accuracy():.4f}"
        )
    if report.unmoved is not None and (same := one_answer(report.unmoved, report.labels)):
        verdict += f"; but {same}"
    return verdict


def _above(model: Classifier, threat: Threat, part: str) -> str:
    """A line on the robust accuracy that the test has just measured."""
    attack, usual = model.attacks["test"], ATTACKS["test"]
    name = name_of(attack)
    if attack is usual and isinstance(usual, partial):
        name = named(threat, usual.keywords["steps"])
    return f"{part}/robust accuracy above is what {name} leaves of all {part} images, within {within(threat)}"


def _fastest(network: nn.Module, batch: tuple[Tensor, Tensor], threat: Threat) -> GradientPass:
    """The fast gradient pass, if the network's logits are the same with BatchNorm folded."""
    try:
        pgd(network, batch[0][:1], batch[1][:1], threat, steps=1, gradient_pass=FAST)
    except ValueError:
        return PLAIN
    return FAST


def _save(
    folder: Path, report: Report, radius_curve: Curve, sample: Sample, step: int, *, checked: int
) -> None:
    """Everything as JSON, pictures as PNG, and both on the run's board."""
    words = {
        **report.as_dict(radius_curve),
        "classes": list(sample.classes),
        "curve": {"radii": list(radius_curve.radii), "accuracies": radius_curve.accuracies()},
        "checked": checked,
    }
    write_atomic(folder / FILE, json.dumps(words, indent=2) + "\n")
    with tensorboard(folder / "test") as board:
        log_all([board, LatestPictures(folder / "pictures")], _artifacts(report, radius_curve, sample), step)


def _artifacts(report: Report, radius_curve: Curve, sample: Sample) -> dict[str, Artifact]:
    name = type(report.threat).__name__
    points = list(zip(radius_curve.radii, radius_curve.accuracies(), strict=True))
    lines = {named(report.threat, 50): points, "all attacks": [(report.threat.epsilon, report.accuracy())]}
    drawn = line_plot(
        lines,
        xlabel=f"radius ({name})",
        ylabel=f"accuracy on {len(sample)} {sample.part} images, with 95 % intervals",
        ymax=1.0,
        vline=report.threat.epsilon,
        chance=sample.chance,
        images=len(sample),
    )
    artifacts: dict[str, Artifact] = {
        "test/curve": Picture(drawn),
        "test/stages": Table(
            report.head, [*report.rows(), *([note, "", "", "", "", ""] for note in report.remarks())]
        ),
        "test/checks": Table(gradient_masking.HEAD, gradient_masking.rows(report.checks or ())),
        "test/failed checks": Scalar(float(sum(not check.passed for check in report.checks or ()))),
        **{f"test/{stage.name}": Scalar(report.accuracy(stage.name)) for stage in report.stages},
        **{f"test/at radius {radius:.4g}": Scalar(share) for radius, share in points},
    }
    worst = report.worst(WORST, radius_curve).tolist()
    if worst:
        rows = {f"image {place}": _row(report, sample, place) for place in worst}
        paper = sheet(rows, columns=["image", "difference", "attacked"])
        legend = f"least robust within {within(report.threat)}; difference: mid-grey is 0"
        artifacts["test/worst_off"] = Picture(captioned(paper, legend))
    return artifacts


def _row(report: Report, sample: Sample, place: int) -> list[Tensor]:
    image, moved = sample.images[place].cpu(), report.images[place].cpu()
    answer = sample.name(int(report.answers[place]))
    return row(
        image,
        moved,
        sample.name(int(report.labels[place])),
        f"{answer}: {float(report.confidence[place]):.0%}",
    )
