"""The public names of Fulgurite, each loaded when it is first used, and the version."""

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import Any

PUBLIC = {
    "callbacks.activations": ["Activations"],
    "callbacks.adversarial_examples": ["AdversarialExamples"],
    "callbacks.attribution": ["Attribution"],
    "callbacks.framework.artifacts": ["Embedding", "Histogram", "Picture", "Scalar", "Table", "Text"],
    "callbacks.framework.budget": ["Budget"],
    "callbacks.class_images": ["ClassImages"],
    "callbacks.concepts": ["Concepts"],
    "callbacks.corruptions": ["Corruptions"],
    "callbacks.difficulty": ["Difficulty"],
    "callbacks.dreams": ["Dreams"],
    "callbacks.embeddings": ["Embeddings"],
    "callbacks.equivariance": ["Equivariance"],
    "callbacks.faithfulness": ["Faithfulness"],
    "callbacks.features": ["Features"],
    "callbacks.filters": ["Filters"],
    "callbacks.fooling": ["Fooling"],
    "callbacks.health": ["Health"],
    "callbacks.image_grid": ["ImageGrid"],
    "callbacks.invariance": ["Invariance"],
    "callbacks.inversions": ["Inversions"],
    "callbacks.layer_histograms": ["LayerHistograms"],
    "callbacks.layer_table": ["LayerTable"],
    "callbacks.metrics": ["Metrics"],
    "callbacks.minimal_distances": ["MinimalDistances"],
    "callbacks.neighbours": ["Neighbours"],
    "callbacks.occlusion": ["Occlusion"],
    "callbacks.patches": ["Patches"],
    "callbacks.framework.probe_callback": ["ProbeCallback"],
    "callbacks.robustness": ["Robustness"],
    "callbacks.saliency": ["Saliency"],
    "callbacks.saliency_alignment": ["SaliencyAlignment"],
    "callbacks.shape_bias": ["ShapeBias"],
    "callbacks.silent_units": ["SilentUnits"],
    "callbacks.split_accuracy": ["SplitAccuracy"],
    "callbacks.stylizer_outputs": ["Stylized"],
    "callbacks.training_influence": ["TrainingInfluence"],
    "callbacks.transfer": ["Drift", "StageProbes"],
    "callbacks.weight_average": ["WeightAverage"],
    "callbacks.worst_mistakes": ["WorstMistakes"],
    "data.digits": ["Digits"],
    "data.folder": ["Folder"],
    "models.classifier": ["Classifier"],
    "models.free_training": ["Free"],
    "models.losses": ["Adversarial", "Fast", "Trades"],
    "models.mart": ["Mart"],
    "models.networks": ["Normalise", "build", "normalised"],
    "models.noisy_training": ["Noisy"],
    "models.stylizer": ["Stylizer"],
    "models.stylizer_networks": ["StylizerNetwork", "TextureNetwork"],
    "models.weight_perturbation": ["WeightPerturbed"],
    "probes.activations.activation_maps": ["activation_maps"],
    "probes.activations.concept_discovery": ["concepts"],
    "probes.activations.layer_table": ["layer_table"],
    "probes.activations.patches": ["class_purity", "strongest_patches"],
    "probes.activations.receptive_field": ["receptive_field"],
    "probes.activations.silent_units": ["unit_activity"],
    "probes.attacks.apgd": ["apgd"],
    "probes.attacks.fab": ["fab"],
    "probes.attacks.gradient": ["fgsm", "pgd"],
    "probes.attacks.square": ["square"],
    "probes.attacks.threat": ["L1", "L2", "Linf"],
    "probes.attacks.universal": ["fooling_rate", "universal"],
    "probes.attribution.attention": ["attention_rollout"],
    "probes.attribution.backward": ["backward_rules", "deconvnet", "guided_backprop"],
    "probes.attribution.cam": ["cam", "grad_cam", "guided_grad_cam", "layer_cam", "score_cam"],
    "probes.attribution.faithfulness": ["curves", "infidelity"],
    "probes.attribution.gradient": ["gradient", "input_x_gradient", "saliency"],
    "probes.attribution.lime": ["lime"],
    "probes.attribution.localisation": ["energy_inside", "pointing_game"],
    "probes.attribution.methods": ["attribute"],
    "probes.attribution.model_randomisation": ["cascading_randomisation"],
    "probes.attribution.occlusion": ["occlusion"],
    "probes.attribution.path_gradients": ["integrated_gradients", "smoothgrad"],
    "probes.attribution.rise": ["rise"],
    "probes.attribution.show": ["show"],
    "probes.filters": ["filters_side_by_side", "render_filters"],
    "probes.style": ["drawn_in"],
    "probes.frozen_eval": ["frozen_eval"],
    "probes.feature_objectives": [
        *("diversity", "energy", "exaggeration", "gram", "gram_match", "inner_product", "likeness", "match"),
        "match_log_probabilities",
    ],
    "probes.objectives": [
        *("Objective", "channel", "channels", "class_score", "direction"),
        *("log_probability", "probability", "unit", "vector"),
    ],
    "probes.feature_extractor": ["feature_extractor", "outputs"],
    "probes.predict": ["predict"],
    "probes.record": ["record"],
    "probes.robustness.corruption_accuracy": ["corruption_accuracy"],
    "probes.robustness.corruptions.corrupt": ["corrupt"],
    "probes.robustness.evaluate": ["evaluate"],
    "probes.robustness.minimal_distances": ["minimal_distances"],
    "probes.robustness.gradient_masking": ["sanity_checks"],
    "probes.robustness.smoothing": ["Smoothed", "certify"],
    "probes.robustness.shape_bias": ["category_probabilities", "shape_answers"],
    "probes.representation.error_consistency": ["agreement"],
    "probes.representation.approximate_neighbours": ["approximate_neighbours"],
    "probes.representation.concept_vectors": ["concept_sensitivity"],
    "probes.representation.directions": ["strongest_along"],
    "probes.representation.duplicates": ["near_duplicates"],
    "probes.representation.label_errors": ["suspected_label_errors", "worst_mistakes"],
    "probes.representation.calibration": ["calibration", "fitted_temperature"],
    "probes.representation.health": ["effective_rank", "intrinsic_dimension", "neural_collapse"],
    "probes.representation.transferability": ["h_score", "log_me"],
    "probes.representation.map_quality": ["map_quality", "seams", "snapped"],
    "probes.representation.neighbours": ["knn_accuracy", "nearest_neighbours", "recall_at_k"],
    "probes.representation.equivariance": ["equivariance"],
    "probes.representation.invariance": ["invariance"],
    "probes.representation.layer_cka": ["layer_cka"],
    "probes.representation.stitching": ["stitching"],
    "probes.representation.training_influence": ["training_influence"],
    "probes.synthesis.accentuation": ["accentuate"],
    "probes.synthesis.ascend": ["ascend"],
    "probes.synthesis.canvas": ["Fourier", "PhaseOnly", "Pixels"],
    "probes.synthesis.caricature": ["caricature"],
    "probes.synthesis.class_images": ["class_images"],
    "probes.synthesis.dreams": ["deep_dream", "guided_by"],
    "probes.synthesis.features": ["feature_images"],
    "probes.synthesis.evolution": ["map_elites"],
    "probes.synthesis.fooling": ["fooled_photographs", "fooling_images"],
    "probes.synthesis.gradients": ["tiled"],
    "probes.synthesis.inversion": ["invert"],
    "probes.synthesis.lbfgs": ["lbfgs"],
    "probes.synthesis.optimizers": ["adam", "sgd"],
    "probes.synthesis.textures": ["style_transfer", "texture"],
    "probes.synthesis.watch": ["Watch"],
    "probes.task_objectives": [
        *("label_probability", "label_score", "mask_score", "output", "pixel_score"),
    ],
}
"""The public names by the module that defines them."""

_HOMES = {name: module for module, names in PUBLIC.items() for name in names}

__version__ = version("fulgurite")
__all__ = ["__version__", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        near = [] if name.startswith("_") else get_close_matches(name, _HOMES)
        of_these = f"; nearest: {', '.join(near)}" if near else ""
        raise AttributeError(f"module 'fulgurite' has no attribute {name!r}{of_these}")
    found = getattr(import_module(f"fulgurite.{_HOMES[name]}"), name)
    if not isinstance(found, type) and "probes." in _HOMES[name]:
        found = import_module("fulgurite.public").public(found)
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return [*__all__]
