"""The standard (not adversarially trained) counterpart of a robust recipe's network."""

import torch
import torch.nn.functional as F
from torch import nn

from fulgurite.models.classifier import warm_cosine
from fulgurite.recipes.recipe import Recipe, classifier_of


def standard_baseline(recipe: Recipe) -> nn.Module:
    """The recipe's network after plain training, without a trainer: for small networks and data."""
    model, data = classifier_of(recipe), recipe.data
    network = model.network.train()
    data.setup("fit")
    loader = data.train_dataloader()
    steps = recipe.epochs * len(loader)
    optimizer = torch.optim.AdamW(network.parameters(), model.lr, weight_decay=model.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    for _ in range(recipe.epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()
    return network.eval()
