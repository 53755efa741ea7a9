"""Time and strength of adversarial attacks: ours, the bare passes, and peers.

python -m benchmarks.attacks [--quick] [--only trades|speed|strength] [--threads N]

Needs torchattacks, foolbox and pyautoattack: python -m benchmarks.peers

The first table is speed: PGD-20 on a batch of 128 images of 32 px compared with the bare forward and
input-gradient passes of the network; then the time saved by dropping misclassified images. The second is
strength: the robust accuracy of a standard and an adversarially trained network on scikit-learn's digits
(8 x 8 pixels, Linf 0.15) that ours and the peers find, and the seconds it took them. The reference is the
authors' own AutoAttack, which PyPI has as pyautoattack.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from benchmarks.peers import missing
from benchmarks.timing import in_turn, show
from fulgurite.models.losses import Adversarial, Plain, Trades
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.gradient_pass import FAST, PLAIN, GradientPass
from fulgurite.probes.attacks.threat import Linf, Threat
from fulgurite.probes.robustness.evaluate import curve, evaluate

THREAT, STEPS = Linf("8/255"), 20
DIGITS = Linf(0.15)
GRADIENT_PASSES = {
    "ours": PLAIN,
    "ours, folded + channels_last": FAST,
    "ours, bf16 too": GradientPass(True, True, torch.bfloat16),
}
Images = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.ways = nn.Sequential(*stage(inputs, outputs, stride), *stage(outputs, outputs, 1)[:2])
        self.around = nn.Sequential(*stage(inputs, outputs, stride, 1)[:2]) if stride > 1 else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.ways(images) + self.around(images))


def stage(inputs: int, outputs: int, stride: int, size: int = 3) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def head(features: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 10)]


def small_cnn() -> nn.Module:
    return nn.Sequential(*stage(3, 32, 1), *stage(32, 64, 2), *stage(64, 128, 2), *head(128)).eval()


def resnet20() -> nn.Module:
    shapes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    return nn.Sequential(*stage(3, 16, 1), *[Block(*shape) for shape in shapes], *head(64)).eval()


def bare(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """The forward and backward passes that any attack of that many steps needs."""
    for _ in range(STEPS):
        pixels = images.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(network(pixels), labels, reduction="sum"), pixels)


def peers(network: nn.Module) -> dict[str, Callable[[Tensor, Tensor], object]]:
    """PGD-20 of the peers at the same settings."""
    import foolbox  # pyright: ignore[reportMissingImports]
    import torchattacks  # pyright: ignore[reportMissingImports]

    eps, size = THREAT.epsilon, 2.5 * THREAT.epsilon / STEPS
    theirs = torchattacks.PGD(network, eps=eps, alpha=size, steps=STEPS)
    wrapped = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")  # pyright: ignore[reportPrivateImportUsage]
    linf = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=STEPS)
    return {"torchattacks": theirs, "foolbox": lambda x, y: linf(wrapped, x, y, epsilons=eps)}


def pgd_rows(*, quick: bool) -> list[list]:
    rows = []
    for name, make in (("CNN 32-64-128", small_cnn), ("ResNet-20", resnet20)):
        torch.manual_seed(0)
        images, labels, network = torch.rand(128, 3, 32, 32), torch.randint(10, (128,)), make()
        network.requires_grad_(False)
        contestants: dict[str, Callable[[], object]] = {"bare passes": partial(bare, network, images, labels)}
        for who, gradient_pass in GRADIENT_PASSES.items():
            contestants[who] = partial(
                pgd, network, images, labels, THREAT, steps=STEPS, gradient_pass=gradient_pass
            )
        for who, attack in peers(network).items():
            contestants[who] = partial(attack, images, labels)
        seconds = in_turn(contestants, repeats=3 if quick else 7)
        rows += [
            [f"PGD-20, {name}", who, took, took / seconds["bare passes"]] for who, took in seconds.items()
        ]
    return rows


def product_rows() -> list[list]:
    """The speed of matrix products in bf16: a CPU without matrix units for it is slower than in float32."""
    ones = {kind: torch.rand(1024, 1024).to(kind) for kind in (torch.float32, torch.bfloat16)}
    seconds = in_turn({str(kind): partial(torch.mm, one, one) for kind, one in ones.items()}, repeats=15)
    first = seconds["torch.float32"]
    return [["a matrix product", who, took, took / first] for who, took in seconds.items()]


def saving_rows(network: nn.Module, images: Images) -> list[list]:
    """The time saved by dropping misclassified images, and by reusing smaller radii for a curve."""
    radii = [0.03 * k for k in range(1, 11)]
    attack = partial(pgd, steps=50, restarts=5)
    without = {
        "every image to the end": lambda: [pgd_to_the_end(network, images, DIGITS, 50) for _ in range(5)]
    }
    dropping = {
        "ours, dropping": lambda: evaluate(network, *images, DIGITS, {"PGD": partial(attack, drop=True)})
    }
    short = partial(pgd, steps=20, drop=True)
    apart = {
        "each radius by itself, to the end": lambda: [
            pgd_to_the_end(network, images, DIGITS.at(radius), 20) for radius in radii
        ]
    }
    curves = {"ours, one curve": lambda: curve(network, *images, DIGITS, radii, attack=short)}
    rows = []
    for what, contestants in (
        ("PGD-50 x 5, undefended", {**dropping, **without}),
        ("10 radii", {**curves, **apart}),
    ):
        seconds = in_turn(contestants, repeats=5)
        first = next(iter(seconds.values()))
        rows += [[what, who, took, took / first] for who, took in seconds.items()]
    return rows


def pgd_to_the_end(network: nn.Module, images: Images, threat: Threat, steps: int) -> Tensor:
    return pgd(network, *images, threat, steps=steps)


def trades_rows(*, quick: bool) -> list[list]:
    """The inner loop of TRADES, and one that recomputes the clean predictions at every step."""
    rows = []
    for name, make in (("CNN 32-64-128", small_cnn), ("ResNet-20", resnet20)):
        torch.manual_seed(0)
        images, labels, network = torch.rand(128, 3, 32, 32), torch.randint(10, (128,)), make()
        network.requires_grad_(False)
        contestants = {
            "ours": partial(Trades(THREAT, steps=STEPS).moved, network, images, labels),
            "recomputing": partial(recomputing, network, images),
        }
        seconds = in_turn(contestants, repeats=5 if quick else 9)
        what = f"TRADES, inner loop, {name}"
        rows += [[what, who, took, took / seconds["ours"]] for who, took in seconds.items()]
    return rows


def recomputing(network: nn.Module, images: Tensor) -> None:
    moved = images + 0.001 * torch.randn_like(images)
    for _ in range(STEPS):
        moved = moved.detach().requires_grad_()
        clean = F.softmax(network(images), 1)
        apart = F.kl_div(F.log_softmax(network(moved), 1), clean, reduction="sum")
        (gradient,) = torch.autograd.grad(apart, moved)
        moved = THREAT.project(moved + 2.5 * THREAT.epsilon / STEPS * gradient.sign(), images)


def digits() -> tuple[Images, Images]:
    """Training and test images, 75 and 25 %."""
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    train, test, train_labels, test_labels = (torch.from_numpy(part) for part in parts)
    shaped = [part.float().view(-1, 1, 8, 8) for part in (train, test)]
    return (shaped[0], train_labels.long()), (shaped[1], test_labels.long())


def trained(loss: Plain | Adversarial, images: Images, *, epochs: int = 30) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    count = -(-len(images[0]) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * count)
    for _ in range(epochs):
        for rows in torch.randperm(len(images[0])).split(64):
            optimizer.zero_grad()
            loss(network, images[0][rows], images[1][rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def strength_rows(name: str, network: nn.Module, images: Images, few: Images) -> list[list]:
    """PGD (mean of ten starts) and the ensemble, ours and the peers': robust accuracy in %, and seconds."""
    import foolbox  # pyright: ignore[reportMissingImports]
    import torchattacks  # pyright: ignore[reportMissingImports]

    pixels, labels = images
    eps, size = DIGITS.epsilon, 2.5 * DIGITS.epsilon / 50
    wrapped = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")  # pyright: ignore[reportPrivateImportUsage]
    linf = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=50)
    theirs = torchattacks.PGD(network, eps=eps, alpha=size, steps=50)

    def ours(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return pgd(network, pixels, labels, DIGITS, steps=50, generator=generator)

    starts = {
        "ours": ours,
        "torchattacks": lambda _: theirs(pixels, labels),
        "foolbox": lambda _: linf(wrapped, pixels, labels, epsilons=eps)[1],
    }
    ensembles = {
        "ours": lambda _: evaluate(network, *few, DIGITS).images,
        "AutoAttack": lambda _: reference(network, *few),
    }
    rows = []
    for what, contestants, runs, count in (
        ("PGD-50", starts, 10, len(labels)),
        ("ensemble", ensembles, 1, len(few[1])),
    ):
        took = {}
        for who, attack in contestants.items():
            torch.manual_seed(0)
            started = perf_counter()
            moved = [attack(seed) for seed in range(runs)]
            took[who] = (perf_counter() - started) / runs
            answers = labels[:count]
            with torch.no_grad():
                right = [float((network(some).argmax(1) == answers).float().mean()) for some in moved]
            mean = 100 * sum(right) / runs
            rows.append([f"{what}, {name}, n={count}", who, mean, took[who], took[who] / took["ours"]])
    return rows


def reference(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """AutoAttack's standard ensemble at its defaults."""
    from pyautoattack import AutoAttack  # pyright: ignore[reportMissingImports]

    attack = AutoAttack(network, norm="Linf", eps=DIGITS.epsilon, seed=0, device="cpu")
    return attack.run_standard_evaluation(images, labels, batch_size=250)[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and 150 of 450 digits")
    parser.add_argument("--only", choices=["trades", "speed", "strength"], help="one of the tables")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    if lack := missing("torchattacks", "foolbox", "pyautoattack"):
        parser.error(lack)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    if args.only in (None, "trades"):
        show(
            "TRADES, its inner loop; bar: 1.4 x faster than computing the clean prediction at each step",
            ["what", "by", "s", "x first"],
            trades_rows(quick=args.quick),
        )
    if args.only == "trades":
        return
    train, test = digits()
    few = (test[0][:150], test[1][:150]) if args.quick else test
    standard, robust = trained(Plain(), train), trained(Adversarial(DIGITS, steps=7), train)
    if args.only in (None, "speed"):
        show(
            "Attacks; bars: PGD-20 at most 1.02 x bare, folded + channels_last 0.75 x, bf16 too 0.42 x\n"
            "(where a matrix product is faster in it); evaluation at least 2.5 x and curve 1.5 x faster",
            ["what", "by", "s", "x first"],
            pgd_rows(quick=args.quick) + product_rows() + saving_rows(standard, few),
        )
    if args.only in (None, "strength"):
        strength = strength_rows("standard", standard, test, few)
        strength += strength_rows("adversarially trained", robust, test, few)
        show(
            "Strength on digits, Linf 0.15; bars: PGD within 0.5 points of the peers', the ensemble never\n"
            "above the reference by more than 0.2 points, and at least 1.3 x faster",
            ["what", "by", "robust %", "s", "x ours"],
            strength,
        )


if __name__ == "__main__":
    main()
