"""Min-max losses in a Lightning training."""

import copy
import runpy
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from processes import two_of
from small_training import NAMES, QUIET, ROBUST, STILL, THREAT, Net, batch, net
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.models import losses
from fulgurite.models.classifier import Classifier, warm_cosine
from fulgurite.models.losses import Adversarial, Fast, Growing, Loss, Trades
from fulgurite.probes.attacks.gradient_pass import FAST
from fulgurite.probes.attacks.threat import Linf

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:Found .* in eval mode"
)

DDP = Path(__file__).with_name("two_trainings.py")


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


@pytest.mark.slow
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


def test_the_radius_grows_with_the_training_and_continues_after_a_resume(tmp_path):
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


# in two processes


@pytest.mark.slow
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
    assert first.keys() == second.keys() == alone.keys()
    for way, found in first.items():
        for name, value in found.items():
            # statistics are each process's own while it learns
            if not (way == "perturbed, learning" and "running" in name):
                assert torch.equal(value, second[way][name]), (way, name)
            if way in ("every", "free"):
                torch.testing.assert_close(value, alone[way][name], rtol=1e-4, atol=1e-5)
    every = alone["every"]
    assert 0 < float(every["val/robust accuracy"]) < float(every["val/accuracy"])
    average, learnt = (first[way] for way in ("perturbed", "perturbed, learning"))
    assert not torch.equal(average["network.4.weight"], learnt["4.weight"])
