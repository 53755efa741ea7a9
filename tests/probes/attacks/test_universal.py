"""Universal perturbations on a plane, whose best shift is known."""

import math
from functools import partial

import pytest
import torch
from attack_callbacks import Linear
from torch import nn

from fulgurite.probes.attacks.threat import L2, Linf
from fulgurite.probes.attacks.universal import fooling_rate, universal


class Bias(nn.Module):
    """Answers 0 where the mean is below a half, with its margin to each side: all images lie at one side."""

    def forward(self, images):
        mean = images.flatten(1).mean(1) - 0.5
        return torch.stack([-mean, mean], 1)


class Diverged(Bias):
    """Answers NaN."""

    def forward(self, images):
        return super().forward(images) * math.nan


def images(count: int = 40) -> torch.Tensor:
    return 0.42 + 0.05 * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("by", ["gradient", "deepfool"])
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.6)], ids=repr)
def test_all_images_at_one_side_of_a_plane_fall_by_one_shift_and_not_by_noise(by, threat):
    batches = images().split(7)
    shift = universal(Bias(), batches, threat, by=by, passes=6)
    assert shift.shape == (3, 4, 4)
    assert float(threat.length(shift[None])) <= threat.epsilon * (1 + 1e-5)
    found = fooling_rate(Bias(), images(60).split(8), shift, threat)
    assert found.images == 60
    assert found.rate() == 1
    low, high = found.interval()
    assert low < 1 <= high + 1e-9
    # a shift by half of it changes fewer answers; noise of its values is the same shift here
    assert fooling_rate(Bias(), [images()], 0.2 * shift, threat).rate() < 1


def test_noise_of_the_same_values_does_less_where_places_matter():
    batches = (0.5 + 0.02 * torch.randn(80, 3, 4, 4, generator=torch.Generator().manual_seed(2))).split(20)
    one_side = [part[Linear()(part).argmax(1) == 0] for part in batches]
    shift = universal(Linear(), one_side, Linf(0.03), passes=4)
    expected = -0.03 * Linear().row.weight[0].detach().sign().view(3, 4, 4)
    torch.testing.assert_close(shift, expected)
    found = fooling_rate(Linear(), one_side, shift, Linf(0.03))
    assert found.rate() > 0.95
    assert found.interval()[0] > found.noise_interval()[1]
    again = fooling_rate(Linear(), torch.cat(one_side).split(3), shift, Linf(0.03))
    assert again == found


def test_a_tiled_shift_is_periodic_and_follows_its_own_gradient():
    batches = (0.5 + 0.02 * torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(2))).split(20)
    one_side = [part[Linear()(part).argmax(1) == 0] for part in batches]
    shift = universal(Linear(), one_side, Linf(0.03), passes=4, tile=2)
    patches = Linear().row.weight[0].detach().view(3, 2, 2, 2, 2).sum((1, 3))
    torch.testing.assert_close(shift, -0.03 * patches.sign().repeat(1, 2, 2))
    odd = universal(Linear(), one_side, Linf(0.03), passes=2, tile=3)
    assert torch.equal(odd[:, 0], odd[:, 3])
    assert torch.equal(odd[..., 0], odd[..., 3])


def test_it_stops_when_enough_are_fooled_and_reads_each_image_once_in_a_pass():
    class Stream:
        passes = 0

        def __iter__(self):
            self.passes += 1
            yield from images().split(10)

    stream = Stream()
    universal(Bias(), stream, Linf(0.1), passes=9, step_size=0.1, enough=0.5)
    assert stream.passes == 1  # the first batch moves it for all others


def test_what_can_be_read_only_once_will_do_for_one_pass():
    once = universal(Bias(), iter(images().split(10)), Linf(0.1), passes=1)
    assert torch.equal(once, universal(Bias(), images().split(10), Linf(0.1), passes=1))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (partial(universal, Bias(), [], Linf(0.1)), "no images"),
        (partial(universal, Bias(), [images()], Linf(0.1), passes=0), "passes=0"),
        (partial(universal, Bias(), [images()], Linf(0.1), enough=0), "enough=0"),
        (partial(universal, Bias(), [images()], Linf(0.1), tile=0), "tile=0"),
        (partial(universal, Bias(), [images()], Linf(0.1), by="deepfool", tile=2), "tile=2 is of by="),
        (partial(universal, Bias(), [images()], Linf(0.1), by="magic"), 'wanted "gradient" or "deepfool"'),
        (partial(universal, Bias(), [images(), images()[..., :3]], Linf(0.1)), "wanted one size"),
        (partial(universal, Bias(), iter([images()]), Linf(0.1)), "read only once .*, for 10 passes"),
        (
            partial(fooling_rate, Bias(), [images() * math.nan], torch.zeros(3, 4, 4), Linf(0.1)),
            "NaN or infinity in 40 of 40 images",
        ),
        (
            partial(fooling_rate, Diverged(), [images()], torch.zeros(3, 4, 4), Linf(0.1)),
            "outputs NaN for 40 of 40 images",
        ),
        (partial(universal, Diverged(), [images()], Linf(0.1), by="deepfool"), "outputs NaN for 40 of 40"),
        (partial(fooling_rate, Bias(), [], torch.zeros(3, 4, 4), Linf(0.1)), "no images"),
        (partial(fooling_rate, Bias(), [images()[..., :3]], torch.zeros(3, 4, 4), Linf(0.1)), "a shift of"),
    ],
)
def test_bad_input_raises_a_clear_error(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
