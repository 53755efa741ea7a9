"""Distances and times of minimal-distance attacks, on digits.

python -m benchmarks.minimal_attacks [--quick] [--threads N]

Of 128 of scikit-learn's digits (8 x 8 pixels) and a standard network. The bars are the medians that others'
implementations reached on such a network: foolbox's DDN with 100 steps 0.553, its DeepFool 0.570, its Carlini
& Wagner with 5 x 100 steps 0.596.

Then the robust accuracy by radius, computed from the distances of all 450 test images, compared with that
under PGD-50 from five starts at the same radii; bar: at most 2 points apart at each of five. In Linf by FMN,
and by FAB, which tries nine classes, of the first 150.
"""

import argparse
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn

from benchmarks.attacks import digits, trained
from benchmarks.timing import show
from fulgurite.models.losses import Plain
from fulgurite.probes.attacks.carlini_wagner import carlini_wagner
from fulgurite.probes.attacks.ddn import ddn
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.minimal import MINIMAL, Minimal, found_distances
from fulgurite.probes.attacks.threat import THREATS
from fulgurite.probes.robustness.evaluate import curve
from fulgurite.probes.robustness.minimal_distances import minimal_distances

BARS = {"DDN, 100 steps": 0.553, "DeepFool": 0.570, "C&W, 5 x 100 steps": 0.596}
CURVES = [("l2", "ddn", 450), ("linf", "fmn", 450), ("linf", "fab", 150)]
"""Norms, attacks that their curves are by, and of how many images."""
OTHER_NORMS = {"deepfool": ["linf"], "fmn": ["linf", "l1"], "fab": ["linf", "l1"]}


def curve_rows(network: nn.Module, images: Tensor, labels: Tensor, norm: str, name: str) -> list[list]:
    """Robust accuracy at five radii, by minimal distances and by attacks at each."""
    threat = THREATS[norm]
    found = minimal_distances(network, images, labels, norm, name)
    radii = found.values[found.values > 0].quantile(torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])).tolist()
    attack = partial(pgd, steps=50, restarts=5, drop=True)
    attacked = curve(network, images, labels, threat(radii[0]), radii, attack).accuracies()
    return [
        [norm, name, radius, 100 * mine, 100 * theirs, 100 * (mine - theirs)]
        for radius, mine, theirs in zip(radii, found.accuracies(radii), attacked, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="those with a bar alone")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train, test = digits()
    network, images, labels = trained(Plain(), train), test[0][:128], test[1][:128]
    attacks: dict[str, tuple[Minimal, str]] = {
        "DDN, 100 steps": (partial(ddn, steps=100), "l2"),
        "DeepFool": (MINIMAL["deepfool"], "l2"),
        "C&W, 5 x 100 steps": (partial(carlini_wagner, searches=5, steps=100), "l2"),
    }
    if not args.quick:
        attacks |= {name: (MINIMAL[name], "l2") for name in ("fmn", "szegedy", "fab")}
        attacks |= {
            f"{name}, {norm}": (MINIMAL[name], norm) for name, norms in OTHER_NORMS.items() for norm in norms
        }
    rows: list[list] = []
    for name, (attack, norm) in attacks.items():
        started = perf_counter()
        found = found_distances(network, images, labels, attack(network, images, labels, norm), norm)
        share = 100 * float(found.isfinite().float().mean())
        rows.append([name, float(found.median()), BARS.get(name, "-"), share, perf_counter() - started])
    show("Minimal distances on 128 digits", ["attack", "median", "bar", "found %", "s"], rows)
    show(
        "Robust accuracy on 450 digits (by FAB 150) by radius, in percent; bar: at most 2 points apart",
        ["norm", "by", "radius", "by distances", "PGD-50 x 5", "points apart"],
        [
            row
            for norm, name, count in CURVES
            for row in curve_rows(network, test[0][:count], test[1][:count], norm, name)
        ],
    )


if __name__ == "__main__":
    main()
