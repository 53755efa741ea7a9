"""Mixup and CutMix: images, soft labels, and seeds."""

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fulgurite.data.digits import Digits
from fulgurite.data.folder import Folder
from fulgurite.models.classifier import Classifier
from fulgurite.models.losses import Adversarial, Plain
from fulgurite.models.mixup_cutmix import mixed
from fulgurite.models.networks import build
from fulgurite.models.weighted_loss import Weighted
from fulgurite.probes.attacks.threat import Linf
from fulgurite.recipes.quick_fit import quiet


def batch(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one brightness each, and their classes."""
    labels = torch.arange(count) % 4
    return (labels[:, None, None, None] / 4).expand(-1, 3, 16, 16).clone(), labels


def test_a_mean_of_two_images_has_the_same_mean_of_two_labels():
    images, labels = batch()
    torch.manual_seed(0)
    shown, shares = mixed(images, labels, ["mixup"], classes=4)
    assert torch.allclose(shares.sum(1), torch.ones(8))
    assert torch.allclose(shown, ((shares @ (torch.arange(4) / 4.0))[:, None, None, None]).expand_as(shown))
    assert ((shares > 0).sum(1) == 2).all()


def test_a_rectangle_of_another_image_counts_by_its_area():
    images, labels = batch()
    torch.manual_seed(1)
    shown, shares = mixed(images, labels, ["cutmix"], classes=4)
    own = (shown[:, 0] == images[:, 0]).double().mean((1, 2))
    assert 0.02 < float(own[0]) < 0.98
    assert torch.allclose(shares[torch.arange(8), labels].double(), own, atol=1e-6)


def test_of_two_ways_one_is_drawn_for_each_batch_and_the_seed_decides():
    images, labels = batch()
    kinds = set()
    for seed in range(12):
        torch.manual_seed(seed)
        first = mixed(images, labels, ["mixup", "cutmix"], classes=4)
        torch.manual_seed(seed)
        again = mixed(images, labels, ["mixup", "cutmix"], classes=4)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
        kinds.add(bool((first[0][:, 0] == images[:, 0]).any()))
    assert kinds == {True, False}


def test_soft_labels_teach_what_the_two_classes_do_by_their_shares():
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    images, labels = batch()
    one, other = labels, (labels + 1) % 4
    shares = 0.3 * F.one_hot(one, 4) + 0.7 * F.one_hot(other, 4)
    plain = 0.3 * Plain()(network, images, one) + 0.7 * Plain()(network, images, other)
    assert torch.allclose(Plain()(network, images, shares), plain)
    weighted = Weighted([2.0, 2.0, 2.0, 2.0])
    assert torch.allclose(weighted(network, images, shares), 2 * plain)
    hard = Weighted([1.0, 2.0, 3.0, 4.0])
    assert torch.allclose(hard(network, images, F.one_hot(one, 4).float()), hard(network, images, one))


def fitted(mixing: tuple[str, ...], *, loss=None, epochs: int = 1) -> Classifier:
    pl.seed_everything(0, verbose=False)
    data = Digits(size=8, per_class=10, shift=0, noise=0)
    data.mixing = mixing
    model = Classifier(build("small_cnn", classes=10, channels=1), classes=10, loss=loss, seed=0)
    with quiet():
        trainer = pl.Trainer(
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(model, data)
    return model


def test_batches_of_a_mixing_data_module_are_mixed_by_seed_and_step():
    plain, one, other = fitted(()), fitted(("mixup", "cutmix")), fitted(("mixup", "cutmix"))
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), plain.parameters(), strict=True))


def test_a_loss_that_needs_one_class_is_reported_before_training():
    with pytest.raises(
        ValueError, match=r"images mixed by mixup have shares of two classes, and the loss Adversarial"
    ):
        fitted(("mixup",), loss=Adversarial(Linf(0.1)))
    with pytest.raises(ValueError, match="mixing by 'blend'; wanted mixup or cutmix"):
        fitted(("blend",))


def test_a_preset_of_photographs_defines_the_mixing(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for place in range(4):
            Image.new("RGB", (9, 9)).save(tmp_path / name / f"{place}.png")
    kinds = {
        name: Folder(str(tmp_path), size=8, augment=name).mixing
        for name in ("standard", "mixup", "mixup_cutmix")
    }
    assert kinds == {"standard": (), "mixup": ("mixup",), "mixup_cutmix": ("mixup", "cutmix")}
