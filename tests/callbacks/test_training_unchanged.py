"""Every probe leaves training unchanged, bit for bit."""

import copy
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning.pytorch as pl
import pytest
import somebody
import torch
from every_probe import every_probe
from torch import nn

from fulgurite.callbacks.framework.artifacts import Picture, Scalar
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.saliency import Saliency

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


def all_kinds() -> set[type]:
    found, waiting = set(), [ProbeCallback]
    while waiting:
        waiting += (kinds := waiting.pop().__subclasses__())
        found |= {kind for kind in kinds if not inspect.isabstract(kind)}
    return found


class Vandal(ProbeCallback):
    """Does to the network all that a probe must not, and then fails if asked."""

    def __init__(self, *, fails: bool = False, **schedule):
        super().__init__(**schedule)
        self.fails = fails

    def subjects(self, network, sample) -> Sequence[str]:
        return ["everything"]

    def observe(self, network, sample, subjects):
        torch.rand(3)
        network.train()
        network(sample.images)
        network.register_forward_hook(lambda *_: None)
        for parameter in network.parameters():
            parameter.requires_grad_()
        network(sample.images).sum().backward()
        if self.fails:
            raise KeyError("on purpose")
        return {"everything": Scalar(1.0)}


def trained(folder: Path, *probes: pl.Callback, validated: bool, **options) -> tuple:
    """Losses, weights and optimiser state after two epochs with dropout, BatchNorm and augmentation."""
    torch.manual_seed(7)
    model = somebody.Theirs(frozen=options.pop("frozen", False))
    trainer = somebody.quiet(folder, *probes, **options)
    val = somebody.loader(15, shuffle=False) if validated else None
    trainer.fit(model, somebody.loader(shuffle=True, augment=True), val)
    return model.losses, model.state_dict(), trainer.optimizers[0].state_dict(), torch.get_rng_state()


def test_the_list_of_every_probe_is_complete():
    ours = {kind for kind in all_kinds() if kind.__module__.startswith("fulgurite.")}
    # without Stylized, which looks at another kind of network; it is there if another test has imported it
    assert {kind for kind in ours if kind.__name__ != "Stylized"} == {type(probe) for probe in every_probe()}


@pytest.mark.parametrize(
    "validated",
    [pytest.param(True, id="validation"), pytest.param(False, id="no validation", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "probes",
    [every_probe, lambda: [Vandal(**SCALE)], lambda: [Vandal(fails=True, **SCALE)]],
    ids=["all", "vandal", "failing"],
)
@pytest.mark.filterwarnings("ignore:.*failed")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_watching_changes_nothing(tmp_path: Path, probes: Callable, validated: bool):
    alone = trained(tmp_path / "alone", validated=validated)
    watched = trained(tmp_path / "watched", *probes(), validated=validated)
    assert somebody.same(alone, watched)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"accumulate_grad_batches": 2}, {"frozen": True}, {"precision": "bf16-mixed"}], ids=str
)
def test_watching_changes_nothing_in_other_trainings(tmp_path: Path, options: dict):
    alone = trained(tmp_path / "alone", validated=True, **options)
    watched = trained(tmp_path / "watched", *every_probe(), validated=True, **options)
    assert somebody.same(alone, watched)


def test_an_extra_random_draw_does_change_a_training(tmp_path: Path):
    class Draws(pl.Callback):
        def on_train_epoch_end(self, *_):
            torch.rand(1)

    assert not somebody.same(
        trained(tmp_path / "a", validated=True), trained(tmp_path / "b", Draws(), validated=True)
    )


class Looks(ProbeCallback):
    """Keeps what it saw: logits of the sample and gradients of their sum."""

    def __init__(self, **schedule):
        super().__init__(on_error="raise", **SCALE, **schedule)
        self.saw: list[torch.Tensor] = []

    def subjects(self, network, sample) -> Sequence[str]:
        return ["logits"]

    def observe(self, network, sample, subjects):
        pixels = sample.images.clone().requires_grad_()
        logits = network(pixels)
        (gradient,) = torch.autograd.grad(logits.sum(), pixels)
        self.saw += [logits.detach().clone(), gradient, sample.images.clone()]
        return {}


def expected(model: nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The eager float32 answer of the model as it is, in eval mode."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    mean, std = (torch.tensor(values)[:, None, None] for values in (somebody.MEAN, somebody.STD))
    pixels = pixels.clone().requires_grad_()
    logits = twin((pixels - mean) / std)
    return logits.detach(), torch.autograd.grad(logits.sum(), pixels)[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"precision": "bf16-mixed"}, {"accumulate_grad_batches": 3}, {"inference_mode": False}],
    ids=str,
)
def test_a_look_is_the_eager_float32_answer(tmp_path: Path, options: dict):
    look, model = Looks(), somebody.Theirs(frozen="accumulate_grad_batches" in options)
    somebody.quiet(tmp_path, look, **options).fit(model, somebody.loader(shuffle=True), somebody.loader(9))
    logits, gradient, pixels = look.saw[-3:]
    assert somebody.same(expected(model, pixels), (logits, gradient))


def test_a_finished_network_is_looked_at_under_inference_mode(tmp_path: Path):
    look, model = Looks(), somebody.Theirs()
    assert torch.is_inference_mode_enabled() is False
    somebody.quiet(tmp_path, look).validate(model, somebody.loader(9), verbose=False)
    logits, gradient, pixels = look.saw
    assert somebody.same(expected(model, pixels), (logits, gradient))


def test_every_probe_looks_at_a_finished_network(tmp_path: Path):
    trainer = somebody.quiet(tmp_path, *every_probe())
    trainer.validate(somebody.Theirs(), somebody.loader(9), verbose=False)
    assert {tag for tag, _ in somebody.images(tmp_path)} >= {"Saliency", "ClassImages", "Metrics/confusion"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", ["part", "whole"])
def test_a_compiled_network_is_looked_at_eagerly(tmp_path: Path, where: str):
    class Layers(Looks):
        def observe(self, network, sample, subjects):
            from fulgurite.probes.record import record

            with record(network, ["features.0"]) as seen:
                network(sample.images)
            self.saw.append(seen["features.0"].clone())
            return super().observe(network, sample, subjects)

    look, model = Layers(), somebody.Theirs()
    if where == "part":
        model.features = torch.compile(model.features, backend="eager")
        somebody.quiet(tmp_path, look).fit(model, somebody.loader(), somebody.loader(9))
    else:
        somebody.quiet(tmp_path, look).fit(
            torch.compile(model, backend="eager"), somebody.loader(), somebody.loader(9)
        )
    plain = somebody.Theirs()
    plain.load_state_dict({key.replace("_orig_mod.", ""): value for key, value in model.state_dict().items()})
    layer, logits, gradient, pixels = look.saw[-4:]
    assert somebody.same(expected(plain, pixels), (logits, gradient))
    assert layer.shape == (9, 6, 5, 5)


def test_a_bfloat16_network_is_looked_at_within_its_rounding(tmp_path: Path):
    look, model = Looks(), somebody.Theirs()
    somebody.quiet(tmp_path, look, precision="bf16-true").fit(model, somebody.loader(), somebody.loader(9))
    logits, gradient, pixels = look.saw[-3:]
    assert logits.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(logits, expected(model.float(), pixels)[0], rtol=0.05, atol=0.05)


def test_an_image_s_saliency_does_not_depend_on_the_sample(tmp_path: Path):
    tiles = {}
    for count in (3, 9):
        seen = {}

        class Keeps(Saliency):
            def compose(self, strips, sample, seen=seen):
                seen.update(strips)
                return super().compose(strips, sample)

        torch.manual_seed(0)
        trainer = somebody.quiet(tmp_path / str(count), Keeps(images=count, on_error="raise", **SCALE))
        trainer.validate(somebody.Theirs(), somebody.loader(9), verbose=False)
        tiles[count] = seen
    # three of nine, spread evenly: 0, 3 and 6
    for few, many in (("image 00", "image 00"), ("image 01", "image 03"), ("image 02", "image 06")):
        one, other = tiles[3][few], tiles[9][many]
        assert one.caption == other.caption
        assert all(torch.equal(one.maps[name], other.maps[name]) for name in one.maps)


def test_a_linear_network_s_pictures_are_its_weights(tmp_path: Path):
    class Linear(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.row = nn.Linear(3 * 4 * 4, 3)

        def forward(self, images):
            return self.row(images.flatten(1))

        def validation_step(self, *_): ...

    class Gradients(Looks):
        def observe(self, network, sample, subjects):
            from fulgurite.probes.attribution.gradient import gradient
            from fulgurite.probes.objectives import class_score

            self.saw.append(gradient(network, sample.images, class_score(1)))
            return {}

    look, model = Gradients(), Linear()
    somebody.quiet(tmp_path, look).validate(model, somebody.loader(5, size=4), verbose=False)
    std = torch.tensor(somebody.STD)[:, None, None]
    torch.testing.assert_close(look.saw[0], (model.row.weight[1].view(3, 4, 4) / std).expand(5, -1, -1, -1))


@pytest.mark.slow
def test_every_tag_is_there_at_the_start_and_at_every_epoch(tmp_path: Path):
    somebody.quiet(tmp_path, *every_probe(), max_epochs=3).fit(
        somebody.Theirs(), somebody.loader(), somebody.loader(12)
    )
    steps: dict[str, set[int]] = {}
    for tag, step in somebody.images(tmp_path):
        steps.setdefault(tag, set()).add(step)
    films = {tag for tag in steps if tag.endswith("/film")}
    # a table of layers is text, and is no other at the next epoch; histograms have a tab of their own
    without = {"LayerHistograms", "LayerTable"}
    # the last chart of these holds all epochs
    without |= {"Drift", "Faithfulness", "Invariance", "MinimalDistances", "ShapeBias", "SilentUnits"}
    without |= {"SplitAccuracy", "StageProbes"}
    names = {type(probe).__name__ for probe in every_probe()}
    assert films == {f"{name}/film" for name in names - without}
    assert all(steps[tag] == {9} for tag in films)
    assert steps.pop("Robustness/curve") == {3, 6, 9}  # not of the untrained network
    assert steps.pop("Corruptions/images") == {0, 9}  # the same image at each
    assert all(found == {0, 3, 6, 9} for tag, found in steps.items() if tag not in films)
    for tag, found in somebody.scalars(tmp_path).items():
        if tag.startswith(("Metrics/", "seconds/")):
            assert [step for step, _ in found] == [0, 3, 6, 9], tag


def test_a_failing_probe_is_reported_once_and_stops_looking_after_three(tmp_path: Path):
    probe = Vandal(fails=True, **SCALE)
    looks = []
    probe.observe = lambda *arguments: looks.append(1) or Vandal.observe(probe, *arguments)
    trainer = somebody.quiet(tmp_path, probe, max_epochs=6)
    with pytest.warns(UserWarning, match="Vandal") as reported:
        trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    printed = [str(one.message).splitlines()[0] for one in reported if "Vandal" in str(one.message)]
    assert printed == [
        "Vandal failed, training goes on: KeyError: 'on purpose'; on_error=\"raise\" stops there",
        "Vandal failed 3 times in a row and is switched off",
    ]
    assert len(looks) == 3


def test_a_failing_probe_can_stop_the_run(tmp_path: Path):
    trainer = somebody.quiet(tmp_path, Vandal(fails=True, on_error="raise", **SCALE))
    with pytest.raises(RuntimeError, match=r"Vandal failed: KeyError: 'on purpose'"):
        trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))


def test_a_schedule_of_three_epochs_looks_at_the_start_at_three_and_at_the_last(tmp_path: Path):
    class Counts(Looks):
        def observe(self, network, sample, subjects):
            return {"logits": Picture(torch.zeros(3, 4, 4, dtype=torch.uint8))}

    somebody.quiet(tmp_path, Counts(every=3), max_epochs=5).fit(
        somebody.Theirs(), somebody.loader(), somebody.loader(9)
    )
    assert {step for tag, step in somebody.images(tmp_path) if tag == "Counts/logits"} == {0, 9, 15}
