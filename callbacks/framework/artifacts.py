"""What a probe can log to boards: pictures, scalars, histograms, tables, texts, embeddings, graphs."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.activations.module_graph import GraphNode
from fulgurite.probes.render import RGB, encoded


@dataclass(frozen=True)
class Picture:
    """A picture, 8-bit RGB."""

    pixels: RGB

    def animation(self) -> bytes | None:
        """The bytes of a GIF of what it shows side by side, for boards that are folders; if there is any."""
        return None

    def encoded(self) -> bytes:
        """The bytes of its file: PNG where it is small or has few colours, JPEG where that is too large."""
        some = self.pixels.flatten(1)[:, :: max(1, self.pixels[0].numel() // 2**14)]
        drawn = self.pixels[0].numel() <= 2**20 or some.unique(dim=1).shape[1] <= 2**10
        return encoded(self.pixels, how="PNG" if drawn else "JPEG")


@dataclass(frozen=True)
class Scalar:
    """A number."""

    value: float | Float[Tensor, ""]


@dataclass(frozen=True)
class Histogram:
    """Many numbers; boards leave out those that are not finite."""

    values: Float[Tensor, "..."]

    def finite(self) -> Float[Tensor, "n"]:
        """The finite ones, on the CPU."""
        values = self.values.detach().float().flatten()
        return values[values.isfinite()].cpu()


@dataclass(frozen=True)
class Table:
    """Rows of text under a head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join("| " + " | ".join(line) + " |" for line in cells)


@dataclass(frozen=True)
class Text:
    """Lines of text as they are, such as a traceback."""

    lines: str


@dataclass(frozen=True)
class Embedding:
    """Codes of a sample's images, at most fifty numbers for each; `passing` where the next replace them."""

    codes: Float[Tensor, "n d"]
    sample: Sample
    passing: bool = False


@dataclass(frozen=True)
class Graph:
    """The modules of a network, and whose outputs are the inputs of each."""

    nodes: Sequence[GraphNode]


Artifact = Picture | Scalar | Histogram | Table | Text | Embedding | Graph
