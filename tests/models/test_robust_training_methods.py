"""MART, Free, adversarial weight perturbation and weight averaging against loops written from the papers."""

import copy
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from small_training import QUIET, STILL, THREAT, batch, net
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.callbacks.weight_average import WeightAverage, _measure
from fulgurite.models.classifier import Classifier
from fulgurite.models.free_training import Free
from fulgurite.models.losses import Adversarial, Fast, Growing, Plain, Trades
from fulgurite.models.mart import Mart
from fulgurite.models.min_max import MinMax
from fulgurite.models.weight_perturbation import WeightPerturbed
from fulgurite.probes.attacks.threat import L2, Linf

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
LOSSES = [
    Adversarial(THREAT, attack=STILL),
    Trades(THREAT),
    Mart(THREAT),
    Fast(THREAT),
    Free(THREAT, replays=2),
]


def trained(
    loss, network: nn.Module, folder: Path, *, epochs: int = 2, resume: Path | None = None, **options
):
    """A `Classifier` after some epochs of three batches of four."""
    torch.manual_seed(1)
    model = Classifier(network, classes=3, loss=loss, optimizer="sgd", lr=0.1, weight_decay=0.0, seed=0)
    options = {"enable_checkpointing": False, **options}
    trainer = pl.Trainer(max_epochs=epochs, default_root_dir=folder, **QUIET, **options)
    trainer.fit(model, DataLoader(TensorDataset(*batch()), 4))
    return model, trainer


def same(one: nn.Module, other: nn.Module, **within) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], **(within or {"rtol": 0, "atol": 0}))


def test_mart_is_the_loss_of_the_paper():
    network, (images, labels) = net().train(), batch()
    moved = (images + 0.1).clamp(0, 1)
    found = Mart(THREAT, beta=3.0).of(network, images, moved, labels)
    twin = net().train()
    p, q = twin(images).softmax(1), twin(moved).softmax(1)
    value = 0.0
    for row, label in enumerate(labels.tolist()):
        wrong = max(float(q[row, other].detach()) for other in range(3) if other != label)
        boosted = -q[row, label].log() - torch.tensor(1.0001 - wrong).log()
        divergence = sum(p[row, k] * (p[row, k].log() - q[row, k].log()) for k in range(3))
        value = value + (boosted + 3.0 * divergence * (1 - p[row, label])) / len(labels)
    torch.testing.assert_close(found, value)


def test_free_takes_as_many_steps_on_a_batch_as_it_has_replays_and_each_moves_the_images(tmp_path):
    model, trainer = trained(Free(THREAT, replays=3), net(norm=False), tmp_path, epochs=1)
    assert trainer.global_step == 3  # batches: the learning rate goes by them
    network, (images, labels), shift = net(norm=False).train(), batch(), torch.zeros(4, 1, 6, 6)
    own = [[p for p in network.parameters() if (p.dim() > 1) is wide] for wide in (True, False)]
    optimizer = torch.optim.SGD([{"params": group} for group in own], 0.1, 0.9, nesterov=True)
    for number, rate in enumerate((1.0, 1.0, 0.5)):  # a warm-up of one batch, then a cosine
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * rate
        rows = slice(4 * number, 4 * number + 4)
        for _ in range(3):
            moved = (images[rows] + shift).clamp(0, 1).requires_grad_()
            optimizer.zero_grad()
            F.cross_entropy(network(moved), labels[rows]).backward()
            shift = (shift + 0.1 * moved.grad.sign()).clamp(-0.1, 0.1)
            optimizer.step()
    same(model.network, network, rtol=1e-5, atol=1e-6)


def test_free_begins_each_epoch_with_nothing_added_and_stays_in_its_ball():
    network, (images, labels), loss = net().train(), batch(), Free(L2(0.5))
    for part in (slice(0, 8), slice(8, 12), slice(0, 8)):
        moved = loss.moved(network, images[part], labels[part])
        assert L2(0.5).distance(moved, images[part]).max() <= 0.5 + 1e-5
        loss.of(network, images[part], moved, labels[part]).backward()
    assert loss.shifts.values.flatten(1).norm(dim=1).allclose(torch.tensor(0.5))
    assert len(loss.shifts.values) == 8
    assert loss.at(0.3) is loss
    grown = Free(Linf(0.4), warmup=0.5)
    assert grown.at(0.25).shifts is grown.shifts
    loss.restart()
    assert torch.equal(loss.moved(network, images, labels), images)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_weights_are_perturbed_by_gamma_and_not_by_a_bit_when_the_step_is_made(loss):
    """Against a copy that is moved, differentiated, and thrown away, as the authors' code has it."""
    network, (images, labels) = net().train(), batch()
    before, moved = copy.deepcopy(network), None
    torch.manual_seed(3)
    value = WeightPerturbed(loss, 0.1)(network, images, labels)
    value.backward()
    for name, weight in network.named_parameters():
        assert torch.equal(weight, before.get_parameter(name)), name
    assert int(network.norm.num_batches_tracked) == (2 if isinstance(loss, Trades | Mart) else 1)
    if hasattr(loss, "restart"):
        loss.restart()
    torch.manual_seed(3)
    twin = copy.deepcopy(before)
    moved = loss.moved(twin, images, labels).detach()
    loss.of(twin, images, moved, labels).backward()
    with torch.no_grad():
        for weight in twin.parameters():
            if weight.dim() > 1:
                weight += 0.1 * weight.norm() * weight.grad / weight.grad.norm()
            weight.grad = None
    expected = loss.of(twin, images, moved, labels)
    expected.backward()
    torch.testing.assert_close(value, expected)
    assert value > loss.of(before, images, moved, labels)  # they are worse weights
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.grad, twin.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


def test_a_perturbed_loss_is_what_its_loss_is():
    assert isinstance(WeightPerturbed(Fast(THREAT)), Growing)
    assert WeightPerturbed(Fast(Linf(0.6), warmup=0.5)).at(0.25) == WeightPerturbed(Fast(Linf(0.3)))
    assert WeightPerturbed(Fast(THREAT)).fall_back() == WeightPerturbed(Fast(THREAT).fall_back())
    assert WeightPerturbed(Mart(THREAT)).fall_back is None
    assert WeightPerturbed(Free(THREAT, replays=5)).replays == 5
    assert all(isinstance(loss, MinMax) for loss in LOSSES)


@pytest.mark.parametrize("norm", [True, False], ids=["BatchNorm", "no norm"])
def test_an_average_does_not_change_the_training_and_has_its_own_statistics(tmp_path, norm):
    plain, _ = trained(LOSSES[0], net(norm=norm), tmp_path)
    seen = list[torch.Tensor]()

    class Keeps(pl.Callback):
        def on_train_epoch_start(self, *_):
            seen.clear()

    network = net(norm=norm)
    network.register_forward_pre_hook(
        lambda own, args: seen.append(args[0].detach()) if own.training and torch.is_grad_enabled() else None
    )
    average = WeightAverage(0.5)
    model, _ = trained(LOSSES[0], network, tmp_path, callbacks=[average, Keeps()])
    assert average.shown
    assert len(network._forward_pre_hooks) == 1  # that of the test
    live = average.state_dict()["other"]
    for name, value in plain.network.state_dict().items():
        assert torch.equal(live[name], value), name
    assert any(not torch.equal(model.network.state_dict()[name], live[name]) for name in live)
    if norm:
        model.network.train()
        conv = model.network.conv
        inputs = [conv(images) for images in seen]
        means = torch.stack([maps.mean((0, 2, 3)) for maps in inputs]).mean(0)
        torch.testing.assert_close(model.network.norm.running_mean, means)


def test_the_average_is_that_of_the_formula(tmp_path):
    """Constant steps: the gradient of a sum of weights is one."""

    class Sum(Plain):
        def __call__(self, network, images, labels):
            return sum(weight.sum() for weight in network.parameters())

    class Rates(pl.Callback):
        def __init__(self):
            self.weights = list[torch.Tensor]()

        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            self.weights.append(pl_module.network.head.bias.detach().clone())

    watch, average = Rates(), WeightAverage(0.2)
    model, _ = trained(Sum(), net(norm=False), tmp_path, callbacks=[average, watch])
    # what training left is in the callback, what it began each step with was seen
    steps = [*watch.weights[1:], average.state_dict()["other"]["head.bias"]]
    expected = watch.weights[0]
    for number, weights in enumerate(steps):
        kept = min(0.2, (1 + number) / (10 + number))
        expected = kept * expected + (1 - kept) * weights
    torch.testing.assert_close(model.network.head.bias.detach(), expected)


def test_synchronised_norms_are_measured_as_others_are(tmp_path):
    """In a process group, the module itself refuses a CPU, and would wait for the other processes."""
    plain, batches = net().eval(), [images for images, _ in (batch(6, seed=k) for k in range(3))]
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        for network in (plain, synchronised):
            _measure(network, [network.norm], batches)
    finally:
        distributed.destroy_process_group()
    same(plain, synchronised)
    assert isinstance(synchronised.norm, nn.SyncBatchNorm)
    assert "forward" not in vars(synchronised.norm)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: WeightPerturbed(Plain()), "Plain is not a min-max loss"),
        (lambda: WeightPerturbed(Fast(THREAT), 0), "gamma=0; wanted a finite share"),
        (lambda: Free(THREAT, replays=0), "replays=0; wanted a whole number"),
        (lambda: Free(THREAT, step=0), "step=0; wanted a finite number of radii"),
        (lambda: Mart(THREAT, beta=-1), "beta=-1; wanted a finite weight"),
        (lambda: WeightAverage(1.0), r"decay=1.0; wanted the share of the average"),
    ],
)
def test_bad_values_are_refused_in_a_sentence(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


def test_free_steps_after_every_batch(tmp_path):
    with pytest.raises(ValueError, match="replays=2 with accumulate_grad_batches=2"):
        trained(Free(THREAT, replays=2), net(), tmp_path, accumulate_grad_batches=2)
