"""Accentuated photographs as a picture: scores before and after, and the distance at the layer nearby."""

import argparse
import sys
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli.held_interruptions import INTERRUPTED
from fulgurite.cli.inputs import class_of, feature_of
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.counted import counted
from fulgurite.probes.feature_objectives import likeness
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, noted, picture, sheet
from fulgurite.probes.representation.stages import stages
from fulgurite.probes.score_layer import check_score_layer
from fulgurite.probes.synthesis.accentuation import accentuate
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.transforms import TRANSFORMS
from fulgurite.probes.synthesis.watch import Watch


def drawn(
    args: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    labels: Sequence[str],
    images: Float[Tensor, "n c h w"],
) -> tuple[RGB, str]:
    """A row for each image: as it is, and accentuated, with the numbers of both.

    Raises:
        ValueError: the class, feature or layer does not fit the network, or several objectives.
    """
    layer = args.score_layer or ""
    layer_of(network, layer)
    check_score_layer(network, layer, (images.shape[1], images.shape[2], images.shape[3]))
    before = predict(network, images).softmax(1)
    classes = before.argmax(1)
    if args.target is not None:
        classes = classes.clone().fill_(class_of(args.target, names))
    asked = [
        (f"{option} {words}", feature_of(option, words, network))
        for option in ("channel", "unit")
        for words in getattr(args, option) or ()
    ]
    if len(asked) > 1 or (asked and args.target is not None):
        raise ValueError("several objectives at once; wanted one --target, --channel or --unit")
    objective = asked[0][1] if asked else class_score(classes, layer=layer)
    early = stages(network, images[:1]) if args.near is None else []
    near = args.near if args.near is not None else early[(len(early) - 1) // 3]
    watch = Watch("accentuate", best=True)
    knobs = {**args.knobs, "transform": TRANSFORMS[args.transform]()}
    made = accentuate(network, images, objective, near=near, watch=watch, **knobs)
    if watch.interrupted:
        print(INTERRUPTED, file=sys.stderr)
    was, now = (values_of(network, objective, shown).tolist() for shown in (images, made))
    distances = (-values_of(network, likeness(near), made, reference=images)).clamp(min=0).sqrt().tolist()
    after = predict(network, made).softmax(1)
    rows: dict[str, list[RGB]] = {}
    for place, label in enumerate(labels):
        number = int(classes[place])
        what, kind = (asked[0][0], "activation") if asked else (names[number], "score")
        lines = [[what, f"{kind} {value:.4g}"] for value in (was[place], now[place])]
        if not asked:
            for own, shares in zip(lines, (before, after), strict=True):
                own.append(f"probability {shares[place, number]:.0%}")
        lines[1].append(f"distance {distances[place]:.0%}")
        rows[label] = [
            captioned(sized(picture(image[place]), args.side), *own)
            for image, own in zip((images, made), lines, strict=True)
        ]
        print(f"{label}: {what} {was[place]:.4g} -> {now[place]:.4g}")
    legend = f"distance: of the output of {near or 'the network'} from the image's, relative to its length"
    return noted(sheet(rows, columns=["image", "accentuated"]), legend), counted(len(rows), "row")
