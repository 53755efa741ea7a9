"""Files of TensorBoard's embedding projector: vectors, labels and one shared sprite of thumbnails."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from google.protobuf import text_format
from jaxtyping import Float, Int
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor

from fulgurite.callbacks.framework.artifacts import Embedding
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.composites import composed
from fulgurite.probes.render import RGB, picture, write
from fulgurite.probes.style import colour, rgb

CONFIG, PASSING = "projector_config.pbtxt", ".passing.tsv"
SHEET = 8192  # pixels a side: larger sheets of thumbnails are silently not shown


def write_embedding(run: Path, embedding: Embedding, tag: str, step: int) -> None:
    """Write codes, labels and thumbnails unless an earlier step did, and an entry for the projector.

    Codes of an earlier step that were `passing` are removed with their entry, so that a run stays small.
    """
    codes, sample = embedding.codes, embedding.sample
    folder = run / "projector" / tag.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    side = min(32, SHEET // _along(len(codes)), *sample.shape[1:])
    # thumbnails after labels, and the entry last: after a kill, everything listed is complete
    if not (folder / "thumbnails.png").exists():
        write_atomic(folder / "labels.tsv", _labels(sample))
        write(thumbnails(sample, side), folder / "thumbnails.png")
    rows = ("\t".join(f"{value:.5g}" for value in row) for row in codes.tolist())
    own = folder / f"{step:08d}{PASSING if embedding.passing else '.tsv'}"
    write_atomic(own, "\n".join(rows) + "\n")
    _enter(run, folder, tag, step, own, side)
    for other in folder.glob(f"*{PASSING}"):
        if other != own:
            other.unlink(missing_ok=True)


def _enter(run: Path, folder: Path, tag: str, step: int, codes: Path, side: int) -> None:
    """Add an entry to the run's list, also as the one written last; all other entries stay.

    The projector opens on the first by name, and a bracket comes before digits.
    """
    config, last = ProjectorConfig(), f"{tag} (last:"
    if (run / CONFIG).exists():
        text_format.Parse((run / CONFIG).read_text(), config)
    gone = str(folder.relative_to(run)) + "/"
    entries = {
        entry.tensor_name: entry
        for entry in config.embeddings
        if not entry.tensor_name.startswith(last)
        and not (entry.tensor_path.startswith(gone) and entry.tensor_path.endswith(PASSING))
    }
    for name in (f"{tag} {step:08d}", f"{last} step {step})"):
        entry = type(config.embeddings.add())(tensor_name=name)
        entry.tensor_path = str(codes.relative_to(run))
        entry.metadata_path = str((folder / "labels.tsv").relative_to(run))
        entry.sprite.image_path = str((folder / "thumbnails.png").relative_to(run))
        entry.sprite.single_image_dim.extend([side, side])
        entries[name] = entry
    listed = ProjectorConfig(embeddings=[entries[key] for key in sorted(entries)])
    write_atomic(run / CONFIG, text_format.MessageToString(listed))


def _labels(sample: Sample) -> str:
    if sample.labels is None:
        return "\n".join(str(place) for place in range(len(sample))) + "\n"
    names = [" ".join(sample.name(label).split()) for label in sample.labels.tolist()]
    return "class\tlabel\n" + "".join(
        f"{n}\t{k}\n" for n, k in zip(names, sample.labels.tolist(), strict=True)
    )


def thumbnails(sample: Sample, side: int) -> RGB:
    """Row by row on a square sheet, black where there are no more; framed in the colours of their classes.

    The projector opens without colours, and no file can change that; thumbnails are shown at once.
    """
    along = _along(len(sample))
    tiles = torch.zeros(along * along, 3, side, side)
    for start in range(0, len(sample), 256):
        images = sample[start : start + 256].images.cpu()
        small = F.interpolate(images, size=side, mode="bilinear", antialias=True).clamp(0, 1)
        labels = None if sample.labels is None else sample.labels[start : start + len(images)]
        tiles[start : start + len(images)] = _framed(composed(small).expand(-1, 3, -1, -1).clone(), labels)
    sheet = (
        tiles.view(along, along, 3, side, side).permute(2, 0, 3, 1, 4).reshape(3, along * side, along * side)
    )
    return picture(sheet)


def _framed(tiles: Float[Tensor, "n 3 h w"], labels: Int[Tensor, "n"] | None) -> Float[Tensor, "n 3 h w"]:
    width = tiles.shape[-1] // 10
    if labels is None or not width:
        return tiles
    frames = torch.tensor([rgb(colour(label)) for label in labels.tolist()])[:, :, None, None] / 255
    inside = tiles[:, :, width:-width, width:-width].clone()
    tiles = frames.expand_as(tiles).clone()
    tiles[:, :, width:-width, width:-width] = inside
    return tiles


def _along(count: int) -> int:
    """Thumbnails in a row: the projector expects a square sheet."""
    return max(1, math.ceil(count**0.5))
