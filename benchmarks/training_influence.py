"""Training influence: TRAK, TracIn and similarity of codes against retraining on halves of the images.

python -m benchmarks.training_influence [--quick]

Digits at 16 px, a small CNN. Each of 40 halves of the training images trains five networks; their mean margin
of 40 test images is compared by rank with the sum of the influences of the images that were left in
(the linear datamodelling score of Park et al. 2023), and averaged over the test images. Time is CPU time,
compared with training all networks once.
"""

import argparse
from time import process_time

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.timing import show
from fulgurite.data.digits import Digits
from fulgurite.probes.predict import predict
from fulgurite.probes.representation.codes import codes
from fulgurite.probes.representation.training_influence import training_influence

SHARE, TESTED = 0.5, 40


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 10)),
    )


def trained(
    images: Tensor, labels: Tensor, seed: int, epochs: int
) -> tuple[nn.Sequential, list[nn.Sequential]]:
    """A network, and its checkpoints at a third, two thirds and the end of its training."""
    net, kept = network(seed), []
    steps = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(64):
            steps.zero_grad()
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
            steps.step()
        if (epoch + 1) % (epochs // 3) == 0:
            kept.append(network(seed))
            kept[-1].load_state_dict(net.state_dict())
    return net.eval(), [one.eval() for one in kept]


def margins(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    logits = predict(net, images)
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)


def rank_correlation(one: Tensor, other: Tensor) -> float:
    return float(np.asarray(spearmanr(one.numpy(), other.numpy())[0]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="16 networks of 6 epochs, not 200 of 12")
    quick = parser.parse_args().quick
    count, repeats, epochs = (16, 1, 6) if quick else (40, 5, 12)
    torch.set_num_threads(1)
    train, _, test = Digits(size=16).parts()
    images, labels = train.images, train.labels
    asked, classes = test.images[:TESTED], test.labels[:TESTED]
    whole, checkpoints = zip(
        *(trained(images, labels, seed, epochs) for seed in range(100, 105)), strict=True
    )
    started, answers, kept = process_time(), [], []
    for seed in range(count):
        rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(1000 + seed))
        rows = rows[: round(SHARE * len(images))]
        nets = (trained(images[rows], labels[rows], number, epochs)[0] for number in range(repeats))
        answers.append(torch.stack([margins(net, asked, classes) for net in nets]).mean(0))
        kept.append(torch.zeros(len(images), dtype=torch.float64).index_fill_(0, rows, 1))
    retraining, measured, inside = process_time() - started, torch.stack(answers), torch.stack(kept)

    def alike() -> Tensor:
        own, theirs = (F.normalize(codes(whole[0], part).double(), dim=1) for part in (images, asked))
        same = torch.where(labels[None] == classes[:, None], 1, -1)
        return theirs @ own.T * same

    ways = {
        "TRAK, 5 networks": lambda: training_influence(whole, (images, labels), asked, classes),
        "TRAK, 1 network": lambda: training_influence(whole[:1], (images, labels), asked, classes),
        "TracIn, 3 checkpoints of 1 network": lambda: training_influence(
            checkpoints[0], (images, labels), asked, classes, method="tracin"
        ),
        "similarity of codes": alike,
    }
    rows = []
    for name, way in ways.items():
        started = process_time()
        predicted = inside @ way().T
        seconds = process_time() - started
        ranks = [rank_correlation(predicted[:, k], measured[:, k]) for k in range(len(asked))]
        rows.append([name, sum(ranks) / len(ranks), seconds, retraining / seconds])
    show(
        f"{count * repeats} networks retrained on {count} halves of the digits in {retraining:.0f} s, "
        f"{TESTED} test images.\n"
        "Bars: rank correlation 0.3 for TRAK or TracIn, above codes, at a hundredth of the time",
        ["by", "rank correlation", "s", "times faster"],
        rows,
    )


if __name__ == "__main__":
    main()
