"""Commands on a finished run: validate, test, and run all its probes."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from fulgurite.cli import options
from fulgurite.cli.lightning_messages import hush
from fulgurite.cli.loaded_run import recipe_of_run
from fulgurite.cli.network_of_run import theme_of_run
from fulgurite.cli.start_errors import progress, starting
from fulgurite.cli.trainer_options import make_trainer
from fulgurite.data.image_files import printable
from fulgurite.probes.style import drawn_in
from fulgurite.recipes import (
    calibration_report,
    corruptions_report,
    difficulty_report,
    minimal_report,
    mistakes_report,
    robustness_report,
    smoothing_report,
    views_report,
)

ABOUT = {
    "validate": "Loss and accuracy on the validation images.",
    "test": "Loss, accuracy, calibration and robustness on the test images.",
    "probe": "All probes of a run once more, on its checkpoint; the pictures are written as PNG too.",
}

OF_TEST = (
    "--radius",
    "--threat",
    "--images",
    "--ensemble",
    "--minimal",
    "--smooth",
    "--draws",
    "--corruptions",
    "--tta",
    "--mistakes",
    "--difficulty",
)
"""Options of what is measured on test images."""


def run(verb: str, words: Sequence[str]) -> int:
    """Validate, test or probe the weights of a run."""
    hush()
    others = [word for word in words if word.partition("=")[0] in OF_TEST]
    if others and verb != "test":
        raise ValueError(f"{verb} has no {others[0]}; wanted test RUN {others[0]}")
    args = options.for_look(verb, ABOUT[verb], words)
    if args.theme is None:
        args.theme = theme_of_run(Path(args.run))
    with drawn_in(args.theme):
        return _run(verb, args)


def _run(verb: str, args: Namespace) -> int:
    folder = Path(args.run)
    checkpoint, recipe = recipe_of_run(folder, args.checkpoint, probes=verb == "probe")
    logger: TensorBoardLogger | bool = False
    if verb == "probe":
        logger = TensorBoardLogger(folder / "probe", name="", version="")
        for probe in recipe.probes:
            probe.pictures = folder / "pictures"
    own = {"enable_autolog_hparams": False, **args.trainer}  # the run has its own
    trainer = make_trainer(logger=logger, callbacks=list(recipe.probes) if logger else [], **own)
    action = trainer.test if verb == "test" else trainer.validate
    # has its step, too; other files are only weights
    at = progress(checkpoint)
    ours = checkpoint if at else None
    threat, norm, sigma = None, None, None
    if verb == "test":
        norm, sigma = minimal_report.norm_of_run(recipe, args), smoothing_report.sigma_of(args)
        corruptions_report.check_options(args)
        others = args.minimal or sigma is not None or args.corruptions
        threat = robustness_report.threat_of(recipe, args) if args.radius or not others else None
    corrupted = verb == "test" and args.corruptions
    if threat is not None or norm is not None or sigma is not None or corrupted:
        robustness_report.check_place(folder)
    if verb == "test" and args.tta is not None:
        mirror = views_report.mirrors(getattr(recipe.data, "framing", "whole"))
        views_report.check_views(args.tta, mirror=mirror)
    if verb == "test" and args.mistakes:
        mistakes_report.check_places(folder)
    if verb == "test" and args.difficulty:
        difficulty_report.check_places(folder)
    if verb == "test":
        calibration_report.check_places(folder)
    with starting(trainer, ours):
        found = action(recipe.model, recipe.data, ckpt_path=ours, weights_only=True)
    step, many = at[1] if at else 0, args.get("images") or robustness_report.IMAGES
    device = trainer.strategy.root_device
    if verb == "test" and found and trainer.is_global_zero:
        calibrated = calibration_report.report_calibration(recipe, device=device)
        if calibrated is not None:
            calibrated.write(folder)
            rank_zero_info(calibrated.line())
    if norm is not None and trainer.is_global_zero:
        minimal_report.report_distances(recipe, folder, args.minimal, norm, images=many, step=step)
    if sigma is not None and trainer.is_global_zero:
        smoothing_report.report_certificates(recipe, folder, sigma, draws=args.draws, images=many, step=step)
    if corrupted and trainer.is_global_zero:
        corruptions_report.report_corruptions(recipe, folder, images=many, step=step)
    if threat is not None and trainer.is_global_zero:
        whole = args.ensemble is not False
        robustness_report.report_robustness(recipe, folder, threat, images=many, ensemble=whole, step=step)
    made = {
        minimal_report.FILE: norm is not None,
        smoothing_report.FILE: sigma is not None,
        corruptions_report.FILE: corrupted,
        robustness_report.FILE: threat is not None,
    }
    if files := [file for file, is_made in made.items() if is_made]:
        where = printable(folder / "pictures")
        rank_zero_info(f"all figures in {printable(folder)}: {', '.join(files)}; pictures in {where}")
    if verb == "test" and args.tta is not None and trainer.is_global_zero:
        print(views_report.report_views(recipe, args.tta))
    if verb == "test" and args.mistakes and trainer.is_global_zero:
        print(mistakes_report.report_mistakes(recipe, folder))
    if verb == "test" and args.difficulty and trainer.is_global_zero:
        print(difficulty_report.report_difficulty(recipe, folder))
    if verb == "probe":
        if any(probe.film.theme not in (None, args.theme) for probe in recipe.probes):
            rank_zero_info("films keep the theme that the run was trained with")
        rank_zero_info(f"pictures in {printable(folder / 'pictures')}")
    return 0
