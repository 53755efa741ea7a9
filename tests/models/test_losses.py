"""Min-max training: the worst images in closed form, and the weights of a loop written by hand."""

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from small_training import NAMES, QUIET, ROBUST, STILL, THREAT, batch, net
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.models.classifier import Classifier
from fulgurite.models.losses import Adversarial, Fast, Loss, Plain, Trades, divergence
from fulgurite.probes.attacks.attacked_network import attacked
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.gradient_pass import CHANNELS_LAST, FAST, GradientPass
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.threat import L1, L2, Linf

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:Found .* in eval mode"
)


def taught(loss: Loss, network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """The loss, and the gradients of the network's parameters."""
    value = loss(network, images, labels)
    return [value.detach(), *torch.autograd.grad(value, list(network.parameters()))]


def linear() -> nn.Module:
    """Two classes, one of which has no say: the margin is w.x + b."""
    layer = nn.Linear(36, 2)
    with torch.no_grad():
        layer.weight[0] = layer.bias[0] = 0
    return nn.Sequential(nn.Flatten(), layer)


@pytest.mark.parametrize(
    ("threat", "dual"),
    [(Linf(0.1, None), 1), (L2(0.5, None), 2), (L1(0.7, None, share=1e-9), float("inf"))],
    ids=repr,
)
@pytest.mark.parametrize("loss", ["adversarial", "fast"])
def test_the_loss_of_a_linear_network_is_that_of_its_exact_worst_images(threat, dual, loss):
    network, (images, _) = linear(), batch()
    labels = torch.arange(12) % 2
    # a step of two radii from anywhere in the ball, and a projection, end at the worst point of an Linf ball;
    # for the others only from the image
    made = {"adversarial": Adversarial(threat, attack=STILL), "fast": Fast(threat, start="image")}[loss]
    if isinstance(threat, Linf):
        made = {"adversarial": Adversarial(threat), "fast": Fast(threat, step=2.0)}[loss]
    margins = (2 * labels - 1) * (network(images)[:, 1] - network(images)[:, 0])
    row = network[1].weight[1] - network[1].weight[0]
    worst = F.softplus(-(margins - threat.epsilon * row.norm(dual))).mean()
    torch.testing.assert_close(made(network, images, labels), worst)


def test_adversarial_is_the_cross_entropy_of_what_pgd_finds():
    network, (images, labels) = net().train(), batch()
    loss = Adversarial(THREAT, steps=3, step_size=0.05, loss="margin", restarts=2)
    torch.manual_seed(5)
    found = taught(loss, network, images, labels)
    twin = net().train()  # the network's running statistics have moved on
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
    how = {"steps": 3, "step_size": 0.05, "loss": "margin", "restarts": 2}
    moved = pgd(twin, images, labels, THREAT, generator=generator, **how)
    assert all(map(torch.equal, found, taught(Plain(), twin, moved, labels)))


def test_fast_is_the_cross_entropy_of_what_fgsm_finds():
    network, (images, labels) = net().train(), batch()
    torch.manual_seed(5)
    found = taught(Fast(THREAT), network, images, labels)
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
    twin = net().train()  # the network's running statistics have moved on
    moved = fgsm(twin, images, labels, THREAT, start="random", step_size=0.125, generator=generator)
    assert all(map(torch.equal, found, taught(Plain(), twin, moved, labels)))


def test_trades_is_the_loss_of_the_paper():
    """A slow twin, which computes the clean prediction again at every step, as the authors' code does."""
    network, (images, labels) = net().train(), batch()
    torch.manual_seed(5)
    found = taught(Trades(THREAT, beta=4.0, steps=5, step_size=0.03), network, images, labels)

    network = net().train()
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
    moved = (images + 0.1 * (2 * PerImageRandom(images, generator).uniform(1, 6, 6) - 1)).clamp(0, 1)
    network.eval()
    for _ in range(5):
        moved = moved.detach().requires_grad_()
        p, q = network(images).softmax(1), network(moved).softmax(1)
        (gradient,) = torch.autograd.grad((p * (p.log() - q.log())).sum(), moved)
        moved = torch.minimum(torch.maximum(moved + 0.03 * gradient.sign(), images - 0.1), images + 0.1)
        moved = moved.clamp(0, 1)
    network.train()
    clean, printed = network(images), network(moved.detach())
    p, q = clean.softmax(1), printed.softmax(1)
    value = F.cross_entropy(clean, labels) + 4.0 * (p * (p.log() - q.log())).sum(1).mean()
    twin = [value.detach(), *torch.autograd.grad(value, list(network.parameters()))]
    torch.testing.assert_close(found, twin, rtol=1e-4, atol=1e-6)


def test_trades_looks_at_the_clean_images_once_and_steps_without_them():
    network, (images, labels) = net().train(), batch()
    calls = []
    network.head.register_forward_hook(lambda module, *_: calls.append(module.training))
    Trades(THREAT, steps=5)(network, images, labels)
    assert calls == [False] * (1 + 5) + [True] * 2


def test_the_divergence_of_each_image_is_its_own():
    network, (images, labels) = net().eval(), batch()
    printed = torch.log_softmax(torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), 1)
    rows = torch.tensor([7, 2, 7])
    with attacked(network, images, labels, THREAT, loss=divergence(printed)) as run:
        slope = run.loss_gradient(images[rows], rows)
    p, q = printed.exp()[rows], network(images[rows]).softmax(1)
    torch.testing.assert_close(slope.values, (p * (p / q).log()).sum(1))


@pytest.mark.parametrize("loss", ROBUST, ids=NAMES)
def test_a_radius_of_nothing_is_plain_training(loss):
    network, (images, labels) = net(norm=False), batch()
    still = type(loss)(Linf(0.0))
    torch.testing.assert_close(
        taught(still, network, images, labels), taught(Plain(), network, images, labels)
    )


@pytest.mark.parametrize("loss", ROBUST, ids=NAMES)
def test_only_gradients_of_training_are_left_behind(loss):
    network, (images, labels) = net(dropout=0.3).train(), batch()
    network.head.eval()
    network.conv.weight.requires_grad_(False)
    F.cross_entropy(network(images), labels).backward()
    network.norm.reset_running_stats()
    before = [(p.grad, None if p.grad is None else p.grad.clone()) for p in network.parameters()]
    given = images.clone()
    loss(network, images, labels)
    for parameter, (grad, values) in zip(network.parameters(), before, strict=True):
        assert parameter.grad is grad
        assert grad is None or torch.equal(grad, values)
    assert torch.equal(images, given)
    assert [network.training, network.head.training] == [True, False]
    assert not network.conv.weight.requires_grad
    # the passes that teach, and none of the attack's, count
    assert network.norm.num_batches_tracked == (2 if isinstance(loss, Trades) else 1)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_what_batchnorm_does_during_the_attack_is_reported(mode):
    network, (images, labels) = net().train(), batch()
    modes = []
    network.norm.register_forward_hook(lambda module, *_: modes.append(module.training))
    for loss in (
        Adversarial(THREAT, steps=2, mode=mode),
        Fast(THREAT, mode=mode),
        Trades(THREAT, steps=2, mode=mode),
    ):
        loss(network, images, labels)
    train = mode == "train"
    assert modes == [train] * 2 + [True] + [train] + [True] + [train] * 3 + [True] * 2


def test_all_images_are_moved_though_many_have_fallen():
    """An image that falls at the first step must not stay where it fell: that is a weaker attack."""
    network, (images, _) = linear(), batch()
    wrong = (network(images).argmax(1) + 1) % 2  # every image has fallen before it is attacked
    seen = []
    network.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    Adversarial(Linf(0.1, None))(network, images, wrong)
    torch.testing.assert_close((seen[-1] - images).abs(), torch.full_like(images, 0.1))


def test_draws_follow_the_seed_and_differ_from_batch_to_batch():
    network, (images, labels) = net().eval(), batch()
    loss = Fast(THREAT)

    def values(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return [float(loss(network, images, labels).detach()) for _ in range(3)]

    assert values(1) == values(1)
    assert len({*values(1), *values(2)}) == 6


def test_any_attack_and_any_threat_will_do():
    seen = []

    def shift(network, images, labels, threat, *, generator):
        seen.append(threat)
        return (images + threat.epsilon).clamp(0, 1)

    network, (images, labels) = net().eval(), batch()
    found = Adversarial(L2(0.2), attack=shift)(network, images, labels)
    torch.testing.assert_close(found, F.cross_entropy(network((images + 0.2).clamp(0, 1)), labels))
    assert seen == [L2(0.2)]


@pytest.mark.parametrize("loss", [Adversarial, Trades, Fast])
def test_a_gradient_pass_changes_how_passes_run_and_not_what_is_taught(loss):
    found = []
    for gradient_pass in (FAST, GradientPass()):
        network, (images, labels) = net().train(), batch()
        network.norm.running_mean.uniform_()
        found.append(taught(loss(THREAT, gradient_pass=gradient_pass), network, images, labels))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "loss",
    [
        Adversarial(
            L2(0.5), steps=5, step_size=0.2, loss="dlr", mode="train", gradient_pass=CHANNELS_LAST, warmup=0.3
        ),
        Trades(
            L1(2.0),
            beta=3.0,
            steps=4,
            step_size=0.1,
            gradient_pass=GradientPass(dtype=torch.bfloat16),
            warmup=1.0,
        ),
        Fast(Linf("8/255"), start="image", step=1.5),
        Plain(0.1),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_the_repr_names_every_parameter(loss):
    assert isinstance(loss, Loss)
    assert eval(repr(loss), {**globals()}) == loss


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Adversarial(THREAT, steps=0), "steps=0; wanted a whole number of at least 1"),
        (lambda: Adversarial(THREAT, restarts=0), "restarts=0"),
        (lambda: Adversarial(THREAT, restarts=2, mode="train"), "BatchNorm would see fewer images"),
        (lambda: Adversarial(THREAT, loss="nope"), "no loss 'nope'"),
        (lambda: Adversarial(THREAT, step_size=float("nan")), "step_size=nan"),
        (lambda: Adversarial(THREAT, mode="train", gradient_pass=FAST), "compiled in eval mode only"),
        (lambda: Trades(THREAT, steps=0), "steps=0"),
        (lambda: Fast(THREAT, step=-1.0), "step_size=-1.0"),
        (lambda: Trades(THREAT, beta=-1.0), "beta=-1.0; wanted a finite weight of at least 0"),
        (lambda: Fast(THREAT, warmup=1.5), "warmup=1.5; wanted a share of the training"),
        (lambda: Adversarial(THREAT, warmup=-0.1), "warmup=-0.1"),
        (lambda: Adversarial(THREAT, attack=lambda network, images, *_: images), "takes no generator="),
    ],
)
def test_what_cannot_be_is_reported_at_the_door(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


def test_robust_accuracy_is_measured_on_all_images_in_fit_in_validate_and_in_test(tmp_path):
    network, (images, labels) = net().eval(), batch(30, seed=2)
    model = Classifier(network, classes=3, threat=THREAT)
    loader = DataLoader(TensorDataset(images, labels), 8)
    trainer = pl.Trainer(max_epochs=1, enable_checkpointing=False, num_sanity_val_steps=0, **QUIET)
    trainer.fit(model, DataLoader(TensorDataset(*batch()), 4), loader)
    fitted = {name: float(value) for name, value in trainer.callback_metrics.items()}

    network.eval()
    wrong = network(images).argmax(1) != labels
    for steps in (10, 20):
        moved = pgd(network, images, labels, THREAT, steps=steps, drop=True)
        fooled = wrong | (network(moved).argmax(1) != labels)
        expected = {
            "accuracy": 1 - float(wrong.float().mean()),
            "robust accuracy": 1 - float(fooled.float().mean()),
        }
        if steps == 10:
            validated = trainer.validate(model, loader, verbose=False)[0]
            for name, value in expected.items():
                assert fitted[f"val/{name}"] == pytest.approx(value)
                assert validated[f"val/{name}"] == pytest.approx(value)
        else:
            tested = trainer.test(model, loader, verbose=False)[0]
            for name, value in expected.items():
                assert tested[f"test/{name}"] == pytest.approx(value)
    assert 0 < expected["robust accuracy"] < expected["accuracy"]


def test_without_a_threat_nothing_is_attacked(tmp_path):
    loader = DataLoader(TensorDataset(*batch()), 4)
    printed = pl.Trainer(**QUIET).validate(Classifier(net(), classes=3), loader, verbose=False)[0]
    assert printed.keys() == {"val/loss", "val/accuracy"}


def test_attacks_for_other_parts_are_refused():
    with pytest.raises(ValueError, match=r'attacks for validate; wanted one for "val", one for "test"'):
        Classifier(net(), classes=3, threat=THREAT, attacks={"validate": STILL})
