"""Feed-forward style transfer: one pass per photograph, trained on your own photographs."""

from pathlib import Path

import lightning.pytorch as pl
import torch

from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.stylizer_outputs import Stylized
from fulgurite.data.crops import uncropped
from fulgurite.data.decoding import read_image
from fulgurite.data.photographs import Photographs
from fulgurite.models.networks import build, classes_and_channels
from fulgurite.models.stylizer import Stylizer
from fulgurite.models.stylizer_networks import LEAST, StylizerNetwork, TextureNetwork
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.synthesis.textures import content_layer_of, style_layers_of
from fulgurite.recipes.recipe import Recipe, do_weights_follow


def recipe(
    *,
    path: str = "photographs",
    style: str = "style.jpg",
    judge: str = "torchvision/vgg16",
    judge_weights: str | None = None,
    content_layer: str | None = None,
    style_layers: str | None = None,
    kind: str = "johnson",
    width: int = 16,
    weight: float = 10.0,
    tv: float = 1.0,
    size: int = 256,
    style_size: int = 256,
    val_share: float = 0.05,
    epochs: int = 2,
    lr: float = 1e-3,
    batch_size: int = 4,
    workers: int = 0,
    every: int = 1,
    budget: float | None = None,
    seed: int = 0,
) -> Recipe:
    """Train feed-forward style transfer on a folder of photographs, and watch it at each epoch.

    `fulgurite stylize PHOTOGRAPHS --weights runs/stylize/0/checkpoints/best.ckpt` then stylizes files and
    folders in one pass each. The paper uses 80,000 photographs and two epochs; a few thousand are enough.

    Args:
        path: a folder of photographs, in any folders below it.
        style: an image of the style.
        judge: the network whose features are content and style, torchvision/NAME or timm/NAME.
        judge_weights: its weights; published ones without it.
        content_layer: of the judge; the stage in the middle without it, none for kind=texture.
        style_layers: of the judge, with commas; all stages but the last without it.
        kind: johnson, which stylizes photographs; or texture, which makes textures of noise.
        width: channels of the first convolution: 32 in the paper, 16 in its released networks.
        weight: of the style, the content having 1.
        tv: of the smoothness.
        size: side of the square crops.
        style_size: the long side that the style image is resized to: the larger, the larger its strokes.
        val_share: of the photographs, to validate on.
        epochs: passes over the photographs.
        lr: of Adam.
        batch_size: photographs in a step.
        workers: loading processes.
        every: epochs from one run of the probes to the next; 0 for none.
        budget: the share of the training time that probes may take; no limit without it.
        seed: of weights, crops, order and split.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    if every < 0:
        raise ValueError(
            f"every={every}; wanted epochs from one run of the probes to the next, or 0 for none"
        )
    if kind not in ("johnson", "texture"):
        raise ValueError(f"kind={kind!r}; wanted johnson or texture")
    if size < LEAST:
        raise ValueError(f"size={size}; wanted at least {LEAST} pixels")
    if not Path(style).expanduser().is_file():
        raise ValueError(f"style={style!r}: there is no such file; wanted an image of the style")
    if not 1 <= style_size <= 4096:
        raise ValueError(f"style_size={style_size}; wanted a number of pixels, from 1 to 4096")
    data = Photographs(
        path, size=size, val_share=val_share, batch_size=batch_size, workers=workers, seed=seed
    )
    weights = None if judge_weights is None else Path(judge_weights).expanduser()
    classes, channels = (1000, 3) if weights is None else classes_and_channels(judge, weights)
    network = build(
        judge,
        classes=classes,
        channels=channels,
        pretrained=weights is None and not do_weights_follow(),
        weights=weights,
    )
    image = uncropped(style_size)(read_image(Path(style).expanduser(), channels=3))[None]
    if content_layer is None:
        content_layer = "" if kind == "texture" else content_layer_of(network, image)
    layers = style_layers.split(",") if style_layers else style_layers_of(network, image)
    wanted = dict.fromkeys([*layers, content_layer] if content_layer else layers)
    # unknown layers and too small crops are refused before training
    outputs(network, torch.zeros(1, 3, size, size), list(wanted))
    torch.manual_seed(seed)
    model = Stylizer(
        StylizerNetwork(width=width) if kind == "johnson" else TextureNetwork(width=max(1, width // 2)),
        network,
        image,
        content_layer=content_layer,
        style_layers=layers,
        weight=weight,
        tv=tv,
        lr=lr,
    )
    probes = [] if every == 0 else [Stylized(every=every, budget=_budget(budget))]
    return Recipe(model, data, epochs, probes, monitor="val/likeness")


def _budget(share: float | None) -> Budget | None:
    return None if share is None else Budget(share)
