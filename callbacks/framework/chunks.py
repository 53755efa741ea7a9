"""Chunks of several samples as the subjects of one probe, and their observations concatenated."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fulgurite.callbacks.framework.sample import Sample


def chunks_of(samples: Mapping[str, Sample]) -> Sequence[str]:
    """The chunks of all samples: of each the sample's name, a blank, and the chunk's name."""
    return [f"{name} {chunk}" for name, sample in samples.items() for chunk in sample.chunks()]


def chunk_of(samples: Mapping[str, Sample], subject: str) -> tuple[str, Sample]:
    """The name of its sample, and the images of a chunk."""
    name, chunk = subject.split(" ")
    return name, samples[name].chunk(chunk)


def joined(observations: Mapping[str, Mapping[str, Tensor]], name: str = "") -> dict[str, Tensor]:
    """The observed tensors of a sample's chunks, concatenated; of all samples without it."""
    chunks = [own for subject, own in observations.items() if not name or subject.startswith(f"{name} ")]
    return {key: torch.cat([own[key] for own in chunks]) for key in (chunks[0] if chunks else ())}
