"""Maps of logits: mean IoU by hand, and maps of attribution of the averaged logits."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.callbacks.adversarial_examples import AdversarialExamples
from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.framework.session import Session
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.saliency import Saliency
from fulgurite.probes.attacks.threat import Linf

NAMES = ("road", "tree", "sky")
IMAGES = torch.rand(12, 3, 8, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (12, 8, 6), generator=torch.Generator().manual_seed(1))
LABELS[:, 0] = 255


class Segmenter(pl.LightningModule):
    """Gives each pixel its colours as logits."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, images):
        return self.conv(images)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1].long(), ignore_index=255)

    def validation_step(self, *_):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def loader(labels=LABELS):
    return DataLoader(TensorDataset(IMAGES, labels), batch_size=4)


def prepared(probe, labels=LABELS):
    class BeforeTraining(pl.Trainer):
        train_dataloader = val_dataloaders = test_dataloaders = lightning_module = datamodule = None

        def __init__(self, model):
            self.train_dataloader = self.val_dataloaders = loader(labels)
            self.lightning_module = model

    model = Segmenter()
    Session().prepare(probe, BeforeTraining(model), model)
    return model, probe.sample


def look(probe, labels=LABELS):
    model, sample = prepared(probe, labels)
    return probe.compose(probe.observe(model, sample, probe.subjects(model, sample)), sample)


def test_iou_accuracy_and_loss_are_those_of_all_pixels_with_a_label():
    found = look(Metrics(images=None, classes=NAMES))
    kept, guesses = LABELS != 255, IMAGES.argmax(1)
    overlaps = []
    for k, name in enumerate(NAMES):
        true, guessed = (k == LABELS) & kept, (guesses == k) & kept
        overlaps.append(float((true & guessed).sum() / (true | guessed).sum()))
        assert float(found[f"IoU of {name}"].value) == pytest.approx(overlaps[-1])
    assert float(found["mean IoU"].value) == pytest.approx(sum(overlaps) / 3)
    right = (guesses == LABELS)[kept].float().mean().item()
    assert float(found["pixel accuracy"].value) == pytest.approx(right)
    loss = nn.functional.cross_entropy(IMAGES, LABELS, ignore_index=255).item()
    assert float(found["loss"].value) == pytest.approx(loss, rel=1e-6)
    assert "confusion" in found


def test_a_class_without_a_pixel_is_left_out_of_the_mean():
    images_without = IMAGES.clone()
    images_without[:, 2] = 0
    labels = images_without[:, :2].argmax(1)
    model, sample = prepared(probe := Metrics(classes=NAMES), labels)
    model.conv.weight.data[2] = -1
    found = probe.compose(probe.observe(model, sample, probe.subjects(model, sample)), sample)
    assert float(found["mean IoU"].value) == pytest.approx(1)
    assert "IoU of sky" not in found


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (
            torch.zeros(12, dtype=torch.long),
            "wanted logits .images, classes.; average maps over their positions",
        ),
        (torch.zeros(12, 4, 3, dtype=torch.long), "logits at 8 x 6 positions, but the data labels at 4 x 3"),
        (torch.full((12, 8, 6), 3), "label maps go from 3 to 3; wanted class numbers from 0 to 2, or 255"),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_a_sentence(labels, why):
    with pytest.raises(ValueError, match=why):
        prepared(Metrics(), labels)


def test_saliency_is_that_of_the_averaged_logits_with_their_value_below():
    probe = Saliency(images=4, classes=NAMES)
    model, sample = prepared(probe)
    assert len(probe.observe(model, sample, probe.subjects(model, sample))) == 4
    best = IMAGES[:1].mean((2, 3)).max()
    logits = sample.images.mean((2, 3))
    assert sample.caption(0, float(sample.probabilities(logits)[0].max())) == f"road: mean logit {best:.3g}"
    assert sample.predicted(logits).tolist() == logits.argmax(1).tolist()


def test_attribution_serves_maps_and_probes_of_classes_say_what_would_do():
    found = look(Attribution(["input_x_gradient"], images=3, classes=NAMES))
    assert found[""].pixels.shape[0] == 3
    with pytest.raises(ValueError, match="average maps over their positions where they are logits"):
        prepared(AdversarialExamples(Linf(0.1)))


def test_watching_a_segmentation_network_leaves_it_as_it_was(tmp_path):
    def fitted(callbacks):
        torch.manual_seed(0)
        model = Segmenter()
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
            callbacks=callbacks,
        )
        trainer.fit(model, loader(), loader())
        return model

    alone = fitted([])
    watched = fitted([Metrics(on_error="raise"), Saliency(on_error="raise"), Attribution(on_error="raise")])
    assert torch.equal(alone.conv.weight, watched.conv.weight)
