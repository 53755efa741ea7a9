"""What a shortcut does to accuracy and attribution maps: recipe shortcut, with and without, on three seeds.

python -m benchmarks.shortcut [--quick]

Trains two networks for each seed, and prints accuracy on images with and without the shortcut, the shape bias
of cue conflicts, the pointing game and the share of the attribution on the shape.
At last, in how many of the six classes the planted cue is the first component of the class score.
"""

import argparse
import time
from collections import defaultdict

import torch
from torch import Tensor, nn

from fulgurite.data.scenes import Drawn
from fulgurite.data.shapes import Shapes
from fulgurite.models.classifier import Classifier
from fulgurite.probes.attribution.localisation import energy_inside, pointing_game
from fulgurite.probes.attribution.methods import attribute, importance
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.representation.class_components import class_components, class_weights, codes_and_logits
from fulgurite.probes.robustness.shape_bias import shape_bias
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.shortcut import data_of, occlusion_of, recipe
from fulgurite.recipes.standard_baseline import standard_baseline

METHODS = {"occlusion": occlusion_of(32), "grad_cam": {}, "guided_backprop": {}, "input_x_gradient": {}}
SHORTCUTS = (0.0, 0.95)


def trained(shortcut: float, seed: int, epochs: int, images: int) -> tuple[nn.Module, Recipe]:
    made = recipe(shortcut=shortcut, seed=seed, epochs=epochs, images=images, every=0)
    assert isinstance(made.model, Classifier)
    return standard_baseline(made), made


def answers(network: nn.Module, part: Drawn) -> tuple[Tensor, Tensor]:
    images, labels, *_ = part.scenes(range(len(part)))
    return predict(network, images), labels


def measured(network: nn.Module, made: Recipe, images: int) -> dict[str, float]:
    data = made.data
    assert isinstance(data, Shapes)
    found = {}
    for name, part in {"with": data.val, "without": data.test}.items():
        assert isinstance(part, Drawn)
        logits, labels = answers(network, part)
        found[f"accuracy {name} shortcut"] = float((logits.argmax(1) == labels).float().mean())
    if data.shortcut:
        logits, labels = answers(network, data.conflict)
        cues = data.conflict.cue_labels(range(len(data.conflict)))
        found["shape bias"] = float(shape_bias(logits, labels, cues))
    assert isinstance(data.val, Drawn)
    scenes = data.val.scenes(range(images))
    found["shape's share of the image"] = float(scenes.masks.float().mean())
    for name, knobs in METHODS.items():
        maps = importance(name, attribute(name, network, scenes.images, class_score(scenes.labels), **knobs))
        found[f"{name}: pointing"] = float(pointing_game(maps, scenes.masks).nanmean())
        found[f"{name}: on the shape"] = float(energy_inside(maps, scenes.masks).nanmean())
    return found


def classes_by_cue(network: nn.Module, seed: int) -> float:
    """In how many classes the planted cue is the first component of the class score.

    So it is where the first component tells images with the cue from those without best of four, with a
    probability of at least 3/4.
    """
    part = data_of(SHORTCUTS[1], images=2000, held_out=300, size=32, seed=seed).parts()[0]
    images, labels, *_ = part.scenes(range(1200))
    cues = part.cue_labels(range(1200))
    classifier, weights = class_weights(network, images)
    codes, _ = codes_and_logits(network, images, classifier)
    first = 0
    for label, row in enumerate(weights):
        own = labels == label
        scores, has = class_components(codes[own], row, count=4).scores(codes[own]), cues[own] == label
        # the probability that an image with the cue has more of a component than one without
        areas = (scores[has][:, None] > scores[~has][None]).float().mean((0, 1))
        first += int(areas.argmax() == 0 and areas[0] > 0.75)
    return float(first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, five epochs")
    quick = parser.parse_args().quick
    seeds, epochs = (range(1), 5) if quick else (range(3), 15)
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for seed in seeds:
        for shortcut in SHORTCUTS:
            started = time.perf_counter()
            network, made = trained(shortcut, seed, epochs, 1000 if quick else 2000)
            if shortcut:
                found["classes whose first component is the cue, of 6", shortcut].append(
                    classes_by_cue(network, seed)
                )
            for name, value in measured(network, made, 40 if quick else 100).items():
                found[name, shortcut].append(value)
            print(f"seed {seed}, shortcut {shortcut}: {time.perf_counter() - started:.0f} s", flush=True)
    print(f"\n| mean and spread (standard deviation) of {len(seeds)} seeds | no shortcut | shortcut 0.95 |")
    print("|---|---|---|")
    for name in dict.fromkeys(name for name, _ in found):
        cells = [cell(found.get((name, shortcut), [])) for shortcut in SHORTCUTS]
        print(f"| {name} | {' | '.join(cells)} |")


def cell(values: list[float]) -> str:
    if not values:
        return ""
    own = torch.tensor(values)
    return f"{own.mean():.3f} ± {own.std() if len(own) > 1 else 0.0:.3f}"


if __name__ == "__main__":
    main()
