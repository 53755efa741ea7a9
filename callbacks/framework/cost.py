"""The cost of a probe's run and of the training, measured before training."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from math import inf
from time import perf_counter

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fulgurite.callbacks.framework.observation import network_of, prepared_network
from fulgurite.callbacks.framework.probe import Probe
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.composites import shown_as
from fulgurite.probes.frozen_eval import frozen_eval

PASSES = 3
"""Forward passes that a step of training takes as long as, where its backward pass cannot be measured."""
TRIED = 1 / 16  # of the steps of a subject, by which their time is measured
FEWEST = 16  # images, of a probe that looks at fewer
FEW, MORE = 4, 10  # images, by which the time of an image is measured
IMAGES, PAST = 8, 50
"""Images of the passes on a CPU that tell the time of training: at most one for so many to train on."""


@dataclass(frozen=True)
class Cost:
    """What a run of a probe takes.

    Args:
        each: seconds for the steps of each subject, or for each image; infinite if not measured.
        count: how many there are.
        least: how many it looks at, at least; a part of one is one by fewer steps.
        fixed: seconds besides.
        first: seconds for each subject besides its steps.
        always: it runs before training in any case.
    """

    each: float
    count: int
    least: float
    fixed: float = 0.0
    first: float = 0.0
    always: bool = False

    @property
    def measured(self) -> bool:
        """Whether it is known."""
        return self.each < inf

    def number(self, share: float) -> float:
        """At how many it looks: a share of what there is."""
        wanted = max(self.least, share * self.count)
        return int(wanted) if wanted >= 1 else wanted

    def seconds(self, share: float) -> float:
        """What a run on a share of what there is takes."""
        number = self.number(share)
        return self.fixed + self.first * max(1.0, number) + self.each * number


def training_seconds(trainer: pl.Trainer, pl_module: pl.LightningModule, sample: Sample) -> float | None:
    """About how long training will take, by passes of the network; None if its end is not known.

    A step that does more than a forward and a backward pass takes longer.
    """
    size = _batch_size(trainer.train_dataloader)
    epochs, total = trainer.max_epochs, float("inf")
    if epochs is not None and epochs > 0:
        total = trainer.num_training_batches * epochs
    if trainer.max_steps > 0:
        total = min(total, trainer.max_steps * trainer.accumulate_grad_batches)
    if size is None or total == float("inf"):
        return None
    batch = _batch_size(trainer.val_dataloaders)
    validated = 0.0 if batch is None else batch * sum(trainer.num_val_batches)
    images = sample[: max(1, min(IMAGES, int(size * total / PAST)))].images
    if images.is_cuda:  # a GPU takes hardly longer for a whole batch
        images = images.repeat(-(-int(size) // len(images)), 1, 1, 1)[: int(size)]
    forward, both = _passes(network_of(pl_module), images, _learning(trainer))
    return both * size * total + forward * validated * total / trainer.num_training_batches


def _learning(trainer: pl.Trainer) -> list[nn.Parameter]:
    """What the optimisers change at first: a fine-tuning freezes its groups only when training starts."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    own = [parameter for group in groups if not group.get("frozen") for parameter in group["params"]]
    return [parameter for parameter in own if parameter.requires_grad]


def _passes(network: nn.Module, images: Tensor, learning: Sequence[nn.Parameter]) -> tuple[float, float]:
    """Seconds for an image: of a forward pass; and of one with the backward pass to what learns."""
    with frozen_eval(network) as own:
        with torch.no_grad():
            own(images[:1])
            _wait(images)
            started = perf_counter()
            own(images)
            _wait(images)
            forward = (perf_counter() - started) / len(images)
        learns = {id(parameter) for parameter in learning}
        # as other tensors, as hooks of the parameters are for training alone
        changed = {
            name: parameter.detach().requires_grad_()
            for name, parameter in own.named_parameters()
            if id(parameter) in learns
        }
        started = perf_counter()
        answer = functional_call(own, changed, (images,))
        if not isinstance(answer, Tensor) or not answer.requires_grad:
            return forward, PASSES * forward
        torch.autograd.grad(answer.sum(), [*changed.values()], allow_unused=True)
        _wait(images)
        return forward, (perf_counter() - started) / len(images)


def _batch_size(loader: object) -> float | None:
    """The images of a batch; their average, where a sampler makes batches of its own."""
    size = getattr(loader, "batch_size", None)
    if isinstance(size, int):
        return size
    dataset = getattr(loader, "dataset", None)
    if isinstance(loader, Sized) and isinstance(dataset, Sized) and len(loader):
        return len(dataset) / len(loader)
    return None


def cost_of(probe: Probe, pl_module: pl.LightningModule, *, measured: bool) -> tuple[Cost, float]:
    """What a run of a probe takes, by its first subject or by a few images; and how long measuring took.

    Nothing is kept or logged. Infinite where it is not measured; nothing where the run fails.
    """
    sample, begun, cost = probe.sample, perf_counter(), Cost(0.0, 0, 0)
    assert sample is not None
    try:
        with prepared_network(probe, network_of(pl_module)) as network, shown_as(probe.composite):
            if probe.reference is not None:
                probe.reference.begin(network)
            measure = _by_images if probe.fewer == "images" else _by_subjects
            cost = measure(probe, network, sample, measured=measured)
    except Exception:  # its first run will fail as well, and is reported
        pass
    probe.memory.take_new()
    seconds = perf_counter() - begun
    probe.seconds += seconds
    return cost, seconds


def _by_subjects(probe: Probe, network: nn.Module, sample: Sample, *, measured: bool) -> Cost:
    subjects = probe.subjects(network, sample)
    if not subjects:
        return Cost(0.0, 0, 0)
    always = probe.reference is not None
    if not measured:
        return Cost(inf, len(subjects), probe.least, always=always)
    if probe.least == 1:
        each = probe.seconds_for(network, sample, subjects[:1])
        return Cost(each, len(subjects), 1, always=always)
    _, few, more = (_by_a_part(probe, network, sample, subjects[:1], part) for part in (0.0, 0.0, TRIED))
    each = max(0.0, more - few) / TRIED
    return Cost(each, len(subjects), probe.least, first=few, always=always)


def _by_a_part(
    probe: Probe, network: nn.Module, sample: Sample, subjects: Sequence[str], part: float
) -> float:
    try:
        probe.tried = part
        return probe.seconds_for(network, sample, subjects)
    finally:
        probe.tried = 1.0


def _by_images(probe: Probe, network: nn.Module, sample: Sample, *, measured: bool) -> Cost:
    samples, always = (probe.sample, probe.training_sample), probe.reference is not None

    def seconds(count: int) -> float:
        try:
            probe.sample, probe.training_sample = probe.fewer_images(count)
            assert probe.sample is not None
            return probe.seconds_for(network, probe.sample, probe.subjects(network, probe.sample))
        finally:
            probe.sample, probe.training_sample = samples

    least = min(len(sample), max(FEWEST, int(probe.least)))
    if not measured:
        return Cost(inf, len(sample), least, always=always)
    if len(sample) <= least:
        return Cost(0.0, len(sample), len(sample), fixed=seconds(len(sample)), always=always)
    seconds(FEW)  # what is done once only
    many = max(MORE, int(probe.least))
    few, more = seconds(FEW), seconds(many)
    each = max(0.0, more - few) / (many - FEW)
    return Cost(each, len(sample), least, fixed=max(0.0, few - FEW * each), always=always)


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
