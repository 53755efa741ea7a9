"""Command: predictions of a run's network for image files, as CSV, with attribution sheets."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from jsonargparse import Namespace
from torch import Tensor

from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.cli import options
from fulgurite.cli.exported_network import from_file, is_exported
from fulgurite.cli.network_of_run import theme_of_run
from fulgurite.cli.outputs import check_writable_text
from fulgurite.cli.trained_network import TrainedNetwork, best_stage, restored
from fulgurite.cli.training_images import HEAD, TrainingImages, training_images_of
from fulgurite.data.image_files import files_below, only_images, printable
from fulgurite.probes.atomic import csv_text, write_atomic
from fulgurite.probes.attribution.map_sheets import MapRow, map_sheet
from fulgurite.probes.attribution.methods import attribute
from fulgurite.probes.averaged_views import averaged_probabilities
from fulgurite.probes.composites import composites_noted, shown_as
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import device_of
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict as logits_of
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.render import noted, stacked, titled, write
from fulgurite.probes.style import drawn_in
from fulgurite.recipes import plain_values
from fulgurite.recipes import run as runs
from fulgurite.recipes.calibration_report import temperature_of_run
from fulgurite.recipes.views_report import check_views, mirrors

SHEETS = 8  # made at once: maps take a hundred passes for each image


@dataclass
class Sheets:
    """The folder of sheets, and the training images on them, with the rows of their table."""

    folder: Path
    training: TrainingImages | None
    rows: list[list[str]] = field(default_factory=list)


def run(verb: str, words: Sequence[str]) -> int:  # noqa: ARG001
    """Write the table; 1 if some of the images could not be read, else 0."""
    args = options.for_predict("Classify images with the weights of a run, to a table of CSV.", words)
    folder = Path(args.run)
    network = None
    _check_training_images(args)
    if is_exported(folder):
        if args.checkpoint != "best":
            raise ValueError(
                f"--checkpoint {args.checkpoint}: {folder} holds one network; wanted a run for it"
            )
        network = from_file(folder, explained=args.explain)
        folder = folder.parent
    else:
        if folder.is_file():
            runs.read(folder)  # raises with the valid values
        plain_values.check_inside(folder)
    out = None if args.out == "-" else Path(args.out or folder / "predictions.csv")
    if out is not None:
        _check_place(out)
    network = network or _of_run(folder, args.checkpoint, explained=args.explain)
    files, others = _files(args.paths, network.endings)
    sheets = _sheets(args, folder, out) if args.explain else None
    top = min(args.top, len(network.classes))
    temperature = args.temperature or network.temperature or 1.0
    answer = _answer(network, args.tta, temperature)
    with drawn_in(args.theme or theme_of_run(Path(args.run))):
        rows, complaints = _rows(network, files, top, args.batch_size, sheets, answer)
    for file, complaint in complaints.items():
        print(f"left out: {printable(file)}: {complaint}", file=sys.stderr)
    if not rows:
        raise ValueError(f"none of {counted(len(files), 'image')} can be read; nothing was written")
    head = ["path", *(name for k in range(1, top + 1) for name in (f"class_{k}", f"probability_{k}"))]
    table = csv_text([head + ["sheet"] * args.explain, *rows])
    if out is None:
        print(table, end="")
    else:
        write_atomic(out, table)
    if sheets and sheets.training:
        write_atomic(sheets.folder / "training_images.csv", csv_text([HEAD, *sheets.rows]))
    lines = [f"{printable(out or 'predictions')}: {counted(len(rows), 'image')}"]
    if temperature != 1:
        lines.append(f"probabilities by temperature {temperature:.3g}")
    lines += [f"sheets in {printable(sheets.folder)}"] if sheets else []
    lines += [f"{len(complaints)} unreadable"] * bool(complaints)
    lines += [f"{others} other files in the folders passed over"] * bool(others)
    print("; ".join(lines), file=sys.stdout if out else sys.stderr)
    return int(bool(complaints))


def _of_run(folder: Path, checkpoint: str, *, explained: bool) -> TrainedNetwork:
    trained_run = runs.read(folder)
    if trained_run.recipe == "stages" and checkpoint == "best":
        return best_stage(folder, trained_run, explained=explained)
    file = runs.checkpoint(folder, checkpoint)
    return replace(restored(folder, file), temperature=temperature_of_run(folder, file))


def explain(
    args: TrainedNetwork,
    images: Float[Tensor, "n c h w"],
    probabilities: Float[Tensor, "n k"],
    places: dict[Path, Path],
    training: TrainingImages | None = None,
) -> list[list[str]]:
    """Write a sheet of attribution maps of the predicted class for each image.

    Args:
        args: the network.
        images: its inputs.
        probabilities: the predicted probabilities.
        places: where to write each sheet, and the image file of each.
        training: those of them that raised each prediction most go below the maps.

    Returns:
        Rows of a table of these training images.
    """
    guesses = probabilities.argmax(1).to(images.device)
    probe = Attribution(layer=args.layer, score_layer=args.score_layer)
    probe.check(args.network, Sample(images, guesses, args.classes, images.device))
    objective = class_score(guesses, layer=args.score_layer)
    maps = {
        name: attribute(name, args.network, images, objective, layer=args.layer) for name in probe.methods
    }
    influence = None if training is None else training.influence(images, guesses)
    rows = list[list[str]]()
    for place, (sheet, file) in enumerate(places.items()):
        guess, own = int(guesses[place]), {name: values[place] for name, values in maps.items()}
        caption = f"pred {args.classes[guess]}: {float(probabilities[place, guess]):.0%}"
        row = MapRow(images[place], own, caption).kept(224)
        sheet.parent.mkdir(parents=True, exist_ok=True)
        with shown_as(args.composite), composites_noted() as channels:
            papers = [map_sheet({printable(file.stem): row}, side=224)]
            if training is not None and influence is not None:
                papers.append(training.strip(influence[place]))
                rows += training.rows(_text(file), args.classes[guess], influence[place])
            write(titled(noted(stacked(papers), *channels), f"explained: {caption}"), sheet)
    return rows


def _check_training_images(args: Namespace) -> None:
    """Check that training images can be compared, before anything is read.

    Raises:
        ValueError: they cannot.
    """
    if (count := args.training_images) is None:
        return
    folder = Path(args.run)
    if count < 1 or not args.explain:
        what = (
            "wanted at least 1"
            if count < 1
            else "they are shown on the sheets of --explain, which is not set"
        )
        raise ValueError(f"--training_images {count}: {what}")
    if is_exported(folder):
        raise ValueError(f"--training_images: {folder} has no training images; wanted the run's folder")
    if runs.read(folder).recipe == "stages":
        raise ValueError("--training_images: a run of 'stages' trains no network; leave it out")


def _sheets(args: Namespace, folder: Path, out: Path | None) -> Sheets:
    place, count = (out or folder / "predictions.csv").with_suffix(""), args.training_images
    training = None if count is None else training_images_of(folder, args.checkpoint, count)
    return Sheets(place, training)


def _check_place(out: Path) -> None:
    if out.suffix.lower() != ".csv":
        raise ValueError(f"--out {out}; wanted a file that ends in .csv, or - for the screen")
    if out.is_dir():
        raise ValueError(f"--out {out}: is a folder")
    check_writable_text(out)


def _files(paths: Sequence[str], endings: tuple[str, ...]) -> tuple[list[Path], int]:
    """The images that are named and those in the folders, each once; and the number of other files."""
    found, others = dict[Path, None](), 0
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise ValueError(f"there is no file or folder {printable(path)}")
            found[path] = None
            continue
        files = files_below(path)
        inside = only_images(files, path, endings)
        if not inside:
            raise ValueError(f"no images in {printable(path)}; images end in {' '.join(endings)}")
        others += len(files) - len(inside)
        found |= dict.fromkeys(inside)
    return list(found), others


def _answer(network: TrainedNetwork, views: int | None, temperature: float) -> Callable[[Tensor], Tensor]:
    """Class probabilities of images, or their mean over several views."""
    if views is None:
        return lambda images: (logits_of(network.network, images) / temperature).softmax(1)
    mirror = mirrors(str(network.takes.get("framing", "whole")))
    check_views(views, mirror=mirror)
    how = {"count": views, "mirror": mirror, "temperature": temperature}
    return partial(averaged_probabilities, network.network, **how)


def _rows(
    args: TrainedNetwork,
    files: Sequence[Path],
    top: int,
    size: int,
    sheets: Sheets | None,
    answer: Callable[[Tensor], Tensor],
) -> tuple[list[list[str]], dict[Path, str]]:
    """A row of the table for each image that can be read, and the errors of others."""
    rows, complaints = list[list[str]](), dict[Path, str]()
    size = size if sheets is None else min(size, SHEETS)
    with progress_bar(label="predict", total=len(files), unit="image") as bar:
        for part, images in _in_batches(args, files, size, complaints):
            probabilities = answer(images).cpu()
            if not probabilities.isfinite().all():
                raise ValueError(f"the network answers {printable(part[0])} with numbers that are not finite")
            lines = [_row(args, file, own, top) for file, own in zip(part, probabilities, strict=True)]
            if sheets is not None:
                places = [sheets.folder / _sheet_name(len(rows) + k, file) for k, file in enumerate(part, 1)]
                by_place = dict(zip(places, part, strict=True))
                sheets.rows += explain(args, images, probabilities, by_place, sheets.training)
                lines = [[*line, _text(place)] for line, place in zip(lines, places, strict=True)]
            rows += lines
            bar.update(len(part))
    return rows, complaints


def _in_batches(
    args: TrainedNetwork, files: Sequence[Path], size: int, complaints: dict[Path, str]
) -> Iterator[tuple[list[Path], Float[Tensor, "n c h w"]]]:
    """The images that can be read, this many at a time; the others go to the complaints."""
    device = device_of(args.network)
    with ThreadPoolExecutor() as pool:
        for part in (files[start : start + size] for start in range(0, len(files), size)):
            read = dict(zip(part, pool.map(args.image, part), strict=True))
            complaints |= {file: why for file, why in read.items() if isinstance(why, str)}
            images = {file: image for file, image in read.items() if isinstance(image, Tensor)}
            if images:
                yield list(images), torch.stack(list(images.values())).to(device)


def _row(args: TrainedNetwork, file: Path, probabilities: Float[Tensor, "k"], top: int) -> list[str]:
    best = probabilities.topk(top)
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    answers = ((printable(args.classes[k]), f"{probability:.6f}") for probability, k in pairs)
    return [_text(file), *(word for answer in answers for word in answer)]


def _sheet_name(number: int, file: Path) -> str:
    # names may have 255 bytes, and a letter up to 4
    stem = printable(file.stem).replace("\\", "_").encode()[:80].decode(errors="ignore")
    return f"{number:04d}_{stem}.png"


def _text(path: Path) -> str:
    """The path in UTF-8, which other programs read; line breaks and the like are not changed."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
