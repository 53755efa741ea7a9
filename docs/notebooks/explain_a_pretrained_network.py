# %% [markdown]
"""
# Explain a pretrained network

A SqueezeNet that knows the thousand classes of ImageNet looks at three photographs. Which pixels do its
answers depend on, which of the maps that say so can be believed, and what does a channel look for? On a CPU
this takes less than a minute.

Its weights, 5 MB, are downloaded by torchvision, or read from the file that the environment variable
`WEIGHTS` names. Where neither works, a network of digits takes its place: that of the notebook *Watch a
network learn*, if it was run here, or one that is trained for a few seconds.
"""

# %%
import os
from pathlib import Path

import lightning.pytorch as pl
import torch
from skimage.data import chelsea
from skimage.transform import resize
from sklearn.datasets import load_sample_images
from torchvision.models import SqueezeNet1_0_Weights

import fulgurite as fg
from fulgurite.probes.render import captioned, enlarged, grid, picture, to_pil

WEIGHTS = os.environ.get("WEIGHTS", "")  # a file; "digits" for the network of digits
STEPS = int(os.environ.get("STEPS", "96"))  # of images made for the network
SIDE = int(os.environ.get("SIDE", "224"))  # of the photographs

# %% [markdown]
"""
## Network and images

Images are in [0, 1]; the normalisation that the weights expect is put in front of the network, so that
pixels stay pixels.
"""

# %%
photographs = {"cat": chelsea(), **dict(zip(("palace", "flower"), load_sample_images().images, strict=True))}


def photograph(pixels) -> torch.Tensor:
    """The middle square of a photograph, at the size of the network."""
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = resize(pixels[top : top + side, left : left + side], (SIDE, SIDE), anti_aliasing=True)
    return torch.from_numpy(square).float().permute(2, 0, 1).clamp(0, 1)


def small_network() -> torch.nn.Module:
    """A network of digits: the first notebook's, or one that learns them now."""
    kept = Path("watch_a_network_learn") / "digits.pt"
    if kept.exists():
        return fg.build("small_vgg", classes=10, channels=1, weights=kept)
    pl.seed_everything(0, verbose=False)
    trained = fg.Classifier(fg.build("small_vgg", classes=10, channels=1), classes=10, lr=4e-3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", enable_checkpointing=False, **quiet)
    trainer.fit(trained, fg.Digits(size=32))
    return trained.network


network = None
if WEIGHTS != "digits":
    source = {"weights": WEIGHTS} if WEIGHTS else {"pretrained": True}
    try:
        network = fg.build("torchvision/squeezenet1_0", classes=1000, **source)
    except ValueError as why:
        print(f"{why}; digits take its place")
if network is not None:
    images, names = torch.stack([photograph(pixels) for pixels in photographs.values()]), [*photographs]
    classes = SqueezeNet1_0_Weights.DEFAULT.meta["categories"]
    # the scores of this network pass through a ReLU; before it they are not cut off at 0
    score_layer, channel_layer = "classifier.1", "features.9"
else:
    network, data = small_network(), fg.Digits(size=32)
    data.setup("test")
    images, labels = next(iter(data.test_dataloader()))
    images, names, classes = images[:3], [f"a {int(label)}" for label in labels[:3]], data.classes
    score_layer, channel_layer = "", "conv3"

# %% [markdown]
"""
## What does it say?
"""

# %%
probabilities = fg.predict(network, images).softmax(1)
for name, row in zip(names, probabilities, strict=True):
    best = ", ".join(
        f"{classes[place]} {row[place]:.0%}" for place in row.argsort(descending=True)[:3].tolist()
    )
    print(f"{name}: {best}")
answers = probabilities.argmax(1)

# %% [markdown]
"""
## Which pixels does the answer depend on?

All methods have one signature, `(network, images, objective)`, and give signed maps. The objective here is
the score of the answer, a class for each image; it could be a channel, a unit, or a difference of two
classes.
"""

# %%
score = fg.class_score(answers, layer=score_layer)
maps = {
    "gradient": fg.gradient(network, images, score),
    "smoothgrad": fg.smoothgrad(network, images, score, draws=max(2, STEPS // 10)),
    "guided": fg.guided_backprop(network, images, score),
    "grad_cam": fg.grad_cam(network, images, score),
    "occlusion": fg.occlusion(network, images, score, window=max(4, SIDE // 6) if SIDE > 32 else 6),
}
captions = [f"{name}: {classes[answer]}" for name, answer in zip(names, answers.tolist(), strict=True)]
fg.show(maps, images, captions=captions, side=130)

# %% [markdown]
"""
The gradient is noisy, SmoothGrad less so. Guided backpropagation is the sharpest, Grad-CAM the coarsest:
its map has the size of the last layer's. Occlusion needs no gradient at all: it hides one place after the
other.

## Which of them can be believed?

Deletion hides the pixels that a map ranks highest, and watches the probability of the answer fall;
insertion shows them alone, and watches it rise. The area under the curve should be small for deletion, and
large for insertion, compared with that of random ranks. Photographs do not survive any scattered holes, so
that deletion alone may say little: read both.
"""

# %%
generator = torch.Generator().manual_seed(0)
ranked = {name: maps[name].abs().amax(1, keepdim=True) for name in ("gradient", "smoothgrad", "guided")}
ranked |= {name: maps[name] for name in ("grad_cam", "occlusion")}  # signed: what each place adds
ranked["random"] = torch.rand(images[:, :1].shape, generator=generator)
curves = fg.curves(network, images, fg.probability(answers), ranked, steps=8, fill="mean")
for name, found in curves.items():
    print(f"{name:>12}: deletion {found.deletion.mean():.3f}, insertion {found.insertion.mean():.3f}")

# %% [markdown]
"""
## What does a channel look for?

Images that maximise the mean of a channel, for the channels of a layer that are the most active on the
first photograph.
"""

# %%
with fg.frozen_eval(network) as net, fg.record(net, [channel_layer]) as outputs:
    net(images[:1])
strongest = outputs[channel_layer].mean((0, 2, 3)).argsort(descending=True)[:4]
shape = (images.shape[1], min(SIDE, 96), min(SIDE, 96)) if images.shape[1] == 3 else tuple(images.shape[1:])
liked = fg.feature_images(
    network, fg.channel(channel_layer, strongest), shape, seeds=[0, 1, 2, 3], steps=STEPS
)
tiles = [
    captioned(enlarged(picture(image), side=160), f"channel {number}")
    for image, number in zip(liked, strongest.tolist(), strict=True)
]
to_pil(grid(tiles, columns=4, gap=4))

# %% [markdown]
"""
## And for a class?

The same for the score of the first answer, with two starts. What comes out is what the network takes for
the class, which says as much about the network as about the class.
"""

# %%
twice = answers[:1].repeat(2)
background = [0.5] * 3 if images.shape[1] == 3 else [0.0]
made = fg.class_images(
    network, twice, shape, background=background, seeds=[0, 1], layer=score_layer, steps=STEPS
)
sure = fg.predict(network, made).softmax(1)[:, answers[0]]
tiles = [
    captioned(enlarged(picture(image), side=190), f"{classes[answers[0]]} {value:.0%}")
    for image, value in zip(made, sure.tolist(), strict=True)
]
to_pil(grid(tiles, columns=2, gap=4))
