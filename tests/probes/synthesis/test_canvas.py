import pytest
import torch
from torch.testing import assert_close

from fulgurite.probes.synthesis.canvas import Fourier, Pixels

SHAPES = [(3, 8, 8), (1, 7, 5), (3, 6, 9), (2, 1, 1), (3, 1, 4), (1, 4, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
@pytest.mark.parametrize("spread", [0.0, 0.01, 1e3])
def test_a_fourier_canvas_makes_images_in_the_unit_range(shape, spread):
    images = Fourier(shape, [0, 1, 2], spread=spread)()
    assert images.shape == (3, *shape)
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_fourier_canvas_starts_near_its_ground():
    mean = [0.1, 0.5, 0.8]
    images = Fourier((3, 16, 16), range(20), mean=mean)()
    assert_close(images.mean((0, 2, 3)), torch.tensor(mean), atol=0.03, rtol=0)
    assert 0 < images[:, 1].std() < 0.1
    plain = Fourier((3, 16, 16), [0], mean=mean, spread=0)()
    assert_close(plain, torch.tensor(mean)[None, :, None, None].expand(1, 3, 16, 16))


def test_a_black_or_white_ground_can_still_be_painted_on():
    canvas = Fourier((1, 4, 4), [0], mean=[0.0])
    images = canvas()
    assert images.max() < 0.01
    (gradient,) = torch.autograd.grad(images.sum(), canvas.spectra)
    assert gradient.abs().sum() > 0


def test_a_wave_painted_by_hand_is_the_wave():
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
    with pytest.raises(ValueError, match=r"a mean for each of 1 channels, got \[0.5, 0.5, 0.5\]"):
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
def test_a_canvas_made_in_inference_mode_can_be_painted_on(make):
    with torch.inference_mode():
        canvas = make()
    canvas().square().sum().backward()
    assert all(parameter.grad is not None for parameter in canvas.parameters())
