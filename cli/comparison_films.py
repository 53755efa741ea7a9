"""Section of a report on two runs: films of probes over the epochs, animated, one run next to the other."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fulgurite.callbacks.framework.film import Film, Strip
from fulgurite.cli.comparison import Comparison
from fulgurite.cli.html_page import Section

MOST = 4
"""Probes whose films are shown."""


def films(two: Comparison) -> Section:
    """The films in the checkpoints of both, of the probes that ran in both or else in either."""
    each = [films_of(run.checkpoint) for run in two.runs]
    names = sorted({*each[0], *each[1]}, key=lambda name: (name not in each[0]) + (name not in each[1]))
    animations, damaged = {}, list[str]()
    for name in names[:MOST]:
        for place, (run, own) in enumerate(zip(two.runs, each, strict=True), 1):
            if name not in own:
                continue
            film = own[name]
            strip = None if film is None else film.strip(f"{name}, {run.title}")
            if isinstance(strip, Strip):
                animations[f"film_{place}_{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"] = strip.animation()
            else:
                damaged.append(f"{name} of {run.title}")
    text = (
        "What the probes saw before training and after each epoch that they keep, the first run first."
        if animations
        else "Neither checkpoint holds a film: no probe ran twice."
    )
    if damaged:
        text += f" Damaged, and left out: {', '.join(damaged)}."
    if left := names[MOST:]:
        text += f" There are more, of {', '.join(left)}: probe RUN writes them all."
    return Section("Over the epochs", text, animations=animations)


def films_of(checkpoint: Path) -> dict[str, Film | None]:
    """The films in a checkpoint of two looks or more, by the names of their probes; None where damaged."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    callbacks = state.get("callbacks") if isinstance(state, dict) else None
    found: dict[str, Film | None] = {}
    for key, own in (callbacks if isinstance(callbacks, dict) else {}).items():
        name = re.fullmatch(r"\w+\{'name': '(.+)'\}", str(key))
        if name and isinstance(own, dict) and "film" in own:
            film = _film(own["film"])
            if film is None or len(film.frames) > 1:
                found[name[1]] = film
    return found


def _film(state: Any) -> Film | None:
    film = Film()
    try:
        film.load_state_dict(state)
    except (KeyError, TypeError, ValueError):
        return None
    whole = len(film.frames) <= film.max_frames + 1 and all(
        isinstance(label, str) and isinstance(pictures, Mapping) and all(map(_is_file, pictures.values()))
        for _, label, pictures in film.frames
    )
    return film if whole else None


def _is_file(value: Any) -> bool:
    if isinstance(value, Mapping):  # of maps, which are checked as they are drawn
        return True
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() == 1
