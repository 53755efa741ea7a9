"""Activation maximisation: gradient ascent on images, for any objective, canvas and optimiser."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.batches import Batches, batch_size
from fulgurite.probes.feature_extractor import feature_extractor
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.objectives import Objective
from fulgurite.probes.record import LayerOutputs
from fulgurite.probes.synthesis.after_step import After, Step
from fulgurite.probes.synthesis.canvas import Canvas
from fulgurite.probes.synthesis.gradients import Gradient, shown_at_once, whole
from fulgurite.probes.synthesis.optimizers import By, ImageOptimizer, adam, check_optimiser
from fulgurite.probes.synthesis.priors import Prior
from fulgurite.probes.synthesis.relu_gradients import leak, redirect
from fulgurite.probes.synthesis.transforms import Transform, identity
from fulgurite.probes.synthesis.watch import Best, Watch


def ascend(
    network: nn.Module,
    objective: Objective,
    canvas: Canvas,
    *,
    steps: int,
    by: By = adam(0.05),  # noqa: B008 - it holds no state
    gradient: Gradient = whole,
    priors: Sequence[Prior] = (),
    transform: Transform = identity,
    after: Sequence[After] = (),
    redirected: int = 0,
    relu_leak: float = 0.0,
    reference: Float[Tensor, "n c h w"] | None = None,
    watch: Watch | None = None,
    batch: int | None = None,
    seed: int = 0,
    precise: bool = False,
) -> Float[Tensor, "n c h w"]:
    """Images that maximise an objective less the priors: those on the canvas after `steps` steps.

    Activation maximisation, feature visualization, feature inversion, DeepDream and style transfer are this
    loop with other objectives. Its regularisers are of three kinds: `priors`, `transform` and `after`.

    Images are optimised in batches that fit into memory, independently of each other (but for transforms that
    draw for each image by its place in the batch: `noise`, `affine(each=True)`), and the network runs only as
    deep as the objective reads. An image whose gradient is not finite stays as it is for that step; a warning
    counts them.

    Args:
        network: maps images in [0, 1] to logits.
        objective: a number per image to make large.
        canvas: where the images begin; its parameters are moved.
        steps: how many passes of the network.
        by: the optimiser: `adam`, `sgd`, `lbfgs`, with a learning-rate schedule and a normalised gradient.
        gradient: of the whole images at once, or `tiled`.
        priors: penalties, subtracted from the objective.
        transform: what is done to the images before each step.
        after: what is done to the images after each step, in this order.
        redirected: in how many of the first steps ReLUs are redirected, so that units that are dead at the
            start have a gradient; 16 in Lucid.
        relu_leak: the part of a gradient that ReLUs pass where they output 0, in the steps after those; at
            least 0 and below 1; 0.05 in Mahendran and Vedaldi 2016.
        reference: an image for each, for objectives that compare with one (`exaggeration`, `likeness`): it
            goes through the same transform, with the same draws, and the same layers at each step.
        watch: what to show and to keep on the way.
        batch: how many images at a time; as many as suit the device without it. All, where the objective
            couples them (`diversity`), also when memory runs out.
        seed: of the transform's draws, the same for every batch.
        precise: compute in float64, on a copy of the network. Rounding in float32 depends on the number of
            threads, and an ascent can amplify it to a different image; in float64 it is the same to 1e-5.

    Raises:
        ValueError: the objective does not fit the network or the images, `after` is asked for and the canvas
            cannot be set to images, references are not one for each image or come with tiles, `steps` is
            no whole number, `by` is no optimiser, priors are no list, or `relu_leak` is out of range.
        KeyboardInterrupt: Ctrl-C, unless `watch` keeps the images.
    """
    check_optimiser(by)
    if not isinstance(priors, Sequence) or not isinstance(after, Sequence):
        raise ValueError("priors and after are lists; wanted such as priors=[l2(0.1)]")
    if not isinstance(steps, int) or steps < 0 or (batch is not None and batch < 1):
        raise ValueError(
            f"steps={steps}, batch={batch}; wanted a whole number of steps, and batches of at least 1"
        )
    if not 0 <= relu_leak < 1:
        raise ValueError(
            f"relu_leak={relu_leak}; wanted at least 0, where none of a gradient passes, and below 1"
        )
    with (
        frozen_eval(network, channels_last=True) as net,
        feature_extractor(_doubled(net) if precise else net, objective.layers) as extract,
    ):
        device, dtype = device_of(net), torch.float64 if precise else torch.float32
        with torch.no_grad():
            images_so_far = canvas().to(device, torch.float32, copy=True)
        count, non_finite = len(images_so_far), 0
        _check_reference(reference, images_so_far, gradient)
        if objective.couples:
            batch = count
        if batch is None:
            batch = batch_size(shown_at_once(gradient, images_so_far), device)
        watch = watch or Watch()
        watch.begin(steps, count)

        def run(rows: slice) -> tuple[Canvas, int, list[Tensor]]:
            places = torch.arange(count, device=device)[rows]
            part = canvas.take(rows).to(device, dtype).requires_grad_()
            sub_objective = objective if len(places) == count else objective.of(places, count)
            torch.manual_seed(seed)
            compared = None if reference is None else reference.to(device)[places].to(dtype)
            ascent = _Ascent(
                part,
                extract,
                sub_objective,
                gradient,
                priors,
                transform,
                after,
                places,
                redirected,
                relu_leak,
                compared,
            )
            return part, *ascent.run(by, steps, watch)

        for rows, (part, failed, history) in Batches(max(1, batch), fixed=objective.couples).over(count, run):
            canvas.put(rows, part)
            images_so_far[rows] = part().detach().to(images_so_far)
            watch.add(rows, history)
            non_finite += failed
            if watch.interrupted:
                break
    if non_finite:
        warnings.warn(f"{non_finite} of {count} images met gradients that are not finite", stacklevel=2)
    return images_so_far


def _check_reference(reference: Tensor | None, images: Tensor, gradient: Gradient) -> None:
    if reference is None:
        return
    if reference.shape != images.shape or gradient is not whole:
        tiles = " and tiles" * (gradient is not whole)
        raise ValueError(
            f"references {tuple(reference.shape)} for images {tuple(images.shape)}{tiles}; wanted one for "
            "each, of its size, and whole gradients"
        )


def _doubled(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).double()


@dataclass
class _Ascent:
    """Images in the course of an ascent."""

    canvas: Canvas
    extract: Callable[[Tensor], LayerOutputs]
    objective: Objective
    gradient: Gradient
    priors: Sequence[Prior]
    transform: Transform
    after: Sequence[After]
    rows: Tensor
    redirected: int
    relu_leak: float
    reference: Tensor | None
    redirecting: bool = False

    def run(self, by: By, steps: int, watch: Watch) -> tuple[int, list[Tensor]]:
        """How many images met gradients that are not finite, and the objective before each step."""
        parameters, history = list(self.canvas.parameters()), list[Tensor]()
        if not parameters or not len(self.rows):
            return 0, history
        optimizer, best = by(parameters), Best(parameters) if watch.best else None
        try:
            bar = watch.bar(steps)
            for step in bar:
                images = self.canvas()
                self.redirecting = step < self.redirected
                scores, values, gradient_now = self._evaluate(images, optimizer)
                history.append(scores)
                bar.update(scores)
                if best:
                    best.offer(values)
                optimizer.step(values, torch.autograd.grad(images, parameters, gradient_now), step / steps)
                self._apply_after(gradient_now, step + 1)
            optimizer.finish()
            if best:
                best.offer(self._evaluate(self.canvas(), optimizer)[1])
        except KeyboardInterrupt:
            if not watch.interruptible:
                raise
            watch.interrupted = True
            optimizer.finish()
        if best:
            best.restore()
        return int(optimizer.stuck.sum()), history

    def _evaluate(self, images: Tensor, optimizer: ImageOptimizer) -> tuple[Tensor, Tensor, Tensor]:
        """The objective, the same less the priors, and the gradient of this with respect to the images."""
        images = images.detach()
        scores, gradient_now = self.gradient(self._score, images)
        values = scores
        gradient_now = optimizer.normalise(gradient_now)
        leaf = images.requires_grad_()
        penalty = None
        for prior in self.priors:
            cost = prior(leaf)
            values = values - cost.detach()
            penalty = cost if penalty is None else penalty + cost
        if penalty is not None:
            gradient_now = gradient_now - torch.autograd.grad(penalty.sum(), leaf)[0]
        return scores, values, gradient_now

    def _score(self, images: Tensor) -> Tensor:
        theirs = None if self.reference is None else self._compared(self.reference)
        seen = self.extract(self.transform(images))
        seen.reference = theirs
        values = self.objective.value(seen)
        if values.shape != (len(images),):
            raise ValueError(
                f"{self.objective} gave {tuple(values.shape)}; wanted one number for each of {len(images)}"
            )
        if self.redirecting:
            return redirect(values)
        return leak(values, self.relu_leak) if self.relu_leak else values

    @torch.no_grad()
    def _compared(self, reference: Tensor) -> LayerOutputs:
        """The layers' outputs for the references; the same draws are made again for the images."""
        with torch.random.fork_rng([reference.device] if reference.is_cuda else []):
            return self.extract(self.transform(reference))

    @torch.no_grad()
    def _apply_after(self, gradient_now: Tensor, number: int) -> None:
        if self.after:
            images = self.canvas()
            for change in self.after:
                images = change(images, gradient_now, Step(number, self.rows))
            self.canvas.set_images(images)
        self.canvas.project()
