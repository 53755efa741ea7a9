# %% [markdown]
"""
# Make and break a robust network

Two networks learn the same digits: one as usual, one on images that were moved against it at each step
(adversarial training). Both are then attacked. How far can they be trusted, is the measured number
reliable, and what does the training change in what they have learnt? The digits come with scikit-learn; on
a CPU it takes less than a minute.
"""

# %%
import os

import lightning.pytorch as pl
import torch

import fulgurite as fg
from fulgurite.probes.plots import line_plot
from fulgurite.probes.render import captioned, enlarged, grid, picture, to_pil
from fulgurite.probes.robustness.gradient_masking import table

EPOCHS = int(os.environ.get("EPOCHS", "8"))
SIDE = int(os.environ.get("SIDE", "16"))  # of the images, in pixels
RADIUS = float(os.environ.get("RADIUS", "1.5"))
IMAGES = int(os.environ.get("IMAGES", "200"))  # test images to attack

# %% [markdown]
"""
## Make

Within the threat, all shifts of the pixels together may have a Euclidean length of 1.5, which is that of a
short stroke. `Adversarial` finds the worst image within it by two steps of projected gradient descent
(PGD), and learns from that one: three passes where plain training needs one.
"""

# %%
threat = fg.L2(RADIUS)
data = fg.Digits(size=SIDE)


def trained(loss=None) -> torch.nn.Module:
    """The same network from the same start, trained by this loss; cross-entropy without one."""
    pl.seed_everything(0, verbose=False)
    network = fg.build("small_vgg", classes=10, channels=1)
    model = fg.Classifier(network, classes=10, loss=loss, lr=4e-3, seed=0)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    return model.network


networks = {"standard": trained(), "robust": trained(fg.Adversarial(threat, steps=2))}

# %% [markdown]
"""
## Break

The same attack, with more steps, on test images that neither network has seen. An image counts as withstood
if the attack does not change the network's answer from the right one.
"""

# %%
data.setup("test")
batches = list(data.test_dataloader())
images = torch.cat([batch[0] for batch in batches])[:IMAGES]
labels = torch.cat([batch[1] for batch in batches])[:IMAGES]


def accuracy(network: torch.nn.Module, images: torch.Tensor) -> float:
    """The share of images that are classified correctly."""
    return float((fg.predict(network, images).argmax(1) == labels).float().mean())


moved = {name: fg.pgd(network, images, labels, threat, steps=20) for name, network in networks.items()}
for name, network in networks.items():
    print(f"{name}: accuracy {accuracy(network, images):.3f}, attacked {accuracy(network, moved[name]):.3f}")

# %% [markdown]
"""
Some of the images, above as they are, below as they were moved against the standard network and against the
robust one, with the answer of the network that was attacked.
"""


# %%
def row(images: torch.Tensor, captions: list[str]) -> list[torch.Tensor]:
    """Eight images with a line under each."""
    pairs = zip(images[:8], captions, strict=False)
    return [captioned(enlarged(picture(image), side=88), caption) for image, caption in pairs]


tiles = row(images, [f"a {label}" for label in labels.tolist()])
for name, network in networks.items():
    answers = fg.predict(network, moved[name]).argmax(1).tolist()
    tiles += row(moved[name], [f"{name}: {answer}" for answer in answers])
to_pil(grid(tiles, columns=8, gap=4))

# %% [markdown]
"""
## How far?

Accuracy by the radius of the attack. The robust network pays with some of its accuracy on the images as
they are, and falls later, also beyond the radius that it was trained for (the vertical line).
"""


# %%
def under_attack(network: torch.nn.Module, radius: float) -> float:
    """The accuracy under PGD of ten steps within a radius."""
    return accuracy(network, fg.pgd(network, images, labels, fg.L2(radius), steps=10) if radius else images)


radii = [RADIUS * times for times in (0, 1 / 3, 2 / 3, 1, 4 / 3, 2)]
curves = {
    name: [(radius, under_attack(network, radius)) for radius in radii] for name, network in networks.items()
}
to_pil(
    line_plot(
        curves,
        xlabel="Euclidean length of the shift",
        ylabel="accuracy under PGD-10",
        ymax=1.0,
        vline=RADIUS,
        chance=0.1,
        images=len(images),
        title="Accuracy by radius",
    )
)

# %% [markdown]
"""
## Is the number reliable?

An attack that fails proves little: gradients may be zero, or noise may hide them. Nine checks look for
signs of that. They do not prove robustness; `fg.certify` does, of a network under noise.
"""

# %%
checks = fg.sanity_checks(networks["robust"], images[:50], labels[:50], threat, queries=50)
print(table(checks))

# %% [markdown]
"""
## What has changed in what it has learnt?

The gradient of the digit's score: orange where more light would raise it, blue where less. That of the
standard network is scattered over the image; that of the robust one is a tenth as large, and lies where
strokes are, or would make another digit.
"""

# %%
maps = {name: fg.gradient(network, images[:4], labels[:4]) for name, network in networks.items()}
fg.show(maps, images[:4], captions=[f"a {label}" for label in labels[:4].tolist()], look="signed")

# %% [markdown]
"""
And what must be done to an image so that it is taken for another digit? The first one, moved towards each
of the other digits, three times as far as in the training. The standard network is sure of noise; to fool
the robust one, the image must become the other digit. What a robust network relies on is what people see,
too.
"""

# %%
others = [digit for digit in range(10) if digit != labels[0]]
far, tiles = fg.L2(3.3 * RADIUS), []
for name, network in networks.items():
    tiles.append(captioned(enlarged(picture(images[0]), side=72), name))
    for digit in others:
        changed = fg.pgd(network, images[:1], labels[:1], far, steps=20, target=digit)
        sure = fg.predict(network, changed).softmax(1)[0, digit]
        tiles.append(captioned(enlarged(picture(changed[0]), side=72), f"{digit}: {sure:.0%}"))
to_pil(grid(tiles, columns=10, gap=4))
