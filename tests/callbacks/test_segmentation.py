"""Maps of logits: mean IoU by hand, and maps of attribution of the averaged logits."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.callbacks.adversarial_examples import AdversarialExamples
from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.explained_class import explained_in_words
from fulgurite.callbacks.framework.observation import prepared_network
from fulgurite.callbacks.framework.session import Session
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.saliency import Saliency
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.objectives import class_score
from fulgurite.probes.task_objectives import mask_score, pixel_score

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


def prepared(probe, labels=LABELS, model=None):
    class BeforeTraining(pl.Trainer):
        train_dataloader = val_dataloaders = test_dataloaders = lightning_module = datamodule = None

        def __init__(self, model):
            self.train_dataloader = self.val_dataloaders = loader(labels)
            self.lightning_module = model

    model = model or Segmenter()
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


class OneLogit(Segmenter):
    """Gives each pixel the difference of two of its colours as its one logit."""

    def forward(self, images):
        return 8 * (images[:, 1:2] - images[:, :1])


MASKS = (IMAGES[:, 1] > IMAGES[:, 2]).long()
FORMS = {
    "[n, h, w]": MASKS,
    "[n, 1, h, w]": MASKS[:, None],
    "booleans": MASKS.bool(),
    "floats": MASKS.float(),
    "floats [n, 1, h, w]": MASKS[:, None].float(),
}


@pytest.mark.parametrize("labels", FORMS.values(), ids=FORMS)
def test_one_logit_has_two_classes_by_its_sign(labels):
    probe = Metrics(images=None, classes=["road"])
    model, sample = prepared(probe, labels, OneLogit())
    assert (sample.task, sample.classes) == ("segmentation", ("no road", "road"))
    with prepared_network(probe, model) as network:
        found = probe.compose(probe.observe(network, sample, probe.subjects(model, sample)), sample)
    logits = model(IMAGES)[:, 0]
    right = ((logits > 0).long() == MASKS).float().mean().item()
    assert float(found["pixel accuracy"].value) == pytest.approx(right)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, MASKS.float()).item()
    assert float(found["loss"].value) == pytest.approx(loss, rel=1e-5)


def test_maps_of_one_logit_are_explained_and_bad_labels_are_named():
    for probe in (Saliency(images=3), Attribution(["input_x_gradient"], images=3)):
        model, sample = prepared(probe, MASKS[:, None].float(), OneLogit())
        with prepared_network(probe, model) as network:
            found = probe.observe(network, sample, probe.subjects(network, sample))
            assert "" in probe.compose(found, sample)
    with pytest.raises(
        ValueError, match=r"labels that are int64 \[n, 2, 8, 6\]; wanted a class number at each"
    ):
        prepared(Metrics(), torch.stack([MASKS, 1 - MASKS], 1), OneLogit())
    with pytest.raises(ValueError, match="label maps go from 0 to 2; wanted class numbers from 0 to 1"):
        prepared(Metrics(), MASKS * 2, OneLogit())


def test_pixels_and_masks_of_one_logit_have_two_classes_as_class_scores_have():
    model, whole = OneLogit(), torch.ones(8, 6, dtype=torch.bool)
    at = [gradient(model, IMAGES, pixel_score(number, 2, 3)) for number in (0, 1)]
    assert torch.equal(at[1], -at[0])
    assert at[1][0, :2, 2, 3].tolist() == [-4, 4]
    over = gradient(model, IMAGES, mask_score(1, whole))
    assert torch.allclose(over / 48, gradient(model, IMAGES, class_score(1)))


def test_saliency_explains_the_class_that_is_asked_for():
    for targets in ("tree", 1):
        probe = Saliency(images=3, classes=NAMES, targets=targets)
        model, sample = prepared(probe)
        for row in probe.observe(model, sample, probe.subjects(model, sample)).values():
            (values,) = row.maps.values()
            assert torch.allclose(values.float(), torch.tensor(1 / 48), rtol=1e-2)
    assert explained_in_words("tree", sample) == "maps of tree"
    with pytest.raises(ValueError, match=r'targets=.cloud.; wanted "true", .* \(road, tree, sky\)'):
        prepared(Saliency(classes=NAMES, targets="cloud"))


def test_masks_of_0_and_255_are_told_and_label_maps_may_have_a_channel():
    with pytest.warns(UserWarning, match="masks are 0 and 255, .* divide masks by 255"):
        prepared(Metrics(), MASKS * 255, OneLogit())
    _, sample = prepared(Metrics(images=None), LABELS[:, None])
    assert torch.equal(sample.maps.long(), LABELS)
