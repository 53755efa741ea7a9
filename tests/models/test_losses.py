"""Min-max training: the worst images in closed form, and weights that are those of a loop written by hand."""

import copy
import runpy
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from processes import two_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.models import losses
from fulgurite.models.classifier import Classifier, warm_cosine
from fulgurite.models.losses import Adversarial, Fast, Growing, Loss, Plain, Trades, divergence
from fulgurite.probes.attacks.attacked import attacked
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.gradient_pass import CHANNELS_LAST, FAST, GradientPass
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.threat import L1, L2, Linf

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:Found .* in eval mode"
)
THREAT = Linf(0.1)
ROBUST = [Adversarial(THREAT, steps=3), Trades(THREAT, steps=3), Fast(THREAT), Fast(THREAT, start="image")]
STILL = partial(pgd, steps=3, start="image")  # draws nothing
QUIET = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
NAMES = ["adversarial", "trades", "fast", "fgsm"]
DDP = Path(__file__).with_name("two_trainings.py")


class Net(nn.Module):
    """Convolution, BatchNorm, dropout and a linear layer, for images of 6 x 6."""

    def __init__(self, *, dropout: float = 0.0, norm: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, 2)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(F.relu(self.norm(self.conv(images)))).flatten(1))


def batch(count: int = 12, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.rand(count, 1, 6, 6, generator=generator) / 2
    images[torch.arange(count), 0, labels] += 0.4
    return images, labels


def net(**options) -> Net:
    torch.manual_seed(0)
    return Net(**options)


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
    """A slow twin, which computes the clean prediction anew at every step, as the authors' code does."""
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
    clean, said = network(images), network(moved.detach())
    p, q = clean.softmax(1), said.softmax(1)
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
    said = torch.log_softmax(torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), 1)
    rows = torch.tensor([7, 2, 7])
    with attacked(network, images, labels, THREAT, loss=divergence(said)) as run:
        slope = run.loss_gradient(images[rows], rows)
    p, q = said.exp()[rows], network(images[rows]).softmax(1)
    torch.testing.assert_close(slope.values, (p * (p / q).log()).sum(1))


@pytest.mark.parametrize("loss", ROBUST, ids=NAMES)
def test_a_radius_of_nothing_is_plain_training(loss):
    network, (images, labels) = net(norm=False), batch()
    still = type(loss)(Linf(0.0))
    torch.testing.assert_close(
        taught(still, network, images, labels), taught(Plain(), network, images, labels)
    )


@pytest.mark.parametrize("loss", ROBUST, ids=NAMES)
def test_nothing_is_left_behind_but_what_teaching_leaves(loss):
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
def test_what_batchnorm_does_during_the_attack_is_said(mode):
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
def test_a_view_changes_how_passes_run_and_not_what_is_taught(loss):
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
def test_what_cannot_be_is_told_at_the_door(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


# in training


class Keeps(pl.Callback):
    """The radius, by what an attack was given."""

    def __init__(self):
        self.radii: list[float] = []

    def attack(self, network, images, labels, threat, *, generator):
        self.radii.append(threat.epsilon)
        return STILL(network, images, labels, threat)


def trained(
    loss: Loss, network: nn.Module, folder: Path, *, epochs: int = 2, resume: Path | None = None, **options
):
    """A `Classifier` after some epochs of three batches of four."""
    torch.manual_seed(1)
    model = Classifier(network, classes=3, loss=loss, lr=0.05)
    trainer = pl.Trainer(
        max_epochs=epochs, default_root_dir=folder, **QUIET, **{"enable_checkpointing": False, **options}
    )
    trainer.fit(model, DataLoader(TensorDataset(*batch()), 4), ckpt_path=resume)
    return model, trainer


def loop(loss: Loss, network: nn.Module, *, epochs: int = 2, accumulated: int = 1) -> nn.Module:
    """The same, written by hand."""
    torch.manual_seed(1)
    network.train()
    own = list(network.parameters())
    groups = [
        {"params": [p for p in own if p.dim() > 1]},
        {"params": [p for p in own if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, 0.05, weight_decay=0.01)
    images, labels = batch()
    steps = epochs * -(-3 // accumulated)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    for _ in range(epochs):
        optimizer.zero_grad()
        for number in range(3):
            part = slice(4 * number, 4 * number + 4)
            (loss(network, images[part], labels[part]) / accumulated).backward()
            if (number + 1) % accumulated == 0 or number == 2:
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    return network


def same(one: nn.Module, other: nn.Module, **within) -> None:
    state = {name.replace("_orig_mod.", ""): value for name, value in one.state_dict().items()}
    for name, value in other.state_dict().items():
        torch.testing.assert_close(state[name], value, **(within or {"rtol": 0, "atol": 0}))


class ByHand:
    """PGD from the image itself, written out; what it leaves in `.grad` it cleans up nowhere."""

    def __call__(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        twin = copy.deepcopy(network).eval()
        moved = images
        for _ in range(3):
            moved = moved.detach().requires_grad_()
            F.cross_entropy(twin(moved), labels, reduction="sum").backward()
            moved = (moved + 2.5 * 0.1 / 3 * moved.grad.sign()).clamp(images - 0.1, images + 0.1).clamp(0, 1)
        return F.cross_entropy(network(moved.detach()), labels)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_weights_are_those_of_a_loop_by_hand(tmp_path, accumulated):
    model, _ = trained(
        Adversarial(THREAT, attack=STILL), net(), tmp_path, accumulate_grad_batches=accumulated
    )
    same(model.network, loop(ByHand(), net(), accumulated=accumulated), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("loss", "backend"),
    [(ROBUST[0], "eager"), (ROBUST[1], "aot_eager"), (ROBUST[2], "eager")],
    ids=NAMES[:3],
)
def test_a_compiled_network_learns_the_same(tmp_path, loss, backend):
    torch._dynamo.reset()
    plain, _ = trained(loss, net(), tmp_path)
    compiled, _ = trained(loss, torch.compile(net(), backend=backend), tmp_path)
    same(compiled.network, plain.network, **({} if backend == "eager" else {"rtol": 1e-4, "atol": 1e-5}))


@pytest.mark.parametrize("loss", ROBUST, ids=NAMES)
def test_under_bf16_the_attack_is_in_float32(tmp_path, loss):
    network, (images, labels) = net().eval(), batch()
    seen = []
    network.register_forward_hook(lambda _, args, out: seen.append((args[0].detach().clone(), out.dtype)))
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(float(loss(network, images, labels).detach()))
    plain, mixed = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    taught_by = 2 if isinstance(loss, Trades) else 1
    assert all(torch.equal(one[0], other[0]) for one, other in zip(plain, mixed, strict=True))
    assert [dtype for _, dtype in mixed[-taught_by:]] == [torch.bfloat16] * taught_by
    assert {dtype for _, dtype in mixed[:-taught_by]} == {torch.float32}
    assert found[0] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.05)
    model, _ = trained(loss, net(), tmp_path, precision="bf16-mixed")
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in model.parameters())


class Frozen(Net):
    """Its first stage learns nothing."""

    def __init__(self):
        super().__init__(dropout=0.3)
        self.conv.requires_grad_(False)
        self.norm.requires_grad_(False)

    def train(self, mode: bool = True):
        super().train(mode)
        self.norm.eval()
        return self


@pytest.mark.parametrize("loss", ROBUST, ids=NAMES)
def test_a_frozen_stage_stays_as_it_is_bit_for_bit(tmp_path, loss):
    torch.manual_seed(0)
    network = Frozen().train()
    network.norm.running_mean.uniform_()
    before = copy.deepcopy(network.state_dict())
    model, _ = trained(loss, network, tmp_path)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("head")), name
    assert not any(p.requires_grad for p in [*network.conv.parameters(), *network.norm.parameters()])


def test_the_radius_grows_with_the_training_and_goes_on_where_a_resumed_run_stopped(tmp_path):
    keeps = Keeps()
    loss = Adversarial(Linf(0.6), attack=keeps.attack, warmup=0.5)
    trained(loss, net(), tmp_path, epochs=4)
    expected = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, *[0.6] * 6]
    assert keeps.radii == pytest.approx(expected)

    class Ends(pl.Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = True

    keeps.radii.clear()
    _, trainer = trained(loss, net(), tmp_path, epochs=4, callbacks=[Ends()])
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    trained(loss, net(), tmp_path, epochs=4, resume=tmp_path / "stopped.ckpt")
    assert keeps.radii == pytest.approx(expected)


@pytest.mark.parametrize("loss", ROBUST, ids=NAMES)
def test_a_loss_grows_to_itself(loss):
    assert isinstance(loss, Growing)
    assert loss.at(0.3) is loss
    growing = type(loss)(Linf(0.6), warmup=0.5)
    assert growing.at(0.25) == type(loss)(Linf(0.3))
    assert growing.at(0.5) is growing


def test_a_step_of_its_own_grows_with_the_radius():
    assert Adversarial(THREAT, step_size=0.04, warmup=0.5).at(0.25) == Adversarial(Linf(0.05), step_size=0.02)
    assert Trades(THREAT, step_size=0.04, warmup=0.5).at(0.25) == Trades(Linf(0.05), step_size=0.02)


def test_a_warm_up_of_a_training_without_end_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"warmup=0.5 is a share of a training that has no end; say max_epochs"
    ):
        trained(Adversarial(THREAT, warmup=0.5), net(), tmp_path, epochs=-1, max_time="00:00:00:20")


def test_fast_falls_back_on_pgd_within_the_same_threat():
    assert Fast(THREAT, gradient_pass=FAST, warmup=0.2).fall_back() == Adversarial(
        THREAT, gradient_pass=FAST, warmup=0.2
    )


# in validation


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
    said = pl.Trainer(**QUIET).validate(Classifier(net(), classes=3), loader, verbose=False)[0]
    assert said.keys() == {"val/loss", "val/accuracy"}


def test_attacks_for_other_parts_are_refused():
    with pytest.raises(ValueError, match=r'attacks for validate; wanted one for "val", one for "test"'):
        Classifier(net(), classes=3, threat=THREAT, attacks={"validate": STILL})


# in two processes


@pytest.mark.ranks
def test_two_processes_learn_what_one_learns(tmp_path, monkeypatch):
    two_of(DDP, tmp_path / "two", 2).check_returncode()
    for name in ("pgd", "fgsm"):  # of which the training changes the draws
        monkeypatch.setattr(losses, name, getattr(losses, name))
    runpy.run_path(str(DDP))["main"](tmp_path / "one", 1)
    (first, second), (alone,) = (
        [torch.load(file, weights_only=True) for file in sorted((tmp_path / folder).glob("*.pt"))]
        for folder in ("two", "one")
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5)
    assert 0 < float(alone["val/robust accuracy"]) < float(alone["val/accuracy"])
