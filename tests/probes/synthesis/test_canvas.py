"""Pixel, Fourier and phase canvases: ranges, spectra, parts and sizes."""

import pytest
import torch
from torch.testing import assert_close

from fulgurite.probes.synthesis.canvas import Fourier, PhaseOnly, Pixels, magnitude_spectrum
from fulgurite.probes.synthesis.colours import colour_matrix

SHAPES = [(3, 8, 8), (1, 7, 5), (3, 6, 9), (2, 1, 1), (3, 1, 4), (1, 4, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
@pytest.mark.parametrize("spread", [0.0, 0.01, 1e3])
def test_a_fourier_canvas_makes_images_in_the_unit_range(shape, spread):
    images = Fourier(shape, [0, 1, 2], spread=spread)()
    assert images.shape == (3, *shape)
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_fourier_canvas_starts_near_its_background():
    mean = [0.1, 0.5, 0.8]
    images = Fourier((3, 16, 16), range(20), mean=mean)()
    assert_close(images.mean((0, 2, 3)), torch.tensor(mean), atol=0.03, rtol=0)
    assert 0 < images[:, 1].std() < 0.1
    plain = Fourier((3, 16, 16), [0], mean=mean, spread=0)()
    assert_close(plain, torch.tensor(mean)[None, :, None, None].expand(1, 3, 16, 16))


def test_a_black_or_white_background_can_still_be_changed():
    canvas = Fourier((1, 4, 4), [0], mean=[0.0])
    images = canvas()
    assert images.max() < 0.01
    (gradient,) = torch.autograd.grad(images.sum(), canvas.spectra)
    assert gradient.abs().sum() > 0


def test_a_wave_set_by_hand_is_the_wave():
    canvas = Fourier((1, 8, 6), [0], spread=0)
    with torch.no_grad():
        canvas.spectra[0, 0, 2, 0, 0] = 1.0
    # one coefficient, scaled, through an inverse transform over 48 pixels
    wave = canvas.scale[2, 0] / 48 * torch.cos(2 * torch.pi * 2 * torch.arange(8.0) / 8)
    assert_close(canvas()[0, 0].logit(), wave[:, None].expand(8, 6), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("shape", [*SHAPES[1:2], *SHAPES[3:], (1, 8, 8), (1, 64, 48)], ids=repr)
def test_unit_coefficients_make_unit_waves_at_every_size_and_decay(shape, decay):
    canvas = Fourier(shape, [0], decay=decay)
    count, width = canvas.spectra[0, 0].numel(), shape[2]
    with torch.no_grad():
        canvas.spectra.data = (
            torch.eye(count).view(count, 1, *canvas.spectra.shape[2:]).repeat(1, shape[0], 1, 1, 1)
        )
    waves = torch.fft.irfft2(torch.view_as_complex(canvas.spectra) * canvas.scale, s=shape[1:])
    # the variance of a pixel is the sum of the squares of what each coefficient adds to it
    assert_close(waves.square().sum(0).mean(), torch.tensor(1.0), rtol=1e-3, atol=0)
    assert width == waves.shape[-1]


@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
def test_the_scale_falls_with_frequency(decay):
    scale = Fourier((1, 16, 16), [0], decay=decay).scale
    assert_close(scale[1, 0] / scale[4, 0], torch.tensor(4.0**decay))
    assert scale[0, 0] == scale[1, 0] == scale[0, 1] == scale.max()


def test_each_image_is_drawn_from_its_own_seed():
    together = Fourier((3, 8, 8), [4, 5, 4])()
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together[1:2], Fourier((3, 8, 8), [5])())


def test_drawing_leaves_the_current_generator_alone():
    before = torch.get_rng_state()
    Fourier((3, 8, 8), [4, 5])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_ground_has_a_value_for_each_channel():
    with pytest.raises(ValueError, match=r"a mean for each of 1 channel, got \[0.5, 0.5, 0.5\]"):
        Fourier((1, 8, 8), [0], mean=(0.5, 0.5, 0.5))


def test_pixels_are_the_start_until_they_move():
    start = torch.rand(2, 3, 4, 4)
    canvas = Pixels(start)
    assert torch.equal(canvas(), start)
    with torch.no_grad():
        canvas.pixels += 0.5
    canvas.project()
    assert torch.equal(canvas(), (start + 0.5).clamp(0, 1))
    assert start.max() < 1


@pytest.mark.parametrize("make", [lambda: Fourier((1, 2, 2), [0]), lambda: Pixels(torch.rand(1, 1, 2, 2))])
def test_a_canvas_made_in_inference_mode_can_be_optimised(make):
    with torch.inference_mode():
        canvas = make()
    canvas().square().sum().backward()
    assert all(parameter.grad is not None for parameter in canvas.parameters())


def magnitude(channels: int = 3) -> torch.Tensor:
    return magnitude_spectrum(torch.rand(20, channels, 8, 6, generator=torch.Generator().manual_seed(0)))


EVERY = {
    "Pixels": lambda seeds: Pixels(
        torch.stack([torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    ),
    "Fourier": lambda seeds: Fourier((3, 8, 6), seeds, spread=0.3),
    "PhaseOnly": lambda seeds: PhaseOnly((3, 8, 6), seeds, magnitude()),
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("rows", [[2, 0], slice(1, None), torch.tensor([1]), []], ids=repr)
def test_images_that_are_taken_are_their_own(make, rows):
    canvas = make([3, 4, 5])
    before = canvas().detach().clone()
    taken = canvas.take(rows)
    assert_close(taken(), before[torch.arange(3)[rows] if isinstance(rows, slice) else rows])
    with torch.no_grad():
        for parameter in taken.parameters():
            parameter.add_(1)
    assert torch.equal(canvas(), before)


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_what_is_put_takes_the_place_of_these_images_alone(make):
    canvas, other = make([3, 4, 5]), make([6, 7])
    before = canvas().detach().clone()
    canvas.put([2, 0], other)
    assert_close(canvas(), torch.stack([other()[1], before[1], other()[0]]))
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in canvas.parameters())


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_as_many_images_must_be_put_as_are_replaced(make):
    with pytest.raises(ValueError, match="2 images to put in the place of 1"):
        make([3, 4, 5]).put([1], make([6, 7]))


def test_a_canvas_is_not_set_to_what_is_of_another_kind():
    for one, other in (("Fourier", "Pixels"), ("PhaseOnly", "Pixels")):
        with pytest.raises(ValueError, match=f"a Pixels to put on a {one}; wanted another one"):
            EVERY[one]([0]).put([0], EVERY[other]([0]))


def test_pixels_take_what_any_canvas_shows():
    canvas, other = EVERY["Pixels"]([0, 1]), EVERY["Fourier"]([5])
    canvas.put([1], other)
    assert_close(canvas()[1:], other())


def waves(height: int, width: int) -> torch.Tensor:
    """One slow wave of a colour, as large as the image."""
    down, across = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
    wave = (2 * torch.pi * down / height).sin() + (2 * torch.pi * across / width).cos()
    return 0.5 + 0.1 * torch.stack([wave, -wave, wave / 2])[None]


@pytest.mark.parametrize(
    "make", [lambda h, w: Pixels(torch.zeros(1, 3, h, w)), lambda h, w: Fourier((3, h, w), [0])]
)
@pytest.mark.parametrize("size", [(48, 64), (12, 16)])
def test_images_of_another_size_are_resized(make, size):
    small, other = make(24, 32), make(*size)
    small.set_images(waves(24, 32))
    assert_close(small(), waves(24, 32), rtol=0, atol=1e-5)
    other.put([0], small)
    inner = (..., slice(2, -2), slice(2, -2))
    assert_close(other()[inner], waves(*size)[inner], rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_a_fourier_canvas_can_be_set_to_any_image(shape):
    images = 0.02 + 0.96 * torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    canvas = Fourier(shape, [0, 1], mean=[0.3] * shape[0], decay=1.3)
    canvas.set_images(images)
    assert_close(canvas(), images, rtol=0, atol=1e-4)


def test_an_image_with_its_own_magnitude_comes_back_from_its_phases():
    images = 0.1 + 0.8 * torch.rand(1, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    canvas = PhaseOnly((3, 8, 6), [0], magnitude_spectrum(images))
    assert (canvas() - images).abs().max() > 0.1
    canvas.set_images(images)
    assert_close(canvas(), images, rtol=0, atol=1e-4)


def test_phases_that_move_leave_the_magnitude():
    canvas = PhaseOnly((1, 8, 6), [0, 1], magnitude(1))
    with torch.no_grad():
        canvas.phases.add_(torch.rand(2, 1, 8, 4))
    assert_close(canvas.spectrum().abs(), magnitude(1).expand(2, -1, -1, -1))


def test_a_magnitude_of_another_size_is_reported():
    with pytest.raises(
        ValueError, match=r"a magnitude \(3, 8, 4\) for images \(3, 8, 8\); wanted \(3, 8, 5\)"
    ):
        PhaseOnly((3, 8, 8), [0], torch.ones(3, 8, 4))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_colours_of_a_canvas_are_those_of_the_data_on_request(channels):
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(channels, channels, generator=generator)).Q
    lengths = torch.tensor([1.0, 0.5, 0.25, 0.2, 0.1])[:channels]
    waves = torch.randn(4, channels, 40, 40, generator=generator)
    images = torch.einsum("ij,njhw->nihw", axes * lengths, waves).sigmoid()
    colours = colour_matrix(images)
    # up to the signs of the axes, and to what 6400 pixels say of the spread
    assert_close((colours @ colours.T), (axes * lengths**2) @ axes.T, rtol=0, atol=0.06)
    canvas = Fourier((channels, 40, 40), range(64), decay=0.0, spread=1.0, colours=colours)
    seen = torch.cov(canvas().logit().detach().movedim(1, 0).flatten(1)).reshape(channels, channels)
    assert_close(seen, colours @ colours.T, rtol=0, atol=0.06)
    canvas.set_images(images[:1].expand(64, -1, -1, -1))  # can be inverted
    assert_close(canvas()[:1].detach(), images[:1].clamp(1e-3, 1 - 1e-3), rtol=0, atol=1e-4)
    plain = Fourier((channels, 40, 40), [0])
    plain.put([0], canvas.take([0]))  # in its own colours, it is the same image
    assert_close(plain().detach(), canvas()[:1].detach(), rtol=0, atol=1e-4)


def test_colours_of_one_colour_and_of_other_channels_are_refused():
    for images in (
        torch.full((2, 3, 4, 4), 0.5),
        torch.rand(1, 3, 1, 1),
        torch.full((1, 1, 2, 2), torch.nan),
    ):
        with pytest.raises(ValueError, match="wanted finite pixels of several colours"):
            colour_matrix(images)
    with pytest.raises(ValueError, match=r"colours \(3, 3\); wanted finite ones, 2 x 2"):
        Fourier((2, 4, 4), [0], colours=torch.eye(3))
