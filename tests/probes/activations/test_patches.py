"""Strongest patches: those of all positions of all images; boxes hold what a unit sees."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch
from processes import in_two_processes
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import Dataset

from fulgurite.probes.activations.patches import Patch, class_purity, labels_of, strongest_patches
from fulgurite.probes.activations.render_patches import render_patch, render_patches
from fulgurite.probes.activations.top_responses import top_responses
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.render import picture

IMAGES = torch.rand(50, 3, 17, 19, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(50) % 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 64, 5, 2), nn.ReLU(inplace=True)
    deeper = nn.Conv2d(64, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
    return nn.Sequential(*first, *deeper, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def brute_force(maps: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The largest responses of each unit, one of each image, and the images."""
    best, order = maps.amax((2, 3)).sort(dim=0, descending=True, stable=True)
    return best[:k].T, order[:k].T


@pytest.mark.parametrize("layer", ["0", "1", "3", "4"])
def test_patches_are_the_largest_of_all_positions_of_all_images(layer: str):
    net = network()
    maps = outputs(net, IMAGES, [layer])[layer]
    own = strongest_patches(net, (IMAGES, LABELS), [layer], units=[5, 2, 7], k=4)[layer]
    values, ids = brute_force(maps[:, [5, 2, 7]], 4)
    assert own.channels == (5, 2, 7)
    assert own.of_directions == []
    for row, patches in enumerate(own.of_channels):
        assert_close(torch.tensor([patch.value for patch in patches]), values[row])
        assert [patch.image for patch in patches] == ids[row].tolist()
        assert [patch.label for patch in patches] == LABELS[ids[row]].tolist()
    assert net.training


def test_directions_are_of_length_1_and_their_responses_products_with_the_channels():
    maps = outputs(network(), IMAGES, ["3"])["3"]
    own = top_responses(network(), IMAGES, ["3"], units=[0], directions=6, k=3, seed=4)["3"]
    drawn = torch.randn(6, 8, generator=torch.Generator().manual_seed(4))
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    values, ids = brute_force(torch.stack([(v[:, None, None] * maps).sum(1) for v in drawn], 1), 3)
    assert_close(own.top.values[1:], values)
    assert torch.equal(own.top.ids[1:], ids)
    other = top_responses(network(), IMAGES, ["3"], units=[], directions=6, k=3, seed=5)["3"]
    assert not torch.equal(other.top.values, own.top.values[1:])


def test_the_response_of_a_filter_is_its_product_with_the_patch():
    net = network()
    own = strongest_patches(net, IMAGES, ["1"], k=9)["1"]
    weight, bias = (part.detach() for part in net[0].parameters())
    for filters, shift, patches in zip(weight, bias, own.of_channels, strict=True):
        for patch in patches:
            top, left, bottom, right = patch.box
            assert (bottom - top, right - left) == (5, 5)
            response = (IMAGES[patch.image][:, top:bottom, left:right] * filters).sum() + shift
            assert float(response.relu()) == pytest.approx(patch.value, abs=1e-5)


@pytest.mark.parametrize("layer", ["2", "4"])
def test_boxes_lie_on_the_image_and_what_is_outside_them_does_not_matter(layer: str):
    net = network()
    own = strongest_patches(net, IMAGES, [layer], k=30)[layer]
    at_borders = Counter[str]()
    for unit, patches in enumerate(own.of_channels):
        seen = torch.zeros(len(patches), 3, 17, 19)  # the rest of the image is another one
        for row, patch in enumerate(patches):
            top, left, bottom, right = patch.box
            assert 0 <= top < bottom <= 17
            assert 0 <= left < right <= 19
            sides = {"top": top == 0, "left": left == 0, "bottom": bottom == 17, "right": right == 19}
            at_borders.update(side for side, there in sides.items() if there)
            seen[row, :, top:bottom, left:right] = IMAGES[patch.image][:, top:bottom, left:right]
            up, near, down, far = patch.window
            assert up <= top < bottom <= down
            assert near <= left < right <= far
            assert torch.equal(patch.pixels, picture(IMAGES[patch.image][:, up:down, near:far]))
        maps = outputs(net, seen, [layer])[layer][:, unit]
        found = torch.tensor([patch.value for patch in patches])
        # the same response is there, among others of the rest
        assert (maps.flatten(1) - found[:, None]).abs().amin(1).max() < 1e-5
    assert min(at_borders[side] for side in ("top", "left", "bottom", "right")) > 0


def test_batches_and_layers_beside_change_nothing():
    alone = strongest_patches(network(), IMAGES, ["3"], k=5, directions=3, batch_size=50)["3"]
    both = strongest_patches(network(), IMAGES, ["1", "3"], k=5, directions=3, batch_size=7)["3"]
    batches = [(IMAGES[:20], LABELS[:20]), (IMAGES[20:], LABELS[20:])]
    listed = strongest_patches(network(), batches, ["3"], k=5, directions=3)["3"]
    for other in (both, listed):
        for one, same in zip(
            [*alone.of_channels, *alone.of_directions],
            [*other.of_channels, *other.of_directions],
            strict=True,
        ):
            assert [(patch.image, patch.box) for patch in one] == [(patch.image, patch.box) for patch in same]
            assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(one, same, strict=True))


def check() -> None:
    """Of every process: what it finds is what one finds alone."""
    layers, wanted = ["1", "3"], {"k": 6, "directions": 5, "batch_size": 5}  # which divides both shares
    alone = strongest_patches(network(), (IMAGES, LABELS), layers, **wanted)
    shared = strongest_patches(network(), (IMAGES, LABELS), layers, processes=True, **wanted)
    for layer in layers:
        for kind in ("of_channels", "of_directions"):
            one, other = getattr(alone[layer], kind), getattr(shared[layer], kind)
            for mine, theirs in zip(chain(*one), chain(*other), strict=True):
                assert (mine.image, mine.box, mine.value) == (theirs.image, theirs.box, theirs.value)
                assert torch.equal(mine.pixels, theirs.pixels)


def test_a_single_process_finds_the_strongest_patches():
    check()


@pytest.mark.ranks
def test_two_processes_find_exactly_the_patches_of_one(tmp_path: Path):
    in_two_processes(__file__, tmp_path)


class Tokens(nn.Module):
    """A token for each patch of 4 x 4 pixels, after a class token, all of which see each other."""

    grid_size, num_prefix_tokens = (3, 3), 1

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.mix, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        return self.head(self.mix(tokens + tokens.mean(1, keepdim=True))[:, 0])


def test_tokens_have_patches_that_are_the_whole_image():
    images = IMAGES[:, :, :12, :12]
    found = strongest_patches(Tokens(), images, ["patches", "mix"], k=2)
    assert found["patches"].field.size == (4, 4)
    assert found["mix"].field is None
    assert {patch.box for patches in found["mix"].of_channels for patch in patches} == {(0, 0, 12, 12)}
    tokens = outputs(Tokens(), images, ["mix"])["mix"][:, :, 1:]
    assert found["mix"].of_channels[3][0].value == pytest.approx(float(tokens[:, 3].max()))


def patch(label: int | None = 0, *, box=(2, 4, 8, 10), window=(0, 2, 10, 12), value=7.0) -> Patch:
    side = window[2] - window[0], window[3] - window[1]
    return Patch(0, value, box, window, torch.zeros(3, *side, dtype=torch.uint8), label)


def test_class_purity_is_the_share_of_the_most_frequent_class():
    units = [[patch(1), patch(1), patch(2), patch(1)], [patch(0), patch(1), patch(2), patch(3)]]
    assert class_purity(labels_of(units)) == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert labels_of([[patch(None), patch(1)]]) is None
    assert labels_of([]) is None
    with pytest.raises(ValueError, match="no patches"):
        class_purity(torch.zeros(0, 4, dtype=torch.long))


def test_patches_without_a_response_do_not_count_in_class_purity():
    labels = torch.tensor([[1, 1, 2, 1], [0, 1, 2, 3], [2, 2, 0, 1]])
    values = torch.tensor([[4.0, 3, 2, 1], [0, 0, 0, 0], [5, 4, 0, 0]])
    assert class_purity(labels, values) == pytest.approx((3 / 4 + 1) / 2)
    assert class_purity(labels, torch.zeros(3, 4)) != class_purity(labels)  # not a number


def test_some_channels_are_picked_with_all_directions():
    every = top_responses(network(), IMAGES, ["3"], directions=2, k=3)["3"]
    some = top_responses(network(), IMAGES, ["3"], units=[6, 1], directions=2, k=3)["3"]
    assert torch.equal(every.of([6, 1]).top.ids, some.top.ids)
    assert every.of([6, 1]).channels == some.channels
    with pytest.raises(ValueError, match="unit 8 of layer '3'; wanted channels from 0 to 7"):
        every.of([8])


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ((2, 4, 8, 10), (20, 20, 79, 79)),
        ((0, 2, 10, 12), (0, 0, 99, 99)),
        ((0, 7, 3, 12), (0, 50, 29, 99)),
    ],
    ids=["inside", "the whole window", "in a corner of the image"],
)
def test_a_white_box_is_drawn_where_the_field_is(box, corners):
    tile = render_patch(patch(box=box, value=8.0), side=100)
    white = (tile == 255).all(0)
    top, left, bottom, right = corners
    for line in (white[top, left:right], white[bottom, left:right]):
        assert bool(line.all())
    for line in (white[top:bottom, left], white[top:bottom, right]):
        assert bool(line.all())
    beyond = white.clone()
    beyond[top : bottom + 1, left : right + 1] = False
    assert not bool(beyond.any())
    bright = (tile > 150).all(0)
    assert int(bright[top + 2 : bottom - 1, left + 2 : right - 1].sum()) > 10  # the value


def test_a_sheet_has_a_row_for_each_unit_and_says_which_are_silent():
    net = network()
    with torch.no_grad():
        net[2].weight[1] = 0
        net[2].bias[1] = -1
    own = strongest_patches(net, (IMAGES, LABELS), ["3"], k=5, directions=2)["3"]
    one = strongest_patches(net, (IMAGES, LABELS), ["3"], units=[1], k=5)["3"]
    both, alone = render_patches(own, side=32), render_patches(one, side=32)
    assert both.shape[1] > 8 * 32 > alone.shape[1]
    assert both.shape[2] > 2 * 5 * 32 > alone.shape[2] - 80


class SeveralSizes(Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return IMAGES[place, :, : 12 + place % 3], 0


def test_images_of_several_sizes_are_refused_but_one_at_a_time():
    with pytest.raises(ValueError, match=r"images of several sizes, such as \(3, 12, 19\) and \(3, 14, 19\)"):
        strongest_patches(network(), SeveralSizes(), ["1"], k=2)
    found = top_responses(network(), SeveralSizes(), ["1"], k=2, batch_size=1)["1"]
    expected = torch.stack(
        [outputs(network(), SeveralSizes()[i][0][None], ["1"])["1"][0].amax((1, 2)) for i in range(12)]
    )
    assert_close(found.top.values, expected.topk(2, dim=0).values.T)


@pytest.mark.parametrize(
    ("layer", "wanted", "complaint"),
    [
        ("6", {}, r"layer '6' \(Flatten\) has no spatial extent: it outputs \(8,\) for an image; wanted"),
        ("3", {"units": [8]}, "unit 8 of layer '3'; wanted a channel from 0 to 7"),
        ("3", {"units": [-1]}, "unit -1 of layer '3'"),
        ("3", {"k": 51}, "50 images for 51 patches of each unit; wanted at least 51, or fewer patches"),
        ("3", {"k": 0}, "0 patches of"),
        ("3", {"units": []}, "0 directions"),
        ("conv9", {}, "no layer 'conv9' in Sequential; there are"),
    ],
)
def test_what_cannot_be_found_is_reported_in_one_sentence(layer: str, wanted: dict, complaint: str):
    with pytest.raises(ValueError, match=complaint) as error:
        strongest_patches(network(), IMAGES, [layer], **wanted)
    assert "\n" not in str(error.value)


def test_one_pass_iterables_and_nan_are_reported():
    with pytest.raises(ValueError, match="a generator gives its images once"):
        strongest_patches(network(), (part for part in IMAGES.split(5)), ["1"])
    with pytest.raises(ValueError, match="wanted a data set that is read by index"):
        strongest_patches(network(), list(IMAGES.split(5)), ["1"], processes=True)
    with pytest.raises(ValueError, match="0 images for 9 patches"):
        strongest_patches(network(), IMAGES[:0], ["1"])
    broken = network()
    nn.init.constant_(broken[0].bias, torch.nan)
    with pytest.raises(ValueError, match="layer '0': responses that are NaN"):
        strongest_patches(broken, IMAGES, ["0"])
