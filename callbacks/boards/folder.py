"""A plain folder as a board: PNG, CSV and JSON files; and a folder of the latest picture under each tag."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fulgurite.callbacks.framework.artifacts import (
    Artifact,
    Embedding,
    Graph,
    Histogram,
    Picture,
    Scalar,
    Table,
    Text,
)
from fulgurite.probes.atomic import csv_text, write_atomic
from fulgurite.probes.render import write

BINS = 64
SCALARS = "scalars.csv"


@dataclass
class Folder:
    """Every artifact of a run as a file.

    Scalars are rows of `scalars.csv`: step, tag, value; where a resumed run has written a step twice, the
    later row is valid. Every other artifact is a file, named by tag and step:
    `pictures/Saliency/00000120.png`. Next to the strip of a film is a GIF:
    `pictures/Saliency/film/00000120.gif`.
    """

    folder: Path

    def log(self, artifacts: Mapping[str, Artifact], step: int) -> None:
        """Write a file for each, and a row for each scalar.

        Raises:
            OSError: the disk is full.
        """
        rows = []
        for tag, artifact in artifacts.items():
            if isinstance(artifact, Scalar):
                rows.append([step, tag, float(artifact.value)])
            elif isinstance(artifact, Picture):
                write_picture(artifact, self._file("pictures", tag, step, "png"))
            else:
                kind, suffix, content = as_text(artifact)
                write_atomic(self._file(kind, tag, step, suffix), content)
        if rows:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / SCALARS
            head = [] if file.exists() else [["step", "tag", "value"]]
            with file.open("a", newline="") as out:
                out.write(csv_text([*head, *rows]))

    def where(self) -> str:
        """Its path."""
        return f"what the probes see is in {self.folder}, as PNG, CSV and JSON"

    def _file(self, kind: str, tag: str, step: int, suffix: str) -> Path:
        folder = self.folder / kind / file_name(tag)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{step:08d}.{suffix}"


@dataclass
class LatestPictures:
    """The latest picture under each tag, as PNG; nothing else is written."""

    folder: Path

    def log(self, artifacts: Mapping[str, Artifact], step: int) -> None:
        """Write the pictures among them.

        Raises:
            OSError: the disk is full.
        """
        for tag, artifact in artifacts.items():
            if isinstance(artifact, Picture):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_picture(artifact, self.folder / f"{file_name(tag, '_')}.png")

    def where(self) -> str:
        """Its path."""
        return f"pictures in {self.folder}"


def write_picture(picture: Picture, path: Path) -> None:
    """Write a picture, and next to it a GIF of its animation, if it has one.

    Raises:
        OSError: the disk is full.
    """
    write(picture.pixels, path)
    if (animation := picture.animation()) is not None:
        write_atomic(path.with_suffix(".gif"), animation)


def as_text(artifact: Histogram | Table | Text | Embedding | Graph) -> tuple[str, str, str]:
    """Its kind, the suffix of a file and the text in it: CSV or JSON."""
    if isinstance(artifact, Table):
        return "tables", "csv", csv_text([artifact.head, *artifact.rows])
    if isinstance(artifact, Text):
        return "texts", "txt", artifact.lines.rstrip("\n") + "\n"
    if isinstance(artifact, Embedding):
        return "embeddings", "csv", csv_text(embedding_rows(artifact))
    if isinstance(artifact, Graph):
        return "graphs", "json", json.dumps([asdict(node) for node in artifact.nodes], indent=1) + "\n"
    return "histograms", "json", json.dumps(histogram_of(artifact)) + "\n"


def histogram_of(artifact: Histogram) -> dict[str, object]:
    """Counts of the finite numbers in equal bins, the edges between the bins, and their mean."""
    values = artifact.finite().double()
    if not len(values):
        return {"number": 0, "mean": None, "counts": [], "edges": []}
    counts, edges = torch.histogram(values, BINS)
    return {
        "number": len(values),
        "mean": float(values.mean()),
        "counts": counts.long().tolist(),
        "edges": edges.tolist(),
    }


def embedding_rows(artifact: Embedding) -> list[list[object]]:
    """A head; then of each image its number in the sample, the name of its class, and its code."""
    labels = artifact.sample.labels
    names = [""] * len(artifact.codes)
    if labels is not None:
        names = [artifact.sample.name(label) for label in labels.tolist()]
    head: list[object] = ["image", "class", *(f"x{axis}" for axis in range(artifact.codes.shape[1]))]
    rows = enumerate(zip(names, artifact.codes.tolist(), strict=True))
    return [head, *([place, name, *code] for place, (name, code) in rows)]


def file_name(tag: str, slash: str = "/") -> str:
    """A tag as a path below a folder, whatever class or layer it names."""
    parts = [re.sub(r"[^\w .=+-]", "_", part).strip(". ") or "_" for part in tag.split("/")]
    return slash.join(parts)
