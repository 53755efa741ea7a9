"""Error slices of features that were made by hand."""

import torch

from fulgurite.probes.representation.error_slices import error_slices


def features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two classes of sixty; of the first, ten images lie apart, nearly all of them classified as class 2."""
    generator = torch.Generator().manual_seed(0)
    codes, labels = torch.randn(120, 5, generator=generator), torch.arange(120) % 2
    rows = (labels == 0).nonzero()[:10, 0]
    codes[rows] += 20
    logits = torch.nn.functional.one_hot(labels, 3).float()
    logits[rows[:9]] = torch.tensor([0.0, 0.0, 1.0])
    logits[(labels == 1).nonzero()[::12, 0]] = torch.tensor([1.0, 0.0, 0.0])  # errors without a pattern
    return codes, labels, logits


def test_like_images_that_are_misclassified_together_are_a_slice():
    codes, labels, logits = features()
    (found,) = error_slices(codes, labels, logits)
    assert (found.label, found.errors, found.answer) == (0, 9, 2)
    assert sorted(found.members.tolist()) == [2 * place for place in range(10)]
    assert found.rate == 0.9
    assert found.class_rate == 9 / 60
    assert found.chance < 1e-5
    middle = codes[found.members].mean(0)
    away = (codes[found.members] - middle).norm(dim=1)
    assert (away.diff() >= -1e-5).all()


def test_errors_by_chance_small_classes_and_perfect_answers_are_none():
    codes, labels, logits = features()
    generator = torch.Generator().manual_seed(1)
    assert not error_slices(torch.randn(120, 5, generator=generator), labels, logits)
    assert not error_slices(codes[:8], labels[:8], logits[:8])
    assert not error_slices(codes, labels, torch.nn.functional.one_hot(labels, 3).float())
