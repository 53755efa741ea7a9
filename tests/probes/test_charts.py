import pytest
import torch

from fulgurite.probes.charts import colour, confusion, scatter
from fulgurite.probes.render import GROUND


def rgb(name: str) -> torch.Tensor:
    return torch.tensor([int(name[i : i + 2], 16) for i in (1, 3, 5)], dtype=torch.uint8)


def has(pixels, name) -> bool:
    return bool((pixels == rgb(name)[:, None, None]).all(0).any())


def test_points_lie_where_they_are_in_the_colour_of_their_class():
    pixels = scatter(torch.tensor([[0.0, 0], [1, 1]]), torch.tensor([0, 1]), ["cat", "dog"], side=100)
    assert torch.equal(pixels[:, 97, 3], rgb(colour(0)))
    assert torch.equal(pixels[:, 3, 97], rgb(colour(1)))
    assert pixels[:, 50, 50].tolist() == list(GROUND)


def test_the_legend_names_the_classes_that_are_there():
    points = torch.rand(4, 2)
    legend = scatter(points, torch.tensor([0, 0, 2, 2]), ["cat", "dog", "fox"], side=100)[:, :, 100:]
    assert [has(legend, colour(label)) for label in range(3)] == [True, False, True]


@pytest.mark.parametrize("points", [torch.zeros(1, 2), torch.ones(5, 2), torch.rand(300, 2) * 1e30])
def test_any_cloud_has_a_picture(points):
    labels = torch.arange(len(points)) % 120
    pixels = scatter(points, labels, [f"class {label}" for label in range(120)], side=64)
    assert pixels.dtype == torch.uint8
    assert pixels.shape[1] == 64
    assert pixels.shape[2] > 64


def test_thirty_classes_have_thirty_colours():
    assert len({colour(label) for label in range(30)}) == 30


@pytest.mark.parametrize("classes", [1, 2, 10, 120])
def test_a_confusion_matrix_of_any_size_has_a_picture(classes):
    counts = torch.randint(0, 100, (classes, classes))
    pixels = confusion(counts, [f"class {label}" for label in range(classes)])
    assert pixels.dtype == torch.uint8
    assert pixels.shape[0] == 3
    assert 34 <= pixels.shape[1] < 900


def test_a_perfect_confusion_matrix_is_bright_on_its_diagonal():
    pixels = confusion(100 * torch.eye(120, dtype=torch.long), [""] * 120)
    assert pixels.shape == (3, 600, 600)
    assert pixels[:, 2, 2].tolist() == [252, 255, 164]
    assert pixels[:, 2, 7].tolist() == [0, 0, 4]


def test_rows_are_true_classes_and_columns_predicted_ones():
    counts = torch.zeros(120, 120, dtype=torch.long)
    counts[3, 7] = 1
    assert confusion(counts, [""] * 120)[0].argmax() == 5 * 3 * 600 + 5 * 7


def test_a_class_without_images_has_a_black_row():
    counts = torch.eye(120, dtype=torch.long)
    counts[1, 1] = 0
    assert confusion(counts, [""] * 120)[:, 7].float().mean(1).tolist() == [0, 0, 4]


def test_every_class_needs_a_name():
    with pytest.raises(ValueError, match="wanted a name for each of 3 classes, got 2"):
        confusion(torch.eye(3, dtype=torch.long), ["cat", "dog"])
