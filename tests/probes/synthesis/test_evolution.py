"""MAP-Elites with both encodings: elites never get worse; graphs stay graphs however they mutate."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.predict import predict
from fulgurite.probes.synthesis.evolution import map_elites
from fulgurite.probes.synthesis.evolved_cppn import INPUTS, LARGEST, EvolvedCPPN, mutated

CLASSES, SHAPE = 10, (1, 8, 8)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, CLASSES))
    with torch.no_grad():
        net[3].weight.mul_(8)
    return net


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["direct", "cppn"])
def test_elites_never_get_worse_and_match_the_history(encoding):
    net = network()
    found = map_elites(net, SHAPE, encoding=encoding, children=60, generations=60)
    assert (found.history.diff(dim=0) >= 0).all()
    assert (found.history.median(1).values.diff() >= 0).all()
    assert_close(predict(net, found.images).softmax(1).diagonal(), found.probabilities, rtol=1e-4, atol=1e-5)
    assert (found.history[-1] > found.history[0]).any()
    assert found.history[-1].median() > 1.5 * found.history[0].median()
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    again = map_elites(net, SHAPE, encoding=encoding, children=60, generations=60)
    assert torch.equal(found.images, again.images)


def test_where_each_class_asks_for_one_pixel_its_elite_has_that_pixel_white_and_the_others_black():
    net = nn.Sequential(nn.Flatten(), nn.Linear(CLASSES, CLASSES, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(6 * torch.eye(CLASSES))
    found = map_elites(net, (1, 2, 5), encoding="direct", children=200, generations=150)
    assert (found.images.flatten(1) - torch.eye(CLASSES)).abs().mean() < 0.1
    most = torch.tensor([6.0, *[0.0] * 9]).softmax(0)[0]  # of the image that is best
    assert (found.probabilities > 0.9 * most).all()
    assert (found.probabilities <= most + 1e-6).all()


def test_mutation_is_small_mostly_bounded_and_of_the_share_asked_for():
    values = torch.full((100, 1000), 0.5)
    found = mutated(values, torch.Generator().manual_seed(0), rate=0.1)
    changed = found != values
    assert 0.095 < changed.float().mean() < 0.105
    # of eta = 15: half of the changes are below 1 - 2 ** (-1 / 16)
    assert abs((found - values)[changed].abs().median() - (1 - 2 ** (-1 / 16))) < 2e-3
    assert_close(mutated(values, torch.Generator().manual_seed(0), rate=0.0), values)


def test_graphs_grow_read_only_what_is_before_them_and_keep_their_weights_in_range():
    draws, canvas = torch.Generator().manual_seed(0), EvolvedCPPN((3, 6, 9), range(50), hidden=6)
    first = canvas()
    assert first.shape == (50, 3, 6, 9)
    for _ in range(60):
        canvas.mutate(draws)
        nodes = canvas.weights[:, :6, INPUTS:]
        assert (nodes.triu() == 0).all()
        silent = canvas.active == 0
        assert (canvas.weights[:, :6][silent] == 0).all()
        assert (canvas.weights[:, :, INPUTS:].movedim(2, 1)[silent] == 0).all()
        assert canvas.weights.abs().max() <= LARGEST
    assert canvas.active.sum(1).mean() > 2
    made = canvas()
    assert made.min() >= 0
    assert made.max() <= 1
    assert (made - first).abs().mean() > 0.05


def test_a_graph_depends_on_its_seed_not_on_its_batch():
    both, one = EvolvedCPPN((3, 5, 7), [3, 8]), EvolvedCPPN((3, 5, 7), [8])
    assert_close(both()[1:], one())
    taken = both.take([1])
    assert_close(taken(), one())
    both.put([0], taken)
    assert_close(both()[:1], one())


def test_a_graph_of_one_linear_output_is_a_ramp():
    canvas = EvolvedCPPN((1, 4, 4), [0], hidden=2)
    with torch.no_grad():
        canvas.weights.zero_()
        canvas.functions.fill_(3)
        canvas.weights[0, 2] = torch.tensor([0.5, 0, 0, 0.5, 0, 0])
    expected = (torch.tensor([-0.75, -0.25, 0.25, 0.75]) + 1) / 2
    assert_close(canvas()[0, 0], expected.expand(4, 4))


@pytest.mark.parametrize(
    "wrong", [{"children": 0}, {"generations": 0}, {"rate": 0.0}, {"encoding": "dna"}, {"eta": 0.0}]
)
def test_what_makes_no_generation_is_refused(wrong):
    with pytest.raises(ValueError, match="wanted"):
        map_elites(network(), SHAPE, **wrong)
