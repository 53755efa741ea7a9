"""Numbers with their nouns: 1 class, 2 classes."""


def counted(number: int, noun: str) -> str:
    """A number of things: `1 image`, `2 images`, `3 classes`, `4 patches`."""
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith(('s', 'x', 'tch', 'nch')) else 's'}"
