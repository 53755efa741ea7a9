# %% [markdown]
"""
# Watch a network learn

A small CNN learns to tell handwritten digits apart. Before the first step and after each epoch, probes look
at it: which pixels a prediction depends on, what the network thinks each digit looks like, and where images
lie in the space of its features. The digits come with scikit-learn; nothing is downloaded, and it takes
less than a minute on a CPU.
"""

# %%
import os
from pathlib import Path

import lightning.pytorch as pl
import torch
from PIL import Image

import fulgurite as fg

EPOCHS = int(os.environ.get("EPOCHS", "8"))
IMAGES = int(os.environ.get("IMAGES", "0")) or None  # of each digit to train on; all without it
STEPS = int(os.environ.get("STEPS", "64"))  # of each class image
SIDE = int(os.environ.get("SIDE", "32"))  # of the images, in pixels
FOLDER = Path("watch_a_network_learn")

pl.seed_everything(0, verbose=False)

# %% [markdown]
"""
## Data, network, probes

`Digits` gives images in [0, 1], as all of this library wants them; training images are moved a little and
get some noise. `small_vgg` is a network of three convolutions that ends in a hidden layer that still knows
where things are; any `nn.Module` from images to logits would do.
"""

# %%
data = fg.Digits(size=SIDE, noise=0.6, per_class=IMAGES)
network = fg.build("small_vgg", classes=10, channels=1)

# %% [markdown]
"""
Each probe is a Lightning callback. With `pictures` the newest picture of each is also a file, which a cell
can show; with a TensorBoard logger all of them would be on TensorBoard, at each epoch.
"""

# %%
probes = [
    fg.Saliency(images=8, pictures=FOLDER),
    fg.ClassImages(steps=STEPS, pictures=FOLDER),
    fg.Embeddings(images=128, pictures=FOLDER),
    fg.Metrics(pictures=FOLDER),
]

# %% [markdown]
"""
## Training

This is ordinary Lightning. The probes change nothing in the training: the weights at the end are the same,
bit for bit, as without them.
"""

# %%
trainer = pl.Trainer(
    max_epochs=EPOCHS,
    callbacks=probes,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    default_root_dir=FOLDER,
)
trainer.fit(fg.Classifier(network, classes=10, lr=4e-3), data)
accuracy = float(trainer.callback_metrics["val/accuracy"])
print(f"validation accuracy after {EPOCHS} epochs: {accuracy:.3f}")

# %% [markdown]
"""
## What does the network think a digit looks like?

Each image below was made by gradient ascent: it maximises the score of one digit. Columns are epochs, from
the untrained network on the left, whose images are noise, to the last one.
"""

# %%
Image.open(FOLDER / "ClassImages_film.png")

# %% [markdown]
"""
## Which pixels does a prediction depend on?

The size of the gradient of the class score: bright where a change of the pixel changes the score most. All
maps have one scale, so that those of different images can be compared. Gradients of a network that was
trained as usual are noisy; other methods smooth them, and adversarial training does (the third notebook).
"""

# %%
Image.open(FOLDER / "Saliency.png")

# %% [markdown]
"""
## Are the classes apart?

The features before the classifier, of 128 validation images, laid out in the plane by t-SNE. A good network
has a cluster for each digit; a digit in another one's cluster is one to look at.
"""

# %%
Image.open(FOLDER / "Embeddings_tsne.png")

# %% [markdown]
"""
## What is confused with what?

Rows are true digits, columns predicted ones.
"""

# %%
Image.open(FOLDER / "Metrics_confusion.png")

# %% [markdown]
"""
## The mistakes

Callbacks are thin: what they show are functions that take any network and any images. Here are test images
that the network gets wrong (or, where there are none, those that it is least sure of), with the evidence
for its answer and for the true digit.
"""

# %%
data.setup("test")
images, labels = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
probabilities = fg.predict(network, images).softmax(1)
own = probabilities[torch.arange(len(labels)), labels]
worst = own.argsort()[:4]
answers = probabilities[worst].argmax(1)
maps = {
    "for the answer": fg.occlusion(network, images[worst], answers),
    "for the label": fg.occlusion(network, images[worst], labels[worst]),
}
captions = [f"true {label}, predicted {answer}" for label, answer in zip(labels[worst], answers, strict=True)]
fg.show(maps, images[worst], captions=captions)

# %% [markdown]
"""
Orange marks what raises the score: hiding it would lower the score; blue marks what speaks against it.

The network is kept for the next notebook.
"""

# %%
torch.save(network.state_dict(), FOLDER / "digits.pt")
