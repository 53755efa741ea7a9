"""Names that are similar to a misspelt one, for error messages."""

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
    """The names most like a misspelt one, as the end of an error message."""
    known = list(dict.fromkeys(known for known in names if known))
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return (
        f"nearest: {', '.join(near)}"
        if near
        else f"there are: {', '.join(known[:12])}{' ...' * (len(known) > 12)}"
    )
