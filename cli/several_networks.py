"""Command: the same probe of several networks, their pictures side by side."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from fulgurite.cli.network_of_run import is_run
from fulgurite.cli.outputs import title_of, write_picture
from fulgurite.probes.counted import counted
from fulgurite.probes.render import RGB, captioned, grid

ABOUT = """

--network takes several with commas to compare networks, and {} one for each, in the same order."""


def check_counts(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Check that these options are given once for each network, or not at all.

    Raises:
        ValueError: they are not.
    """
    for name in names:
        if (given := getattr(args, name)) is not None and len(given) != len(args.network):
            times, networks = counted(len(given), "time"), counted(len(args.network), "network")
            filled = [*given, *["..."] * len(args.network)][: len(args.network)]
            example = " ".join(f"--{name} {one}" for one in filled)
            raise ValueError(
                f"--{name} is given {times} for {networks}; wanted once for each, in their order: {example}"
            )


def each_network(args: argparse.Namespace, names: Sequence[str]) -> Iterator[tuple[str, argparse.Namespace]]:
    """The arguments of each network, with its own value of these options, by its title.

    Of a run no weights are named: nothing stands between its commas.
    """
    for place, network in enumerate(args.network):
        own = {name: None if (given := getattr(args, name)) is None else given[place] for name in names}
        if own.get("weights") == Path() and is_run(network):
            own["weights"] = None
        title = network if args.network.count(network) == 1 else f"{network} ({place + 1})"
        yield title, argparse.Namespace(**{**vars(args), **own, "network": network})


def side_by_side(pictures: Mapping[str, RGB]) -> RGB:
    """The picture of each network over its name; a single one without."""
    if len(pictures) == 1:
        return next(iter(pictures.values()))
    named = [captioned(pixels, name) for name, pixels in pictures.items()]
    return grid(named, columns=len(named), gap=8)


def answer(
    args: argparse.Namespace,
    names: Sequence[str],
    draw: Callable[[argparse.Namespace], tuple[RGB, str]],
) -> None:
    """Write the picture that `draw` makes for each network, with its summary of the last.

    Ctrl-C ends it with the networks so far.
    """
    pictures, summary = dict[str, RGB](), ""
    for title, own in each_network(args, names):
        if len(args.network) > 1:
            print(f"{title}:")
        pictures[title], summary = draw(own)
        if args.presses:
            break
    many = f"{len(pictures)} networks, " if len(pictures) > 1 else ""
    write_picture(side_by_side(pictures), args.out, many + summary, title=title_of(args))
