"""Memory of a probe: values of its subjects at the first and the last look, and the film."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from fulgurite.callbacks.framework.film import Film

LOOKS = "all looks"
"""Under this name a probe keeps a list with an entry for each of its looks."""


class Memory:
    """Values by subject, the same on every process and in the checkpoint.

    Values kept in a look can be read from the next look on. A look that fails keeps nothing. Also kept are
    the number of `looks` (that before training not counted), how many of the last ones were `failures`, and
    the `most` subjects or images to look at, where a short run cannot afford them all; less than one is a
    part of the steps that one takes.

    Args:
        film: the frames of the run; on the first process alone.
    """

    def __init__(self, film: Film):
        self.film = film
        self.first: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self.looks, self.failures = 0, 0
        self.most: float | None = None
        self._new: dict[str, Any] = {}

    def keep(self, subject: str, value: Any) -> None:
        """Keep the value of a subject; the first and the last value are kept.

        Raises:
            ValueError: it is not made of numbers, text and tensors, in lists, tuples and dicts: a checkpoint
                holds nothing else.
        """
        if (odd := _odd(value)) is not None:
            raise ValueError(
                f"{subject!r} is to be kept, but holds a {odd}; wanted numbers, text and tensors, in lists, "
                "tuples and dicts"
            )
        self._new[subject] = value

    def take_new(self) -> dict[str, Any]:
        """What this look has kept so far; it is no longer kept."""
        new, self._new = self._new, {}
        return new

    def adopt(self, new: Mapping[str, Any]) -> None:
        """Make the values that a look has kept, on any process, the last ones.

        A tensor of another shape than the first is of other images, and becomes the first.
        """
        other = {
            key: value
            for key, value in new.items()
            if isinstance(value, Tensor) and isinstance(was := self.first.get(key), Tensor)
            if was.shape != value.shape
        }
        self.first = {**new, **self.first, **other}
        self.last = {**self.last, **new}

    def state_dict(self) -> dict:
        """Everything, in plain types and tensors."""
        own = {"first": dict(self.first), "last": dict(self.last)}
        counts = {"number": self.looks, "failures": self.failures, "most": self.most}
        return {"film": self.film.state_dict(), **own, **counts}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        self.film.load_state_dict(state["film"])
        self.first, self.last = dict(state.get("first", {})), dict(state.get("last", {}))
        self.looks, self.failures = state.get("number", 0), state.get("failures", 0)
        self.most = state.get("most")


def _odd(value: object) -> str | None:
    """The first value that cannot be in a checkpoint, by the name of its type."""
    if value is None or type(value) in (bool, int, float, str, Tensor):
        return None
    inside: Iterable[object] = ()
    if type(value) in (list, tuple):
        inside = value  # pyright: ignore[reportAssignmentType]
    elif isinstance(value, dict) and type(value) is dict:
        inside = [*value, *value.values()]
    else:
        return type(value).__name__
    return next((odd for one in inside if (odd := _odd(one)) is not None), None)


def upgraded(state: Mapping) -> dict:
    """The state of a probe as it is now, from a checkpoint of any version."""
    looks, own = state.get("looks"), dict(state)
    if isinstance(looks, int):
        own.setdefault("number", looks)
    elif looks is not None:
        own.setdefault("last", {LOOKS: looks})
    if "start" in state:
        own |= {"first": state["grams"], "reference": state["start"]}
    return own
