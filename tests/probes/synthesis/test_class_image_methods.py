"""Class images by the methods of the literature, on networks whose answers are known."""

from inspect import signature

import pytest
import torch
from torch import nn

from fulgurite.probes.synthesis.canvas import magnitude_spectrum, resized
from fulgurite.probes.synthesis.class_image_methods import METHODS, YOSINSKI, class_gaussian, maco, yosinski

SHAPE, BACKGROUND = (3, 16, 16), [0.3, 0.5, 0.6]
CLASSES = torch.tensor([0, 2, 1])
PHOTOGRAPHS = 0.5 + 0.08 * torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(12) % 3
EXAMPLES = {"maco": {"images": PHOTOGRAPHS}, "robust": {"images": PHOTOGRAPHS, "labels": LABELS}}


class Templates(nn.Module):
    """A class's score is the inner product with its template: a bright disc, a bar, or a corner."""

    def __init__(self):
        super().__init__()
        rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
        disc = (rows - 8).square() + (columns - 8).square() < 16
        shapes = torch.stack([disc, (columns > 9) & (columns < 13), (rows < 6) & (columns < 6)]).float()
        self.templates = nn.Parameter(
            (shapes - shapes.mean((1, 2), keepdim=True))[:, None].repeat(1, 3, 1, 1)
        )

    def forward(self, images):
        return 0.2 * torch.einsum("nchw,kchw->nk", images, self.templates)


def test_all_methods_have_the_same_names_and_order_of_arguments():
    order = ["network", "classes", "shape", "background", "images", "labels", "seeds", "layer"]
    order += ["preset", "radius", "steps", "lr", "start", "colours", "precise", "watch"]
    for method in METHODS.values():
        own = list(signature(method).parameters)
        assert own == [name for name in order if name in own]
        assert {*order} - {*own} <= {"images", "labels", "preset", "radius", "colours"}


def test_a_robust_image_moves_by_its_learning_rate():
    options = {"background": BACKGROUND, **EXAMPLES["robust"]}
    start = class_gaussian(CLASSES, SHAPE, PHOTOGRAPHS, LABELS, CLASSES.tolist())
    images = METHODS["robust"](Templates(), CLASSES, SHAPE, steps=1, lr=0.5, **options)
    torch.testing.assert_close((images - start).flatten(1).norm(dim=1), torch.full((3,), 0.5))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_raises_its_class_from_the_start_on(name):
    network = Templates()
    options = {"background": BACKGROUND, **EXAMPLES.get(name, {})}
    begin = METHODS[name](network, CLASSES, SHAPE, steps=0, **options)
    images = METHODS[name](network, CLASSES, SHAPE, **options)
    assert images.shape == (3, *SHAPE)
    assert images.min() >= 0
    assert images.max() <= 1
    gain = (network(images) - network(begin)).gather(1, CLASSES[:, None])
    assert (gain > 0.1).all()
    assert network(images).argmax(1).tolist() == CLASSES.tolist()


@pytest.mark.parametrize("name", METHODS)
def test_an_image_does_not_depend_on_the_others_of_its_batch(name):
    options = {"background": BACKGROUND, "steps": 8, **EXAMPLES.get(name, {})}
    together = METHODS[name](Templates(), CLASSES, SHAPE, seeds=[5, 6, 7], **options)
    alone = METHODS[name](Templates(), CLASSES[2:], SHAPE, seeds=[7], **options)
    if name == "maco":  # noise is drawn for the batch
        assert together.shape[1:] == alone.shape[1:]
    else:
        torch.testing.assert_close(together[2:], alone, atol=1e-5, rtol=0)


def test_maco_keeps_the_magnitudes_of_the_photographs_spectra():
    found = maco(Templates(), CLASSES, SHAPE, background=BACKGROUND, images=PHOTOGRAPHS, steps=30)
    still = maco(Templates(), CLASSES, SHAPE, background=BACKGROUND, images=PHOTOGRAPHS, steps=0)
    wanted = magnitude_spectrum(PHOTOGRAPHS, mean=BACKGROUND)
    # a column of zero frequency must be symmetric, and so only the others are kept exactly
    for images in (found, still):
        kept = magnitude_spectrum(images, mean=BACKGROUND)[:, :, 1:-1]
        torch.testing.assert_close(kept, wanted[:, :, 1:-1], rtol=1e-3, atol=1e-4)
    assert (found - still).abs().max() > 0.05


def test_yosinskis_presets_regularise_as_they_are_named():
    made = {
        name: yosinski(Templates(), CLASSES, SHAPE, background=BACKGROUND, preset=name) for name in YOSINSKI
    }
    plain = torch.tensor(BACKGROUND)[:, None, None]
    at_background = {
        name: ((images - plain).abs().amax(1) < 1e-6).float().mean().item() for name, images in made.items()
    }
    assert at_background["small norms"] >= 0.5
    assert at_background["small contributions"] >= 0.89
    assert at_background["blur"] < 0.1
    steps = {name: images.diff(dim=3).square().mean().item() for name, images in made.items()}
    assert steps["blur"] == min(value for name, value in steps.items() if name != "decay")
    with pytest.raises(ValueError, match="preset='sharp'; wanted one of 'small norms'"):
        yosinski(Templates(), CLASSES, SHAPE, background=BACKGROUND, preset="sharp")


def test_a_robust_image_stays_in_the_ball_around_a_draw_of_its_class():
    options = {"background": BACKGROUND, **EXAMPLES["robust"]}
    start = class_gaussian(CLASSES, SHAPE, PHOTOGRAPHS, LABELS, CLASSES.tolist())
    images = METHODS["robust"](Templates(), CLASSES, SHAPE, radius=0.1, **options)
    distance = (images - start).flatten(1).norm(dim=1) / start[0].numel() ** 0.5
    assert (distance <= 0.1 + 1e-6).all()
    assert (distance > 0.05).all()


def test_draws_of_a_class_have_its_mean_and_covariance():
    images = 0.5 + 0.05 * torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    zeros, count = torch.zeros(40, dtype=torch.long), 3000
    draws = class_gaussian(torch.zeros(count, dtype=torch.long), (1, 16, 16), images, zeros, range(count))
    # at 16 px the Gaussian is of 2 x 2, and a draw is these four values, enlarged
    small = resized(images, (2, 2))
    corners = torch.linalg.lstsq(_enlargement(), draws.flatten(1).T).solution.T
    torch.testing.assert_close(corners.mean(0), small.flatten(1).mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(corners.T.cov(), small.flatten(1).T.cov(), atol=3e-5, rtol=0)


def _enlargement() -> torch.Tensor:
    """What enlarging 2 x 2 to 16 x 16 pixels does, as a matrix."""
    return resized(torch.eye(4).view(4, 1, 2, 2), (16, 16)).flatten(1).T


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match="no image of class 2"):
        METHODS["robust"](Templates(), CLASSES, SHAPE, images=PHOTOGRAPHS[:2], labels=LABELS[:2])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_refuses_a_layer_that_has_no_score_for_each_class(name):
    options = {"background": BACKGROUND, "steps": 1, **EXAMPLES.get(name, {})}
    network = nn.Sequential(nn.Sequential(Templates(), nn.Linear(3, 5)), nn.ReLU())
    METHODS[name](network, CLASSES, SHAPE, layer="0", **options)
    with pytest.raises(ValueError, match=r"0\.0 has 3 outputs, the network 5 classes; wanted a layer"):
        METHODS[name](network, CLASSES, SHAPE, layer="0.0", **options)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_from_a_start(name):
    options = {"background": BACKGROUND, **EXAMPLES.get(name, {})}
    network = Templates()
    made = METHODS[name](network, CLASSES, SHAPE, steps=30, **options)
    same, cold = (METHODS[name](network, CLASSES, SHAPE, steps=0, start=at, **options) for at in (made, None))
    # a canvas of phases alone takes no more than the phases of images
    assert (same - made).abs().mean() < (0.5 if name == "maco" else 0.05) * (cold - made).abs().mean()
    steps = {"steps": 2, **({"lr": 0.1} if name == "robust" else {})}
    further, fresh = (
        network(METHODS[name](network, CLASSES, SHAPE, start=at, **steps, **options))[range(3), CLASSES]
        for at in (made, None)
    )
    assert (further > fresh).all()
