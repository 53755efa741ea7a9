"""Adversarial examples of validation images, with perturbations and predictions."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.callbacks.framework.image_strips import ImageStrips
from fulgurite.callbacks.framework.label_sets import asking_for_label_sets
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.tasks import LABELS
from fulgurite.probes.attacks.argument_checks import check_answers, check_images, check_threat
from fulgurite.probes.attacks.ensembles import Attack, default_attack, named
from fulgurite.probes.attacks.losses import misclassified
from fulgurite.probes.attacks.render_attack import caption, name_of, row, within
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.predict import predict
from fulgurite.probes.render import RGB, cut, grid
from fulgurite.probes.tasks import set_name


class AdversarialExamples(ImageStrips):
    """Images, what an attack adds to them, magnified, and the sums, with the predictions for both.

    What is added is mid-grey where it is 0; its caption is the factor. Without labels, the prediction for the
    clean image counts as correct. A multi-label network is attacked until one label at least is wrong; its
    captions name the predicted labels, without probabilities.

    Args:
        threat: how far the images may be moved, such as `Linf("8/255")`; there is no default.
        attack: how; PGD with 20 steps without it, or under L1 APGD.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    aspect = 2.5
    logs_numbers = False
    tasks = LABELS

    def __init__(self, threat: Threat, *, attack: Attack | None = None, images: int | None = 8, **schedule):
        super().__init__(images=images, **schedule)
        check_threat(threat)
        self.threat = threat
        self.attack = default_attack(threat, steps=20, drop=False) if attack is None else attack
        self.attack_name = named(threat, 20) if attack is None else name_of(attack)
        self.film.side, self.film.note = 350, self.legend()

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The images and the network's predictions can be attacked."""
        one = sample[:1]
        check_images(one.images, self.threat)
        known = one if sample.task == "multilabel" else sample
        with asking_for_label_sets(network, known) as own, torch.no_grad():
            answers = network(one.images)
            check_answers(answers, answers.argmax(1) if own.labels is None else own.labels)

    def strips(self, network: nn.Module, sample: Sample) -> Sequence[RGB]:
        """A strip for each image; each is attacked by itself, so that rounding does not depend on a batch."""
        return [self._strip(network, sample[[place]]) for place in range(len(sample))]

    def legend(self) -> str:
        """The attack, and the meaning of grey."""
        return f"{self.attack_name} within {within(self.threat)}; added: mid-grey is 0"

    def _strip(self, network: nn.Module, one: Sample) -> RGB:
        with asking_for_label_sets(network, one) as own:
            before = predict(network, own.images)
            labels = before.argmax(1) if own.labels is None else own.labels.to(before.device)
            moved = self.attack(network, own.images, labels, self.threat)
            after = predict(network, moved)
        truth = "" if own.labels is None else cut(f"true {own.name(int(labels))}", 108)
        fate = "fooled" if misclassified(after, labels).any() else "robust"
        if misclassified(before, labels).any():
            fate = "wrong before"
        first, last = (_prediction(network, images, one) for images in (one.images, moved))
        first, last = f"{first}\n{truth}", f"{last}\n{fate}"
        tiles = row(one.images[0], moved[0], first, last)
        return grid(tiles, columns=len(tiles), gap=2)


def _prediction(network: nn.Module, image: Float[Tensor, "1 c h w"], sample: Sample) -> str:
    logits = predict(network, image)
    if sample.task == "multilabel":
        return cut(set_name((logits[0] > 0).float(), sample.classes), 108)
    probability, answer = logits.softmax(1).max(1)
    return caption(sample.name(int(answer)), float(probability))
