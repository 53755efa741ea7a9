"""On a GPU as on the CPU: attribution, attacks and class images; where there is none, the CPU by itself."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes import batches
from fulgurite.probes.activations.concept_discovery import concepts
from fulgurite.probes.activations.patches import strongest_patches
from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.attacked_network import attacked
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.gradient_pass import GradientPass
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import L1, L2, Linf
from fulgurite.probes.attribution.methods import METHODS, OF_ATTENTION, attribute
from fulgurite.probes.feature_objectives import energy, match
from fulgurite.probes.objectives import channel, class_score, unit
from fulgurite.probes.synthesis.accentuation import accentuate
from fulgurite.probes.synthesis.after_step import blur, clip_small_norms, within
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.caricature import caricature
from fulgurite.probes.synthesis.class_images import class_images, simonyan
from fulgurite.probes.synthesis.features import feature_images
from fulgurite.probes.synthesis.inversion import invert
from fulgurite.probes.synthesis.lbfgs import lbfgs
from fulgurite.probes.synthesis.optimizers import adam, sgd, unit_mean
from fulgurite.probes.synthesis.priors import l2, total_variation
from fulgurite.probes.synthesis.transforms import affine
from fulgurite.probes.synthesis.watch import Watch

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
AGAIN = 2 if DEVICE.type == "cuda" else 1  # the CPU has run once before, where it stands in
KNOBS = {"draws": 6, "steps": 6, "masks": 20, "samples": 40, "segments": 8}
ATTACKS = {
    "fgsm": (fgsm, {}),
    "pgd": (pgd, {"steps": 3}),
    "pgd, restarts": (pgd, {"steps": 3, "restarts": 2, "drop": True}),
    "apgd": (apgd, {"steps": 5}),
    "apgd, targeted": (apgd, {"steps": 5, "loss": "dlr", "target_classes": 3}),
    "fab": (fab, {"steps": 3, "target_classes": 2}),
    "square": (square, {"queries": 20}),
}
THREATS = [Linf(0.02), L2(0.3), L1(2.0)]


@pytest.fixture(autouse=True)
def exact():
    """Float32 without TF32, by algorithms of which two runs are equal."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
    torch.backends.cuda.matmul.allow_tf32 = products


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    made = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    for _ in range(3):
        made(torch.rand(16, 3, 16, 16))
    return made


def images() -> torch.Tensor:
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def state_of(net: nn.Module) -> dict:
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    modes = {f"mode of {name}": part.training for name, part in net.named_modules()}
    hooks = {f"hooks of {name}": len(part._forward_hooks) for name, part in net.named_modules()}
    wanted = {f"{name} learns": (part.requires_grad, part.grad) for name, part in net.named_parameters()}
    return {**tensors, **modes, **hooks, **wanted}


def assert_as_before(net: nn.Module, before: dict) -> None:
    after = state_of(net)
    assert after.keys() == before.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name]
        assert same, name


def test_patches_and_concepts_are_those_of_the_cpu_and_leave_nothing():
    here, there = network(), network().to(DEVICE)
    before = state_of(there)
    found = [
        strongest_patches(net, images(), ["3"], units=[1, 5], directions=2, k=3)["3"] for net in (here, there)
    ]
    for one, other in zip(*([*own.of_channels, *own.of_directions] for own in found), strict=True):
        assert [(patch.image, patch.box) for patch in one] == [(patch.image, patch.box) for patch in other]
        assert_close([patch.value for patch in one], [patch.value for patch in other], rtol=1e-4, atol=1e-5)
    sheets = [
        concepts(net, images().to(device), 1, "6", count=3)
        for net, device in ((here, torch.device("cpu")), (there, DEVICE))
    ]
    assert_close(sheets[0].contributions, sheets[1].contributions, rtol=1e-2, atol=1e-3)
    assert_as_before(there, before)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_ATTENTION])
def test_maps_are_those_of_the_cpu_twice_the_same_and_leave_nothing(name):
    here, there = network(), network().to(DEVICE)
    asked = torch.tensor([0, 1, 2, 3, 4, 0])
    before = state_of(there)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = attribute(name, here, images(), class_score(asked), **KNOBS)
        found = [
            attribute(name, there, images().to(DEVICE), class_score(asked.to(DEVICE)), **KNOBS)
            for _ in range(AGAIN)
        ]
    assert found[0].device.type == DEVICE.type
    assert_close(found[0], found[-1] if AGAIN == 2 else expected, rtol=0, atol=0)
    scale = float(expected.abs().max())
    assert_close(found[0].cpu() / scale, expected / scale, rtol=0, atol=1e-4)
    assert_as_before(there, before)


@pytest.mark.parametrize("threat", THREATS, ids=repr)
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_find_what_they_find_on_the_cpu_twice_the_same_and_leave_nothing(name, threat):
    attack, knobs = ATTACKS[name]
    here, there = network(), network().to(DEVICE)
    labels = here.eval()(images()).argmax(1)
    here.train()
    before = state_of(there)
    expected = attack(here, images(), labels, threat, **knobs)
    found = [attack(there, images().to(DEVICE), labels.to(DEVICE), threat, **knobs) for _ in range(AGAIN)]
    assert_close(found[0], found[-1] if AGAIN == 2 else expected, rtol=0, atol=0)
    # where a rounding turned a sign or tipped a comparison, an image goes another way; most must not
    apart = (found[0].cpu() - expected).flatten(1).abs().amax(1)
    assert (apart <= 1e-4).float().mean() >= 0.5
    assert bool((threat.distance(found[0].cpu(), images()) <= threat.epsilon * (1 + 1e-5)).all())
    assert_as_before(there, before)


@pytest.mark.parametrize("by", [adam(0.05), sgd(0.01, momentum=0.9, normalise=unit_mean), lbfgs()])
def test_no_step_of_an_ascent_waits_for_the_device(by):
    steps, looks = 5, []

    def watched(shown):
        looks.append(1)
        if DEVICE.type == "cuda":  # all but the first look and the last step
            torch.cuda.set_sync_debug_mode("error" if len(looks) < steps else "default")
        return affine(shift=0.1, degrees=5, zoom=1.2)(shown)

    start = images().to(DEVICE)
    objectives = [class_score(torch.arange(4)), 0.1 * unit("4", torch.arange(4), row=2), energy("0")]
    asked = sum([*objectives, match("4", torch.ones(1, 16, 8, 8))])
    try:
        painted = ascend(
            network().to(DEVICE),
            asked,
            Pixels(start[:4]),
            steps=steps,
            by=by,
            priors=[l2(0.1, background=[0.5] * 3), total_variation(0.1)],
            transform=watched,
            after=[blur(1.0, every=2), clip_small_norms(0.1), within(Linf(0.2), start[:4])],
            watch=Watch(best=True),
        )
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert len(looks) == steps + 1  # the last to see whether the last images are the best
    assert painted.device.type == DEVICE.type


@pytest.mark.parametrize("paint", [class_images, simonyan])
def test_class_images_are_those_of_the_cpu_and_twice_the_same(paint):
    classes, knobs = torch.tensor([0, 3]), {"background": [0.5] * 3, "steps": 4}
    expected = paint(network(), classes, (3, 16, 16), **knobs)
    there = network().to(DEVICE)
    before = state_of(there)
    found = [paint(there, classes.to(DEVICE), (3, 16, 16), **knobs) for _ in range(2)]
    # the backward pass of a shift adds up in any order on a GPU
    assert_close(found[0], found[1], rtol=0, atol=1e-4)
    # Adam divides by the gradient's own size, so that a rounding of a small one is none of the image
    assert float((found[0].cpu() - expected).abs().mean()) < 2e-3
    assert_as_before(there, before)


MADE = {
    "features": lambda net, shown: feature_images(
        net, channel("0", torch.tensor([0, 3, 1])), (3, 16, 16), seeds=[0, 1, 2], steps=4
    ),
    "a warm start": lambda net, shown: feature_images(
        net, channel("0", torch.tensor([0, 3, 1])), (3, 16, 16), seeds=[0, 1, 2], steps=4, start=shown
    ),
    "inversion": lambda net, shown: invert(net, shown, "0", seeds=[0, 1], steps=6).images.flatten(0, 1),
    "caricature": lambda net, shown: caricature(net, shown, "0", steps=4),
    "accentuation": lambda net, shown: accentuate(
        net, shown, class_score(torch.tensor([0, 3, 1])), near="0", steps=4
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_images_made_for_a_network_are_those_of_the_cpu_wherever_the_photographs_are(name):
    shown = 0.2 + 0.6 * images()[:3, :, :16, :16]
    expected = MADE[name](network(), shown)
    there = network().to(DEVICE)
    before = state_of(there)
    for given in (shown, shown.to(DEVICE)):
        made = MADE[name](there, given)
        assert made.device.type == DEVICE.type
        assert float((made.cpu() - expected).abs().mean()) < 2e-3
    assert_as_before(there, before)


@pytest.mark.parametrize("name", ["smoothgrad", "integrated_gradients", "occlusion", "rise", "score_cam"])
def test_out_of_memory_halves_the_batch_and_the_maps_stay_the_same(name, monkeypatch):
    net, asked = network().to(DEVICE), class_score(torch.tensor([0, 1, 2, 3, 4, 0], device=DEVICE))
    whole = attribute(name, net, images().to(DEVICE), asked, **KNOBS)
    first, run = net[0], nn.Conv2d.forward

    def short_of_memory(self, given):
        if self is first and len(given) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, given)

    monkeypatch.setattr(nn.Conv2d, "forward", short_of_memory)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        few = attribute(name, net, images()[:4].to(DEVICE), class_score(0), **KNOBS)
    monkeypatch.undo()
    expected = attribute(name, net, images()[:4].to(DEVICE), class_score(0), **KNOBS)
    assert_close(few, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert whole.isfinite().all()


@pytest.mark.skipif(DEVICE.type == "cpu", reason="asks a GPU for more than it has")
def test_a_gpu_that_is_truly_out_of_memory_is_halved():
    wide = nn.Sequential(nn.Conv2d(3, 256, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).to(DEVICE)
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - 3 * 2**30, dtype=torch.uint8, device=DEVICE)
    many = torch.rand(64, 3, 256, 256, device=DEVICE)
    shares = batches.Batches(64)
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="out of memory"):
        found = [wide(many[part]) for part, _ in shares.over(64, lambda part: wide(many[part]).sum())]
    assert torch.cat(found).shape == (64, 256)
    assert shares.size < 64
    del taken


@pytest.mark.parametrize("compiled", [False, True], ids=["as written", "compiled"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_gradient_passes_in_other_layouts_and_precisions_fool_the_network_itself(dtype, compiled):
    net = network().to(DEVICE).eval()
    few = images().to(DEVICE)
    labels = net(few).argmax(1)
    gradient_pass = GradientPass(channels_last=True, dtype=dtype, compiled=compiled)
    plain = net(pgd(net, few, labels, Linf(0.05), steps=5)).argmax(1) == labels
    viewed = net(pgd(net, few, labels, Linf(0.05), steps=5, gradient_pass=gradient_pass)).argmax(1) == labels
    assert abs(int(plain.sum()) - int(viewed.sum())) <= 1


def test_a_compiled_pass_has_the_weights_of_each_time_and_leaves_the_network_alone():
    net = network().to(DEVICE)
    before, few = state_of(net), images().to(DEVICE)
    labels = torch.arange(6, device=DEVICE) % 5
    gradient_pass = GradientPass(compiled=True)
    for _ in range(2):
        with (
            attacked(net, few, labels, Linf(0.1), gradient_pass=gradient_pass) as run,
            attacked(net, few, labels, Linf(0.1)) as own,
        ):
            rows = torch.arange(6, device=DEVICE)
            slope, expected = run.loss_gradient(few, rows), own.loss_gradient(few, rows)
            assert_close(slope.logits, expected.logits, rtol=1e-3, atol=1e-4)
            assert_close(
                slope.gradient, expected.gradient, rtol=0, atol=1e-3 * float(expected.gradient.abs().max())
            )
        assert_as_before(net, before)
        with torch.no_grad():
            net[0].weight.mul_(1.5)
        before = state_of(net)


def test_a_network_on_the_device_is_not_moved():
    net = copy.deepcopy(network()).to(DEVICE)
    attribute("gradient", net, images().to(DEVICE), class_score(0))
    assert all(part.device.type == DEVICE.type for part in net.state_dict().values())
