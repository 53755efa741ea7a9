"""Names of the images of a sample: their files, where the data set has them, else their numbers."""

from collections.abc import Sequence

from torch.utils.data import Subset

from fulgurite.callbacks.framework.sample import Numbered, Sample


def image_names(sample: Sample) -> list[str]:
    """The file of each image, as a list `files` or `samples` of the data set names it; else its number.

    Of a `Subset`, both are those of the whole data set.
    `samples` are pairs of file and class, as torchvision's folders of images have them.
    """
    if not isinstance(sample.pixels, Numbered):
        return [str(place) for place in range(len(sample))]
    numbers = [*sample.pixels.ids]
    dataset = getattr(sample.pixels.source.loader, "dataset", None)
    while isinstance(dataset, Subset):
        dataset, numbers = dataset.dataset, [dataset.indices[number] for number in numbers]
    for holder, attribute in (
        (dataset, "files"),
        (getattr(dataset, "picture", None), "files"),
        (getattr(dataset, "read", None), "files"),
        (dataset, "samples"),
    ):
        files = getattr(holder, attribute, None)
        if isinstance(files, Sequence) and numbers and len(files) > max(numbers):
            named = [files[number] for number in numbers]
            return [str(one[0] if isinstance(one, tuple | list) else one) for one in named]
    return [str(number) for number in numbers]
