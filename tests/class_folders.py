"""Folders of synthetic images by class, for tests."""

from PIL import Image


def painted(path, colour="red", size=(40, 30), mode="RGB", **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **how)


def fill(path, classes=("ants", "bees"), images=10):
    for number, name in enumerate(classes):
        for index in range(images):
            painted(path / name / f"{index}.png", colour=(100 * number, 10 * index, 50))
    return path
