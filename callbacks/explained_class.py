"""The class that maps explain: the true one, the predicted one, both, or one class for all images."""

from fulgurite.callbacks.framework.captions import maps_of
from fulgurite.callbacks.framework.sample import Sample

BY_IMAGE = ("true", "predicted", "both")
"""Classes that depend on the image."""


def one_class(targets: int | str, sample: Sample) -> int | None:
    """The class that is explained of all images; None where it depends on the image.

    Raises:
        ValueError: there is none of this name or number.
    """
    if targets in BY_IMAGE:
        return None
    names, many = [*sample.classes], len(sample.classes)
    if isinstance(targets, str) and targets in names:
        return names.index(targets)
    if isinstance(targets, int) and not isinstance(targets, bool) and 0 <= targets < (many or targets + 1):
        return targets
    known = f"a class by number or name ({', '.join(names[:10])})" if names else "the number of a class"
    raise ValueError(f'targets={targets!r}; wanted "true", "predicted", "both", or {known}')


def explained_in_words(targets: int | str, sample: Sample, *, film: bool = False) -> str:
    """A line on whose maps these are; a film shows the first of both."""
    number = one_class(targets, sample)
    if number is not None:
        return f"maps of {sample.name(number)}"
    if targets == "both" and not film:
        return maps_of(sample, "both")
    return maps_of(sample, "predicted" if targets == "predicted" else "true", film=film)
