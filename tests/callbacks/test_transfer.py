"""Drift, groups of the optimizer and linear probes of stages during fine-tuning."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import somebody
import torch
from torch import nn

from fulgurite.callbacks import transfer
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.transfer import CELLS, Drift, StageProbes
from fulgurite.probes.counted import counted
from fulgurite.probes.plots import category_plot
from fulgurite.probes.representation.linear import ridge
from fulgurite.probes.representation.similarity import cka
from fulgurite.probes.representation.stages import image_features

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


class Tuned(somebody.Theirs):
    """A frozen first convolution, a body that learns slowly and a head; one group is not named."""

    def __init__(self, **options):
        super().__init__(**options)
        self.features[0].requires_grad_(False)
        self.lengths: list[dict[str, float]] = []

    def configure_optimizers(self):
        body = {"params": [*self.features.parameters()], "lr": 0.01, "name": "body"}
        return torch.optim.SGD([body, {"params": [*self.head.parameters()]}], 0.1, momentum=0.9)

    def on_before_optimizer_step(self, optimizer):
        norms = {"body": self.features.parameters(), "group 1": self.head.parameters()}
        self.lengths.append(
            {
                name: float(torch.cat([p.grad.flatten() for p in own if p.grad is not None]).norm())
                for name, own in norms.items()
            }
        )


def fitted(folder: Path, *probes: ProbeCallback, model: pl.LightningModule | None = None, **options):
    torch.manual_seed(0)
    model = model or Tuned()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    ckpt_path = options.pop("ckpt_path", None)
    trainer = somebody.quiet(folder, *probes, **options)
    trainer.fit(model, somebody.loader(shuffle=True), somebody.loader(15), ckpt_path=ckpt_path)
    return trainer, model, start


def scalars(folder: Path) -> dict[str, list[float]]:
    return {tag: [value for _, value in values] for tag, values in somebody.scalars(folder).items()}


def distance(model: nn.Module, start: dict, layer: str) -> float:
    names = [name for name in dict(model.named_parameters()) if name.startswith(f"{layer}.")]
    now, then = (
        torch.cat([state[name].flatten() for name in names]) for state in (model.state_dict(), start)
    )
    return float((now - then).norm() / then.norm())


def made(model: nn.Module, layer: str, *, grid: int = 1) -> torch.Tensor:
    """What a layer makes of the fifteen validation images."""
    images = torch.stack([image for image, _ in somebody.Blobs(15)])
    return image_features(model, images, [layer], grid=grid)[layer]


def test_how_far_layers_moved_and_the_cka_of_stages_is_measured_from_the_start(tmp_path: Path):
    torch.manual_seed(0)
    model = Tuned()
    before = {layer: made(model, layer, grid=CELLS) for layer in ("features.1", "features")}
    _, model, start = fitted(
        tmp_path, Drift(["features.1", "features"], on_error="raise", **SCALE), model=model, max_epochs=3
    )
    found = scalars(tmp_path)
    assert found["Drift/moved/features.0"] == [0, 0, 0, 0]
    assert found["Drift/moved/head"][0] == 0
    assert found["Drift/moved/head"][-1] == pytest.approx(distance(model, start, "head"), rel=1e-5)
    assert found["Drift/moved/head"][-1] > 0
    for layer, values in before.items():
        assert found[f"Drift/CKA/{layer}"][0] == pytest.approx(1, abs=1e-6)
        after = made(model, layer, grid=CELLS)
        assert found[f"Drift/CKA/{layer}"][-1] == pytest.approx(cka(values, after), abs=1e-5)
        assert found[f"Drift/CKA/{layer}"][-1] < 1 - 1e-4
        # nearer to the look before than to the start, and to images in another order not at all
        steps = found[f"Drift/CKA with the previous time/{layer}"]
        assert steps[0] == pytest.approx(found[f"Drift/CKA/{layer}"][1], abs=1e-6)
        assert len(steps) == 3
        assert steps[-1] > found[f"Drift/CKA/{layer}"][-1]
        assert max(found[f"Drift/CKA of shuffled images/{layer}"]) < 0.5


def test_drift_on_more_images_from_a_later_look_on_is_still_measured_from_the_start(tmp_path: Path):
    class Grows(Drift):
        def check(self, network, sample):
            self.look_at_most(6, 15)

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                self.look_at_most(None, 15)

    probe = Grows(on_error="raise", **SCALE)
    fitted(tmp_path, probe, max_epochs=4)
    alone = Drift(**SCALE)
    fitted(tmp_path / "all", alone, max_epochs=4)
    found, wanted = scalars(tmp_path), scalars(tmp_path / "all")
    for layer in alone.found:
        tags = f"CKA/{layer}", f"CKA with the previous time/{layer}"
        assert found[f"Grows/{tags[0]}"][2:] == pytest.approx(wanted[f"Drift/{tags[0]}"][2:], abs=1e-5)
        # epoch 2 is the first on all images
        assert len(found[f"Grows/{tags[1]}"]) == 2
        assert found[f"Grows/{tags[1]}"][1:] == pytest.approx(wanted[f"Drift/{tags[1]}"][3:], abs=1e-5)


def test_a_learning_rate_share_frozen_and_gradient_for_each_group(tmp_path: Path):
    _, model, _ = fitted(tmp_path, Drift(on_error="raise", **SCALE), gradient_clip_val=0.01)
    found = scalars(tmp_path)
    assert found["Drift/lr/body"] == pytest.approx([0.01] * 3)
    assert found["Drift/lr/group 1"] == pytest.approx([0.1] * 3)
    weights = sum(weight.numel() for weight in model.features.parameters())
    still = sum(weight.numel() for weight in model.features[0].parameters())
    assert found["Drift/frozen/body"] == pytest.approx([still / weights] * 3)
    assert found["Drift/frozen/group 1"] == [0, 0, 0]
    # three steps an epoch, read before they are clipped; none before the first look
    for name in ("body", "group 1"):
        squares = torch.tensor([step[name] for step in model.lengths]).square().view(2, 3)
        assert found[f"Drift/gradient/{name}"] == pytest.approx(squares.mean(1).sqrt().tolist(), rel=1e-5)


def test_gradients_between_two_looks_count_from_the_first_of_them(tmp_path: Path):
    _, model, _ = fitted(tmp_path, Drift(every=2, on_error="raise", **SCALE), max_epochs=4)
    squares = torch.tensor([step["body"] for step in model.lengths]).square().view(2, 6)
    expected = squares.mean(1).sqrt().tolist()
    assert scalars(tmp_path)["Drift/gradient/body"] == pytest.approx(expected, rel=1e-5)


def test_gradients_before_a_checkpoint_count_at_the_look_after_it(tmp_path: Path):
    class Keeps(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, *_):
            trainer.save_checkpoint(tmp_path / f"epoch={trainer.current_epoch}.ckpt")

    probe = Drift(every=2, on_error="raise", **SCALE)
    _, model, _ = fitted(tmp_path / "a", probe, Keeps(), max_epochs=2)
    again = Drift(every=2, on_error="raise", **SCALE)
    _, resumed, _ = fitted(tmp_path / "b", again, max_epochs=2, ckpt_path=tmp_path / "epoch=0.ckpt")
    squares = torch.tensor([step["body"] for step in model.lengths[:3] + resumed.lengths]).square()
    assert len(squares) == 6
    found = scalars(tmp_path / "b")["Drift/gradient/body"]
    assert found == pytest.approx([squares.mean().sqrt().item()], rel=1e-5)


def test_a_resumed_run_is_compared_with_where_the_first_one_began(tmp_path: Path):
    once, _, start = fitted(tmp_path / "a", Drift(on_error="raise", **SCALE), StageProbes(**SCALE))
    once.save_checkpoint(kept := tmp_path / "kept.ckpt")
    state = torch.load(kept, weights_only=True)["callbacks"]
    looks = state["Drift{'name': 'Drift'}"]["last"]["all looks"]
    assert [label for label, *_ in looks] == ["start", "epoch 1", "epoch 2"]
    again, probes = Drift(on_error="raise", **SCALE), StageProbes(on_error="raise", **SCALE)
    _, model, _ = fitted(tmp_path / "b", again, probes, max_epochs=4, ckpt_path=kept)
    found = scalars(tmp_path / "b")
    assert found["Drift/moved/head"][-1] == pytest.approx(distance(model, start, "head"), rel=1e-5)
    assert found["Drift/moved/head"][0] > 0
    assert [label for label, *_ in again.memory.last["all looks"]] == [
        "start",
        *(f"epoch {n}" for n in range(1, 5)),
    ]
    assert [label for label, *_ in probes.memory.last["all looks"]] == [
        "start",
        *(f"epoch {n}" for n in range(1, 5)),
    ]


def test_a_finished_network_is_compared_with_the_start_in_its_checkpoint(tmp_path: Path):
    trainer, model, start = fitted(tmp_path / "a", Drift(on_error="raise", **SCALE))
    trainer.save_checkpoint(kept := tmp_path / "kept.ckpt")
    looking = somebody.quiet(tmp_path / "b", Drift(on_error="raise", **SCALE))
    looking.validate(Tuned(), somebody.loader(15), ckpt_path=kept, verbose=False)
    found = scalars(tmp_path / "b")
    assert found["Drift/moved/head"] == pytest.approx([distance(model, start, "head")], rel=1e-5)
    assert ("Drift", 6) in somebody.images(tmp_path / "b")


def test_a_finished_network_without_a_known_start_is_not_compared(tmp_path: Path):
    looking = somebody.quiet(tmp_path, Drift(on_error="raise", **SCALE))
    looking.validate(Tuned(), somebody.loader(15), verbose=False)
    assert not any(tag.startswith("Drift") for tag, _ in somebody.images(tmp_path))
    assert not any(tag.startswith("Drift") for tag in scalars(tmp_path))


def test_each_stage_has_the_accuracy_of_ridge_on_validation_images(tmp_path: Path):
    probe = StageProbes(["features.1", "features"], fitted=5, on_error="raise", **SCALE)
    _, model, _ = fitted(tmp_path, probe)
    found = scalars(tmp_path)
    train = somebody.Blobs(24)
    places = [0, 4, 9, 14, 19]
    images, labels = torch.stack([train[place][0] for place in places]), train.labels[places]
    for layer in ("features.1", "features"):
        head = ridge(image_features(model, images, [layer])[layer], labels)
        share = head.score(made(model, layer), somebody.Blobs(15).labels)
        assert found[f"StageProbes/{layer}"][-1] == pytest.approx(share.accuracy)
        assert len(found[f"StageProbes/{layer}"]) == 3
    assert {step for tag, step in somebody.images(tmp_path) if tag == "StageProbes"} == {0, 3, 6}


def test_without_training_data_half_of_the_sample_is_fitted_to_and_half_scored_on(tmp_path: Path):
    model = Tuned()
    trainer = somebody.quiet(tmp_path, StageProbes(["features"], on_error="raise", **SCALE))
    trainer.validate(model, somebody.loader(15), verbose=False)
    codes, labels = made(model, "features"), somebody.Blobs(15).labels
    expected = ridge(codes[::2], labels[::2]).score(codes[1::2], labels[1::2]).accuracy
    assert scalars(tmp_path)["StageProbes/features"] == pytest.approx([expected])


class TheirData(pl.LightningDataModule):
    """Sets up its training images; or, as some do, leaves that to a training."""

    def __init__(self, *, whole: bool):
        super().__init__()
        self.whole = whole

    def setup(self, stage):
        if self.whole or stage == "fit":
            self.train = somebody.loader(shuffle=True)

    def train_dataloader(self):
        return self.train

    def val_dataloader(self):
        return somebody.loader(15)


@pytest.mark.parametrize("whole", [True, False])
def test_a_finished_network_is_measured_as_in_training_or_drawn_alone(
    whole: bool, tmp_path: Path, monkeypatch
):
    trainer, model, _ = fitted(tmp_path / "a", StageProbes(["features"], on_error="raise", **SCALE))
    trainer.save_checkpoint(kept := tmp_path / "kept.ckpt")
    drawn = []
    monkeypatch.setattr(
        transfer,
        "category_plot",
        lambda *given, **how: drawn.append(given[1]) or category_plot(*given, **how),
    )
    looking = somebody.quiet(tmp_path / "b", StageProbes(["features"], on_error="raise", **SCALE))
    looking.validate(model, datamodule=TheirData(whole=whole), ckpt_path=kept, verbose=False)
    during, after = (scalars(tmp_path / folder)["StageProbes/features"] for folder in "ab")
    assert list(drawn[0]) == (["start", "epoch 1", "epoch 2", "now"] if whole else ["now"])
    if whole:
        assert after == [during[-1]]


@pytest.mark.parametrize("count", [1, 2])
def test_with_too_few_images_a_probe_does_not_run_and_training_continues(count: int, tmp_path: Path, caplog):
    trainer = somebody.quiet(tmp_path, Drift(**SCALE), StageProbes(fitted=2, **SCALE))
    trainer.fit(Tuned(), somebody.loader(shuffle=True), somebody.loader(count))
    trainer.validate(Tuned(), somebody.loader(count), verbose=False)
    assert (
        caplog.text.count(f"Drift stays out: {counted(count, 'image')} to compare by; wanted at least 4") == 1
    )
    assert trainer.global_step == 6
    assert not any(tag.startswith("Drift") for tag in scalars(tmp_path))
