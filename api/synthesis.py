"""Images made for a network: the methods, and what they are built of, in one place.

Canvases are where images begin, priors and `after` steps restrain them, transforms move them at each step,
optimisers climb, and objectives say what is to rise; `ascend` puts them together.
"""

from importlib import import_module
from typing import Any

import fulgurite

NAMES = {
    "class images": {
        "probes.synthesis.class_images": ["class_images", "simonyan"],
        "probes.synthesis.class_image_methods": [
            *("mahendran", "yosinski", "maco", "robust", "METHODS", "Regularisers", "YOSINSKI"),
        ],
    },
    "other methods": {
        "probes.synthesis.features": ["feature_images", "strongest", "values_of"],
        "probes.synthesis.inversion": ["invert", "Inversion", "LOG_PROBABILITIES"],
        "probes.synthesis.caricature": ["caricature"],
        "probes.synthesis.accentuation": ["accentuate"],
        "probes.synthesis.dreams": ["deep_dream", "guided_by"],
        "probes.synthesis.textures": ["style_transfer", "texture"],
        "probes.synthesis.fooling": ["fooled_photographs", "fooling_images"],
        "probes.synthesis.evolution": ["map_elites"],
    },
    "the ascent": {
        "probes.synthesis.ascend": ["ascend"],
        "probes.synthesis.gradients": ["tiled", "whole"],
        "probes.synthesis.watch": ["Watch"],
    },
    "canvases": {
        "probes.synthesis.canvas": ["Fourier", "PhaseOnly", "Pixels", "magnitude_spectrum"],
        "probes.synthesis.cppn": ["CPPN"],
        "probes.synthesis.colours": ["colour_matrix"],
    },
    "priors": {"probes.synthesis.priors": ["bounded_range", "l2", "total_variation"]},
    "after each step": {
        "probes.synthesis.after_step": [
            *("blur", "clamp", "clip_small_contributions", "clip_small_norms", "decay", "within"),
        ],
    },
    "transforms": {
        "probes.synthesis.transforms": [
            *("TRANSFORMS", "affine", "chain", "identity", "jitter", "lucid", "noise", "padding"),
            *("random_crops", "scaling"),
        ],
    },
    "optimisers": {
        "probes.synthesis.optimizers": [
            *("adam", "sgd", "constant_rate", "cosine_decay", "linear_decay"),
            *("as_it_is", "unit_gradient", "unit_length", "unit_mean"),
        ],
        "probes.synthesis.lbfgs": ["lbfgs"],
    },
    "objectives": {
        "probes.objectives": [
            *("Objective", "channel", "class_score", "direction", "log_probability", "probability", "unit"),
        ],
        "probes.feature_objectives": [
            *("diversity", "energy", "exaggeration", "gram_match", "inner_product", "likeness", "match"),
            "match_log_probabilities",
        ],
    },
}
"""The names by kind, and by the module that defines them."""

_HOMES = {name: module for kind in NAMES.values() for module, names in kind.items() for name in names}

__all__ = ["NAMES", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fulgurite.synthesis' has no attribute {name!r}")
    if name in fulgurite.__all__:
        return globals().setdefault(name, getattr(fulgurite, name))
    found = getattr(import_module(f"fulgurite.{_HOMES[name]}"), name)
    if callable(found) and not isinstance(found, type):
        found = import_module("fulgurite.public").public(found)
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return [*__all__]
