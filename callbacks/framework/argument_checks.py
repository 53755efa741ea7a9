"""Checks of the arguments that all probes take."""

from collections.abc import Sequence
from numbers import Integral


def check_arguments(
    *,
    every: object,
    images: object,
    classes: object,
    label: object,
    name: object,
) -> None:
    """Check types and ranges, which nobody else does where Python is not type-checked.

    Raises:
        ValueError: one of them is not what is wanted.
    """
    if not _counts(every):
        raise ValueError(
            f"every={every!r}; wanted epochs from one run of the probe to the next, a whole number of at "
            "least 1"
        )
    if images is not None and not _counts(images):
        raise ValueError(f"images={images!r}; wanted a whole number of at least 1, or None for all")
    if classes is not None and not _are_names(classes):
        raise ValueError(f"classes={classes!r}; wanted a list of names, one for each class")
    if label is not None and (isinstance(label, bool) or not isinstance(label, str | Integral)):
        raise ValueError(f"label={label!r}; wanted the name or the number of one label of many")
    if name is not None and not (isinstance(name, str) and name):
        raise ValueError(f"name={name!r}; wanted a name to log under, or None")


def _counts(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _are_names(value: object) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return all(isinstance(one, str) for one in value)
