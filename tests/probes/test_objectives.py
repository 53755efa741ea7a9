"""Objectives: values, sums and scales, and names that are not layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.feature_objectives import diversity, energy, gram, gram_match, inner_product, match
from fulgurite.probes.objectives import (
    Objective,
    as_list,
    channel,
    channels,
    class_score,
    direction,
    log_probability,
    pooled,
    probability,
    unit,
    vector,
)
from fulgurite.probes.record import record
from fulgurite.probes.stream import stream

LOGITS = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
MAPS = torch.arange(60.0).view(2, 3, 2, 5)
SEEN = {"": LOGITS, "maps": MAPS, "code": LOGITS}


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (class_score(1), [2, 16]),
        (class_score(torch.tensor([2, 0])), [4, 8]),
        (class_score(torch.tensor(2)), [4, 32]),
        (class_score(0, layer="maps"), [4.5, 34.5]),
        (class_score(0) + class_score(1), [3, 24]),
        (class_score(1) - class_score(0), [1, 8]),
        (2 * class_score(0), [2, 16]),
        (class_score(0) * 0.5, [0.5, 4]),
        (-class_score(0), [-1, -8]),
        (2 * (class_score(0) + channel("maps", 1)) - class_score(2), [27, 73]),
        (probability(0), F.softmax(LOGITS, 1)[:, 0].tolist()),
        (log_probability(0), F.log_softmax(LOGITS, 1)[:, 0].tolist()),
        (channel("maps", 2), [24.5, 54.5]),
        (channel("code", 2), [4, 32]),
        (unit("maps", 0), [7, 37]),
        (unit("maps", 1, row=0, column=4), [14, 44]),
        (unit("code", 1), [2, 16]),
        (direction("code", torch.tensor([1.0, 0, -1])), [-3, -24]),
        (direction("code", torch.tensor([[1.0, 0, 0], [0, 1, 0]])), [1, 16]),
        (direction("maps", torch.tensor([1.0, 0, 1])), [29, 89]),
        (match("maps", MAPS), [0, 0]),
        (match("code", torch.zeros(2, 3) + 1), [-10 / 3, -(49 + 225 + 961) / 3]),
        (energy("code"), [10.5, (64 + 256 + 1024) / 2]),
        (sum([class_score(0), class_score(1), 2 * class_score(2)]), [11, 88]),
        (unit("maps", 1, row=torch.tensor([0, 1]), column=4), [14, 49]),
        (unit("maps", torch.tensor([0, 2]), row=1, column=torch.tensor([3, 0])), [8, 55]),
        (channels("maps")[2], [24.5, 54.5]),
        ((2 * channels("code"))[1], [4, 32]),
        (vector([class_score(0), channel("maps", 2)])[1], [24.5, 54.5]),
        (inner_product("code", LOGITS), [1, 1]),
        (inner_product("code", torch.tensor([[1.0, 0, 2]])), [9 / 5, 72 / 5]),
        (gram_match("maps", gram(MAPS)), [0, 0]),
        (gram_match("code", torch.eye(3)[None]), [-134, -601217]),
    ],
)
def test_an_objective_is_the_number_worked_out_by_hand(objective, expected):
    assert_close(objective.value(SEEN), torch.tensor(expected, dtype=torch.float32))


def test_gram_matrices_are_products_of_channels_averaged_over_positions():
    expected = torch.einsum("nchw,ndhw->ncd", MAPS, MAPS) / 10
    assert_close(gram(MAPS), expected)
    assert_close(gram(LOGITS)[1], LOGITS[1, :, None] * LOGITS[1])


def test_diversity_is_minus_the_mean_cosine_with_the_others():
    codes = torch.tensor([[1.0, 0], [0, 2], [3, 3]])
    # Gram matrices of single positions: cosines are those of the codes, squared
    assert_close(diversity("code").value({"code": codes}), -torch.tensor([0.25, 0.25, 0.5]))
    assert_close(diversity("code").value({"code": codes[:1]}), torch.zeros(1))
    assert (diversity("code") + class_score(0)).couples
    assert not class_score(0).couples


def test_a_vector_valued_objective_gives_all_numbers_from_one_pass():
    assert_close(channels("maps").value(SEEN), MAPS.mean((2, 3)))
    several = vector([class_score(1), channel("maps", 0), class_score(torch.tensor([2, 0]))])
    expected = torch.stack([LOGITS[:, 1], MAPS[:, 0].mean((1, 2)), torch.tensor([4.0, 8])], 1)
    assert_close(several.value(SEEN), expected)
    rows = torch.tensor([1])
    part = {name: out[rows] for name, out in SEEN.items()}
    assert_close(several.of(rows, 2).value(part), expected[rows])
    assert_close(several[2].of(rows, 2).value(part), expected[rows, 2])
    for asked, says in (
        (lambda: as_list(several), "gives several numbers per image; pick one"),
        (lambda: several + class_score(0), "one gives several numbers per image, the other one"),
        (lambda: class_score(0)[1], "class 0 gives one number per image"),
    ):
        with pytest.raises(ValueError, match=says):
            asked()


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        (class_score(3), "class 3"),
        (class_score(torch.tensor([3, 1]), layer="conv"), "class 3, 1 at conv"),
        (log_probability(torch.arange(9)), "log-probability of class 0, 1, 2, 3, ..."),
        (class_score(3) - 0.5 * channel("layer3", 8), "class 3 - 0.5 channel 8 of layer3"),
        (2 * (class_score(0) - class_score(1)), "2 (class 0 - class 1)"),
        (unit("layer3", 4, row=1), "unit of channel 4, row 1 of layer3"),
        (channels("layer3")[2], "channels of layer3[2]"),
        (sum([energy("a"), energy("b")]), "energy of a + energy of b"),
        (Objective(frozenset(), lambda seen: seen[""]), "objective"),
    ],
)
def test_objectives_have_names(objective, name):
    assert str(objective) == name


class Blocks(nn.Module):
    """Tokens of a class token and a grid of 2 x 3 patches, as timm's networks tell them; then logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.block, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 4)
        self.patches.grid_size, self.num_prefix_tokens = (2, 3), 1

    def forward(self, images):
        tokens = self.patches(images).flatten(2).mT
        tokens = self.block(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))
        return self.head(tokens[:, 0])


def test_channels_and_units_of_tokens_are_theirs():
    network, images = Blocks(), torch.rand(2, 3, 8, 12)
    patches = network.patches(images).flatten(2).mT
    tokens = network.block(torch.cat([patches.mean(1, keepdim=True), patches], 1)).detach()
    with record(network, ["block"]) as seen, torch.no_grad():
        network(images)
    assert_close(channel("block", 5).value(seen), tokens[:, :, 5].mean(1))
    assert_close(direction("block", torch.eye(8)[6]).value(seen), tokens[:, :, 6].mean(1))
    assert_close(unit("block", 5, row=1, column=0).value(seen), tokens[:, 4, 5])
    grams = torch.einsum("ntc,ntd->ncd", tokens, tokens) / 7
    assert_close(gram_match("block", grams).value(seen), torch.zeros(2))
    assert_close(outputs(network, images, ["block"])["block"], tokens.mT)
    assert_close(match("block", tokens.mT).value(seen), torch.zeros(2))
    ((_, values),) = stream(network, images, ["block"])
    assert_close(values["block"], tokens.mean(1))
    del network.patches.grid_size
    with pytest.raises(ValueError, match=r"'block' outputs \(2, 7, 8\): tokens that lie on no grid"):
        unit("block", 5).value(seen)


def test_channels_of_maps_whose_channels_are_last_are_theirs():
    network = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), Transposed(), nn.LayerNorm(8))
    images = torch.rand(2, 3, 8, 12)
    found = outputs(network, images, ["3"])["3"]
    assert_close(found, network(images).movedim(-1, 1))
    with record(network, ["3"]) as seen, torch.no_grad():
        network(images)
    assert_close(channel("3", 5).value(seen), network(images)[..., 5].mean((1, 2)))
    assert_close(unit("3", 5, row=0, column=2).value(seen), network(images)[:, 0, 2, 5])


class Transposed(nn.Module):
    def forward(self, tokens):
        return tokens.mT.unflatten(1, (2, 3))


def test_outputs_are_those_of_the_network_in_eval_mode_some_images_at_a_time(monkeypatch):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).train()
    images, shown = torch.rand(5, 3, 6, 6), []
    network.register_forward_pre_hook(lambda _, args: shown.append(len(args[0])))
    monkeypatch.setattr("fulgurite.probes.feature_extractor.batch_size", lambda *_: 2)
    found = outputs(network, images, ["1", "0"])
    assert shown == [2, 2, 1]
    assert list(found) == ["1", "0"]
    with torch.no_grad():
        assert_close(found["1"], network[1].eval()(network[0](images)))
    assert not found["0"].requires_grad


def test_a_vector_valued_objective_streams():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(1), nn.Linear(64, 2))
    images = torch.rand(5, 3, 6, 6)
    found = torch.cat([values for _, values in stream(network, images, channels("0"), batch_size=2)], 1)
    assert_close(found, network[0](images).mean((2, 3)).T.detach())
    both = [class_score(1), channels("0")]
    found = torch.cat([values for _, values in stream(network, images, both, batch_size=2)], 1)
    assert_close(found[:1], network(images)[:, 1:].T.detach())
    assert found.shape == (5, 5)
    with pytest.raises(ValueError, match="diversity at 0 couples the images of a batch"):
        next(stream(network, images, [diversity("0")]))


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 1], [0, 0, 1, 1, 2, 2]], ids=repr)
def test_an_objective_that_couples_a_batch_is_refused_for_parts_and_copies_of_it(rows):
    asked = class_score(0) + diversity("0")
    assert asked.of(torch.tensor([2, 0, 1]), 3) is asked
    with pytest.raises(
        ValueError, match=f"couples the images of a batch; .*all 3 images at once, not {len(rows)}"
    ):
        asked.of(torch.tensor(rows), 3)


def test_a_sum_reads_the_layers_of_both():
    assert (class_score(0) + 3 * channel("maps", 1) - energy("code")).layers == {"", "maps", "code"}


def test_half_precision_maps_are_summed_in_float32():
    assert energy("maps").value({"maps": torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16)}) == 2048e4


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (class_score(3), "no class 3: there are 3, counted from 0"),
        (class_score(-1), "no class -1: there are 3"),
        (log_probability(torch.tensor([0, 5])), "no class 5: there are 3"),
        (channel("maps", 9), "no channel 9: there are 3"),
        (unit("maps", 0, row=2), "no row 2: there are 2, counted from 0"),
        (class_score(torch.tensor([0, 1, 2])), "3 class indices for 2 images"),
        (direction("maps", torch.ones(4)), r"'maps' outputs \(3,\), but \(4,\) came"),
        (match("maps", torch.ones(2, 3)), r"'maps' outputs \(3, 2, 5\), but \(2, 3\) came"),
    ],
)
def test_what_a_layer_does_not_have_is_reported(objective, says):
    with pytest.raises(ValueError, match=says):
        objective.value(SEEN)


def test_a_single_number_per_image_is_no_row_of_logits():
    with pytest.raises(
        ValueError, match=r"wanted a row of values for each image, got a tensor of shape \(4,\)"
    ):
        pooled(torch.ones(4))


def test_no_image_has_no_number():
    none = torch.zeros(0, dtype=torch.long)
    assert class_score(none).value({"": torch.ones(0, 3)}).shape == (0,)
