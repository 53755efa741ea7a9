import torch

from fulgurite.probes.robustness.shape_bias import shape_bias


def test_answers_by_a_third_class_do_not_count():
    logits = torch.eye(4)[[0, 1, 2, 3]]
    shapes, textures = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 3, 1])
    assert shape_bias(logits, shapes, textures) == 1
    assert shape_bias(logits, textures, shapes) == 0
    assert shape_bias(logits, torch.tensor([0, 0, 2, 0]), torch.tensor([1, 1, 3, 1])) == 2 / 3
    assert shape_bias(logits, (logits.argmax(1) + 1) % 4, (logits.argmax(1) + 2) % 4).isnan()
