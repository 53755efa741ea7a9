"""Fingerprints of what features are made from: a network by its outputs and weights, data by its images."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.batches import batch_size
from fulgurite.probes.feature_extractor import feature_extractor
from fulgurite.probes.frozen_eval import device_of, frozen_eval, same_randomness
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.record import bare
from fulgurite.probes.representation.image_batches import Data, in_order

_EXAMPLES, _NOISE = 16, 8  # images of the data, at most, and of noise, that the network is run on
_AGAIN = 8  # images whose cached features are compared with the network's at each use


@dataclass(frozen=True)
class DataFingerprint:
    """A hash of all images and labels up to the end of each batch, and up to 16 images, evenly spread.

    `drawn` are up to 8 others, drawn again each time, and `places` their numbers.
    """

    after: tuple[str, ...]
    examples: Float[Tensor, "m c h w"]
    drawn: Float[Tensor, "r c h w"]
    places: tuple[int, ...]


def fingerprint_data(data: Data, *, progress: str | None = None) -> DataFingerprint:
    """A fingerprint of every image, as it is decoded and transformed, and of the labels; reads the data once.

    Raises:
        ValueError: there are no images, or they can be read only once.
    """
    if isinstance(data, Iterator):
        raise ValueError(
            "data that can be read only once cannot be recognised later; give a DataLoader, or no cache"
        )
    after, examples, count, step = list[str](), list[Tensor](), 0, 1
    drawn, rng = dict[int, tuple[int, Tensor]](), random.Random()  # of its own, and never the same
    hashed = progress_bar(_hashed(data), progress, unit="batch")
    with same_randomness(torch.device("cpu")):
        # not the seed of the pass through the network, so that random images are found out there
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002 - what other people's augmentation draws from
        random.seed(1)
        for images, _, digest in hashed:
            after.append(digest)
            for image in images:
                fits = image.shape == (examples or images)[0].shape
                if count % step == 0 and fits:
                    examples.append(image.clone())
                if (seat := count if count < _AGAIN else rng.randrange(count + 1)) < _AGAIN and fits:
                    drawn[seat] = count, image.clone()
                if len(examples) > _EXAMPLES:
                    examples, step = examples[::2], 2 * step
                count += 1
    if not examples:
        raise ValueError("no images to take features of; wanted at least one batch")
    places, others = zip(*drawn.values(), strict=True)
    return DataFingerprint(tuple(after), torch.stack(examples), torch.stack(others), places)


def unchanged(data: Data, data_fingerprint: DataFingerprint) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels, batch by batch, as long as they are those of the fingerprint.

    Raises:
        ValueError: they are not.
    """
    nothing = None, None, None
    for (images, labels, digest), expected in zip_longest(
        _hashed(data), data_fingerprint.after, fillvalue=nothing
    ):
        if images is None or labels is None or digest != expected:
            raise ValueError(
                "the data give another image each time they are read, as augmentation does; features can be "
                "kept only of images as they are: turn it off, or give no cache"
            )
        yield images, labels


def fingerprint(
    network: nn.Module,
    data_fingerprint: DataFingerprint,
    layers: Sequence[str],
    **settings: int | str | torch.dtype,
) -> str:
    """One word for features: 32 digits that depend on the network, the data, the layers, and on `settings`.

    The network is identified by all its weights and buffers, and by the layers' outputs for some images of
    the data, for noise, black and white, to the last bit: whatever changes that (code, a hook, a number that
    code reads) is another network. Rounding differs between machines and numbers of threads, and with it the
    fingerprint.

    A change of code that affects none of these images is not noticed; certainty would need every image, and
    then a cache is useless. So `features` also compares cached rows of 8 images that are drawn at each use: a
    change that affects a share p of the images is found with probability 1 - (1 - p)^8, 57 % at a tenth of
    them, and again at the next use.
    """
    digest = hashlib.sha256(f"{data_fingerprint.after[-1]} {sorted(settings.items())}".encode())
    digest.update(weights_hash(network).encode())
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(_NOISE, *data_fingerprint.examples.shape[1:], generator=generator).to(
        data_fingerprint.examples
    )
    extremes = torch.stack([torch.zeros_like(noise[0]), torch.ones_like(noise[0])])
    with frozen_eval(network) as own, torch.no_grad(), feature_extractor(own, layers) as extract:
        torch.manual_seed(0)
        for images in torch.cat([data_fingerprint.examples, noise, extremes]).split(batch_size(noise)):
            outputs = extract(images.to(device_of(own)))
            for layer in layers:
                digest.update(f"{layer} {_hash(outputs[layer])}".encode())
    return digest.hexdigest()[:32]


def weights_hash(network: nn.Module) -> str:
    """A hash of all parameters and buffers, each by its name."""
    digest = hashlib.sha256()
    for name, tensor in [*bare(network).named_parameters(), *bare(network).named_buffers()]:
        digest.update(f"{name.replace('_orig_mod.', '')} {_hash(tensor)}".encode())
    return digest.hexdigest()


def _hashed(data: Data) -> Iterator[tuple[Tensor, Tensor, str]]:
    """Images, labels, and a hash of all so far, which does not depend on the size of the batches."""
    digest = hashlib.sha256()
    for images, labels in in_order(data):
        for image, label in zip(images.cpu(), labels.tolist(), strict=True):
            digest.update(f"{label} {_hash(image)}".encode())
        yield images, labels, digest.hexdigest()


def _hash(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(values.data).hexdigest()}"
