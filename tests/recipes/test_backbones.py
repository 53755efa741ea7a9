"""Rankings of backbones: their order, and how well it agrees with accuracies."""

import pytest
import torch
from scipy.stats import weightedtau

from fulgurite.recipes.advice import Estimate
from fulgurite.recipes.backbones import Backbone, Ranking, agreement, ranked


def backbone(name: str, h: float, log_me: float, right: torch.Tensor | None = None) -> Backbone:
    accuracy = None if right is None else Estimate(float(right.double().mean()), 0.01, 0.02)
    return Backbone(
        name,
        8,
        {"H-Score": h, "LogME": log_me},
        dict.fromkeys(("features", "H-Score", "LogME"), 1.0),
        accuracy,
        right,
    )


def rights(*accuracies: float, count: int = 200) -> list[torch.Tensor]:
    return [torch.arange(count) < round(accuracy * count) for accuracy in accuracies]


def test_the_order_is_by_both_ranks_and_what_cannot_be_scored_comes_last():
    found = [
        backbone("a", 0.1, 3.0),
        Backbone("gone", why="no such network"),
        backbone("b", 0.3, 2.0),
        backbone("c", 0.2, 0.5),
    ]
    assert [one.name for one in ranked(found)] == ["b", "a", "c", "gone"]


def test_a_right_ranking_agrees_fully_a_wrong_one_not_at_all():
    known = torch.stack(rights(0.9, 0.7, 0.5, 0.3)).double()
    assert agreement([4, 3, 2, 1], known).tau == pytest.approx(1)
    assert agreement([1, 2, 3, 4], known).tau == pytest.approx(-1)
    found = agreement([4, 1, 3, 2], known)
    assert found.tau == pytest.approx(weightedtau([4, 1, 3, 2], [0.9, 0.7, 0.5, 0.3]).statistic)
    assert found.low <= found.tau <= found.high
    assert agreement([2, 1], known[:2]) is None
    assert agreement([3, 2, 1], known[[0, 0, 0]]) is None


def test_an_interval_is_wide_where_accuracies_are_close():
    generator = torch.Generator().manual_seed(0)
    close = (torch.rand(4, 100, generator=generator) < 0.8).double()
    apart = torch.stack(rights(0.9, 0.7, 0.5, 0.3, count=100)).double()
    near, far = (agreement([4, 3, 2, 1], known) for known in (close, apart))
    assert near.high - near.low > 0.5
    assert far.high - far.low < 0.1


def test_lines_and_json_say_what_was_measured_and_what_could_not_be_scored():
    parts = rights(0.9, 0.7, 0.5)
    found = [
        backbone(name, 3 - k, 3 - k, own) for k, (name, own) in enumerate(zip("abc", parts, strict=True))
    ]
    ranking = Ranking([*found, Backbone("gone", why="no such network")], 200, 2, 3, "a classifier")
    text = "\n".join(ranking.lines())
    assert "LogME ranks the measured networks with a weighted tau of +1.00" in text
    assert "no such network" in text
    assert "best measured: a, 90.0 ± 2.0 %" in text
    assert ranking.as_dict()["weighted tau"]["H-Score"]["tau"] == pytest.approx(1)
    assert ranking.as_dict()["networks"][3] == {"network": "gone", "not scored": "no such network"}
    assert ranking.picture().shape[0] == 3
