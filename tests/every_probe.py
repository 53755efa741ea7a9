"""One of every probe callback, for tables over all of them."""

from collections.abc import Sequence

import somebody
import torch
from torch.utils.data import TensorDataset

from fulgurite.callbacks.activations import Activations
from fulgurite.callbacks.adversarial_examples import AdversarialExamples
from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.concepts import Concepts
from fulgurite.callbacks.corruptions import Corruptions
from fulgurite.callbacks.difficulty import Difficulty
from fulgurite.callbacks.dreams import Dreams
from fulgurite.callbacks.embeddings import Embeddings
from fulgurite.callbacks.equivariance import Equivariance
from fulgurite.callbacks.faithfulness import Faithfulness
from fulgurite.callbacks.features import Features
from fulgurite.callbacks.filters import Filters
from fulgurite.callbacks.fooling import Fooling
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.health import Health
from fulgurite.callbacks.image_grid import ImageGrid
from fulgurite.callbacks.invariance import Invariance
from fulgurite.callbacks.inversions import Inversions
from fulgurite.callbacks.layer_histograms import LayerHistograms
from fulgurite.callbacks.layer_table import LayerTable
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.minimal_distances import MinimalDistances
from fulgurite.callbacks.neighbours import Neighbours
from fulgurite.callbacks.occlusion import Occlusion
from fulgurite.callbacks.patches import Patches
from fulgurite.callbacks.robustness import Robustness
from fulgurite.callbacks.saliency import Saliency
from fulgurite.callbacks.saliency_alignment import SaliencyAlignment
from fulgurite.callbacks.shape_bias import ShapeBias
from fulgurite.callbacks.silent_units import SilentUnits
from fulgurite.callbacks.split_accuracy import SplitAccuracy
from fulgurite.callbacks.training_influence import TrainingInfluence
from fulgurite.callbacks.transfer import Drift, StageProbes
from fulgurite.callbacks.worst_mistakes import WorstMistakes
from fulgurite.probes.attacks.threat import Linf

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


def others(size: int) -> TensorDataset:
    """Other images than those that are validated on, of the same size, in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.rand(15, 3, size, size, generator=generator), torch.arange(15) % 3)


class Conflicts(TensorDataset):
    """Images that say which class their texture is of."""

    def cue_labels(self, indices: Sequence[int]) -> torch.Tensor:
        return (self.tensors[1][list(indices)] + 1) % 3


def conflicts(size: int) -> Conflicts:
    return Conflicts(*others(size).tensors)


def every_probe(size: int = 12) -> list[ProbeCallback]:
    """Each is right for three classes, and images of three channels and this size."""
    kinds = (Filters, Saliency, SaliencyAlignment, Attribution, Occlusion, Embeddings, Metrics)
    return [
        *(kind(on_error="raise", **SCALE) for kind in kinds),
        AdversarialExamples(Linf(0.05), images=4, on_error="raise", **SCALE),
        Robustness(Linf(0.05), images=4, checks_every=9, on_error="raise", **SCALE),
        Corruptions(["gaussian_noise", "contrast"], strengths=[3], images=4, on_error="raise", **SCALE),
        MinimalDistances(steps=4, images=4, on_error="raise", **SCALE),
        *(kind(on_error="raise", **SCALE) for kind in (Drift, StageProbes, Activations, SilentUnits)),
        ClassImages(steps=4, on_error="raise", **SCALE),
        Features(steps=4, on_error="raise", **SCALE),
        Inversions(steps=4, on_error="raise", **SCALE),
        Dreams(steps=2, octaves=1, images=2, on_error="raise", **SCALE),
        Fooling(steps=4, on_error="raise", **SCALE),
        LayerHistograms(on_error="raise", **SCALE),
        LayerTable(on_error="raise", **SCALE),
        Concepts(count=3, on_error="raise", **SCALE),
        Difficulty(on_error="raise", **SCALE),
        TrainingInfluence(training=12, images=3, on_error="raise", **SCALE),
        WorstMistakes(on_error="raise", **SCALE),
        Health(on_error="raise", **SCALE),
        Invariance(["hflip", "shift2"], images=8, on_error="raise", **SCALE),
        Equivariance(["vflip"], kernels=[1], images=8, fitted=8, every=1, on_error="raise", **SCALE),
        ImageGrid(images=64, on_error="raise", **SCALE),
        Neighbours(k=3, on_error="raise", **SCALE),
        Patches(k=4, on_error="raise", **SCALE),
        SplitAccuracy({"others": others(size)}, on_error="raise", **SCALE),
        ShapeBias(conflicts(size), on_error="raise", **SCALE),
        Faithfulness(steps=3, images=6, on_error="raise", **SCALE),
    ]
