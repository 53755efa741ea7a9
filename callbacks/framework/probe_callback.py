"""ProbeCallback: the base class of all probes that run during training."""

from abc import ABC

import lightning.pytorch as pl

from fulgurite.callbacks.framework.probe import Probe
from fulgurite.callbacks.framework.session import session_of


class ProbeCallback(Probe, ABC):
    """Runs before training, after every `every` epochs and at the end; logs what it sees.

    A new probe writes two methods, `subjects` and `observe`, and may write `check` and `compose`:

        class Brightness(ProbeCallback):
            def subjects(self, network, sample):
                return sample.each()

            def observe(self, network, sample, subjects):
                images = sample.take(subjects).images
                return {name: Scalar(image.mean()) for name, image in zip(subjects, images)}

    It works with any LightningModule whose `forward` maps images to logits; a module may have a property
    `network_to_probe` that names the part to look at instead. A probe that needs no logits sets `needs` to
    what it reads: the outputs of "layers", or only "weights". Training stays the same, bit for bit. In
    `Trainer.validate` it runs once, at the step of the checkpoint. It logs to the boards of the Trainer's
    loggers (TensorBoard, Weights & Biases, MLflow), or else to a plain folder.

    While it runs, it may read `look` (step, epoch, whether it is the first or the last time), `memory` (what
    it has kept of each subject), `reference` (a network to compare with, if it has set one) and
    `training_sample` (as many training images as it has set `training_images` to, where there are any).

    Args:
        every: epochs from one run of the probe to the next; it also runs at the end, however training ends.
        images: how many validation images to look at, spread evenly over the set (training images, if there
            are no others: tags then include that); None for all.
        mean: the mean per channel that the data are normalised by, if that is outside the network; pictures,
            gradients and so on are still in [0, 1].
        std: the standard deviation per channel, likewise.
        classes: the names of the classes, if neither data set, data module nor model has them as `classes`.
        task: "multiclass", "binary" (one logit), "multilabel" or "regression"; without it, the model's
            attribute `task`, or as inferred from the shapes of logits and labels. A binary network has two
            classes, whose logits are -z/2 and z/2.
        label: of a multi-label network, the one label to look at, by name or number, as class 1 of two.
        composite: how images of 2, 4 or more channels are shown: a name in `COMPOSITES`, or the numbers of
            the channels that are red, green and blue; the first three without it.
        budget: how much of the training time all probes of a Trainer with a budget may take, 0.1 for a tenth.
            Without one, it runs each time; with one, at the end, and before training where a short run can
            afford it, on fewer images or classes if need be; one that does not fit is left out, with a line.
        on_error: what to do when it fails: "warn" and train on, or "raise" on every process.
        name: what its tags begin with; the class's name without one. Two of a class need two names.
        seed: of its random draws.
        pictures: a folder to also write every picture to, as PNG.
        theme: of its pictures: "dark", or "light" for papers; that of the run without it.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Run the checks that need no data."""
        self.is_set_up = True
        session_of(trainer).check_trainer(self, trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        """Remember the step and the epoch that the weights are from: a validating trainer is at 0."""
        session = session_of(trainer)
        session.checkpoint_step = checkpoint.get("global_step", 0)
        fit_loop = checkpoint.get("loops", {}).get("fit_loop", {})
        # after the last epoch, "epoch" is one more than it was at that epoch's end
        done = fit_loop.get("epoch_progress", {}).get("current", {})
        session.checkpoint_epochs = done.get("processed", checkpoint.get("epoch", -1) + 1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run on the untrained network."""
        session_of(trainer).start(self, trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run, if it is due."""
        session_of(trainer).end_epoch(self, trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run on a finished network."""
        session_of(trainer).look_at_finished(self, trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run, if training ended between two epochs that are due, and log the film of the training."""
        session_of(trainer).end(self, trainer, pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Log the film so far, without the other processes: they may have ended already."""
        if isinstance(exception, KeyboardInterrupt):
            session_of(trainer).interrupt(self, trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what the probes took."""
        session_of(trainer).say_what_it_took(self, trainer)
