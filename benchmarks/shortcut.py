"""The effect of a shortcut on accuracy and attribution maps: recipe shortcut, with and without, three seeds.

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


def first_by_cue(network: nn.Module, seed: int, *, images: int = 1200, held_out: int = 600) -> list[bool]:
    """For each class, whether the planted cue is the first component of its score.

    Components are those of training images. Held-out images show which of them the cue is: some of the class
    with its texture, some with another one's (`conflict`). It is the first if the first component has more of
    the texture's effect on the score than any other, and more than half of it, and if that component is
    larger with the texture than without, for three of four pairs of images.
    """
    data = data_of(SHORTCUTS[1], images=images, held_out=held_out, size=32, seed=seed)
    train, val, _ = data.parts()
    parts = (
        train.scenes(range(len(train))),
        val.scenes(range(held_out)),
        data.conflict.scenes(range(held_out)),
    )
    classifier, weights = class_weights(network, parts[0].images)
    codes, with_cue, without = (codes_and_logits(network, part.images, classifier)[0] for part in parts)
    labels, val_labels, conflict_labels = (part.labels for part in parts)
    shown = val.cue_labels(range(held_out)) == val_labels
    first = list[bool]()
    for label, row in enumerate(weights):
        components = class_components(codes[labels == label], row)
        present = components.scores(with_cue[shown & (val_labels == label)])
        absent = components.scores(without[conflict_labels == label])
        added = present.mean(0) - absent.mean(0)
        separation = (present[:, None, 0] > absent[None, :, 0]).float().mean()
        first.append(bool(added.argmax() == 0 and added[0] > added.sum() / 2 > 0 and separation > 0.75))
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, five epochs")
    quick = parser.parse_args().quick
    seeds, epochs = (range(1), 5) if quick else (range(3), 25)
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for seed in seeds:
        for shortcut in SHORTCUTS:
            started = time.perf_counter()
            network, made = trained(shortcut, seed, epochs, 1000 if quick else 2000)
            if shortcut:
                found["classes whose first component is the cue, of 6", shortcut].append(
                    float(sum(first_by_cue(network, seed)))
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
