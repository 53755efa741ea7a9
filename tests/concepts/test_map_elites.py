"""A probe from public concepts alone: MAP-Elites, fooling images encoded directly (Nguyen et al. 2015)."""

import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.objectives import probability, vector
from fulgurite.probes.predict import predict
from fulgurite.probes.stream import stream
from fulgurite.probes.synthesis.canvas import Pixels

CLASSES, SHAPE = 10, (1, 8, 8)


def map_elites(network, shape, *, classes=CLASSES, children=60, generations=60, rate=0.1, eta=15, seed=0):
    """For each class the image found that it is most probable for, and these probabilities by generation."""
    draws = torch.Generator().manual_seed(seed)
    born, asked = (
        Pixels(torch.rand(children, *shape, generator=draws)),
        vector([*map(probability, range(classes))]),
    )
    elites, fitness, history = born.take([0] * classes), torch.full([classes], -torch.inf), []
    for _ in range(generations):
        chances = torch.cat(
            [values for _, values in stream(network, born().detach(), asked, batch_size=children)], 1
        )
        best, who = chances.max(1)
        better = (best > fitness).nonzero()[:, 0]
        elites.put(better, born.take(who[better]))
        fitness[better] = best[better]
        history.append(fitness.clone())
        born = elites.take(torch.randint(classes, [children], generator=draws))
        step = 2 * torch.rand(born().shape, generator=draws)  # polynomial mutation
        step = torch.where(step < 1, step ** (1 / (eta + 1)) - 1, 1 - (2 - step) ** (1 / (eta + 1)))
        born.set_images(born() + step * (torch.rand(step.shape, generator=draws) < rate))
        born.project()
    return elites().detach(), torch.stack(history)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, CLASSES))


def test_elites_never_get_worse_and_are_as_probable_as_the_history_says():
    net = network()
    with torch.no_grad():
        net[3].weight.mul_(8)
    elites, history = map_elites(net, SHAPE)
    assert (history.diff(dim=0) >= 0).all()
    assert_close(predict(net, elites).softmax(1).diagonal(), history[-1])
    assert (history[-1] > history[0]).all()
    assert history[-1].median() > 2 * history[0].median()
    assert elites.min() >= 0
    assert elites.max() <= 1


def test_where_each_class_asks_for_one_pixel_its_elite_has_that_pixel_white_and_the_others_black():
    net = nn.Sequential(nn.Flatten(), nn.Linear(CLASSES, CLASSES, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(6 * torch.eye(CLASSES))
    elites, history = map_elites(net, (1, 2, 5), children=200, generations=150)
    assert (elites.flatten(1) - torch.eye(CLASSES)).abs().mean() < 0.1
    most = torch.tensor([6.0, *[0.0] * 9]).softmax(0)[0]  # of the image that is best
    assert (history[-1] > 0.9 * most).all()
    assert (history[-1] <= most + 1e-6).all()


def test_the_same_seed_gives_the_same_elites():
    first, again = (map_elites(network(), SHAPE, generations=5)[0] for _ in range(2))
    assert torch.equal(first, again)
