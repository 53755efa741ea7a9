"""Sheets of attribution maps: rows, columns and scales."""

import pytest
import torch
from drawn_words import words

from fulgurite.probes.attribution.caption_lines import caption_lines
from fulgurite.probes.attribution.map_sheets import (
    ROUNDING,
    WORDS,
    MapRow,
    legend,
    map_sheet,
    map_strips,
    reduced,
    scale_strip,
)
from fulgurite.probes.style import THEMES

IMAGE = torch.full((3, 16, 16), 0.5)
STRONG = torch.linspace(-1, 1, 256).view(1, 16, 16)


def rows(*sizes: float, **more: torch.Tensor) -> dict[str, MapRow]:
    return {
        f"file_{place}": MapRow(IMAGE, {"gradient": size * STRONG, **more}, f"true a\npred b: {place}%")
        for place, size in enumerate(sizes)
    }


def strength(pixels: torch.Tensor) -> list[float]:
    """How colourful the gradient's tile of each row is."""
    spread = (pixels.float().amax(0) - pixels.float().amin(0) - 10).clamp(min=0)  # paper and words are grey
    tops = [15 + 2 + place * (112 + 30 + 2) for place in range(2)]
    return [float(spread[top : top + 112].mean()) for top in tops]


def test_a_weak_map_looks_weak_next_to_a_strong_one():
    strong, weak = strength(map_sheet(rows(1.0, 0.01)))
    assert weak < strong / 10
    first, second = strength(map_sheet(rows(1.0, 0.01), scale="tile"))
    assert first == pytest.approx(second, rel=0.02)


def test_rounding_is_left_blank_and_a_method_of_only_rounding_is_left_out():
    noise = torch.rand(1, 16, 16) * ROUNDING / 256
    both = map_sheet(rows(1.0, 1.0, layer_cam=noise))
    assert "layer cam" not in words(both)
    assert "left out: layer cam, 0 everywhere but for rounding" in " ".join(words(both))
    assert words(map_sheet(rows(1.0, 1.0, layer_cam=1000 * noise))).count("layer cam") == 1
    only = map_sheet(
        {"a": MapRow(IMAGE, {"gradient": noise}), "b": MapRow(IMAGE, {"gradient": STRONG})}, scale="tile"
    )
    assert strength(only)[0] < strength(only)[1] / 100


def test_a_sheet_names_files_methods_truth_prediction_and_the_scale():
    found = words(map_sheet(rows(1.0)))
    assert {"file_0", "gradient", "true a", "pred b: 0%", "-1", "1"} <= set(found)


def test_a_block_of_rows_has_no_column_without_maps():
    several = rows(1.0, 1.0) | rows(1.0, occlusion=STRONG)  # of file_0
    assert words(map_sheet(several)).count("occlusion") == 1
    found = words(map_sheet(several, blocks=2))
    assert (found.count("gradient"), found.count("occlusion")) == (2, 1)


def test_what_colours_mean_is_said_once_for_maps_over_the_image_and_by_themselves():
    found = words(map_sheet(rows(1.0, occlusion=STRONG)))
    assert sum("orange raises the score" in line for line in found) == 1
    assert legend(["signed"]) == [WORDS["signed"]]
    assert legend(["heat", "over", "signed"]) == [WORDS["both"], WORDS["heat"]]


def test_long_names_of_methods_are_broken_not_cut():
    names = ["integrated_gradients_of_many_steps", "guided_backprop"]
    found = words(map_sheet({"a": MapRow(IMAGE, dict.fromkeys(names, STRONG))}))
    assert {"integrated", "gradients of many", "steps", "guided backprop"} <= set(found)


def test_a_long_name_has_three_lines_and_is_cut_before_its_probability_is():
    def shown(caption: str) -> list[str]:
        return words(map_sheet({"a": MapRow(IMAGE, {"gradient": STRONG}, caption)}))

    assert {"pred black and tan", "hound: 97%"} <= {*shown("pred black and tan hound: 97%")}
    assert {"coonhound of the", "mountains: 97%"} <= {
        *shown("pred black and tan coonhound of the mountains: 97%")
    }
    found = shown("pred black and tan coonhound of the mountains and the lowlands: 97%")
    assert [word for word in found if word.startswith("mountains") and word.endswith("…: 97%")]


def test_a_strip_of_a_film_breaks_a_long_class_into_lines():
    row = MapRow(IMAGE, {"saliency": STRONG}, "true a\npred healthy tissue: 53%")
    assert words(map_strips({"a": row}, side=96)["a"]) == ["pred healthy", "tissue: 53%"]


def test_each_label_of_a_caption_is_next_to_its_number_and_what_does_not_fit_is_counted():
    assert caption_lines("pred sea: 100% + trees: 100%", 93) == ["pred sea: 100%", "+ trees: 100%"]
    assert caption_lines("pred a: 1% + b: 2%", 200) == ["pred a: 1% + b: 2%"]
    many = caption_lines("pred " + " + ".join(f"l {number}: 100%" for number in range(9)), 93)
    assert many == ["pred l 0: 100%", "+ l 1: 100%", "+ l 2: 100%", "+ 6 more"]
    long = caption_lines("pred mountain landscape of water: 97% + a: 3% + b: 3%", 93)
    assert long == ["pred mountain", "landscape of", "water: 97%", "+ a: 3% + b: 3%"]
    assert caption_lines("pred mountain landscape of water: 97% + a: 3% + snow: 30% + b: 3%", 93)[3:] == [
        "+ 3 more"
    ]


def test_a_note_below_a_map_is_broken_into_lines():
    row = MapRow(IMAGE, {"saliency": STRONG}, notes={"saliency": ["map of mountain landscape"]})
    assert {"map of", "mountain", "landscape"} <= {*words(map_sheet({"a": row}, side=96))}


def test_a_strip_of_several_labels_says_which_one_is_explained():
    row = MapRow(
        IMAGE, {"saliency": STRONG}, "true a + b\npred alpha: 97% + beta: 81% + gamma: 66%", of="map of beta"
    )
    shown = words(map_strips({"a": row}, side=96)["a"])
    assert shown == ["pred alpha: 97%", "+ beta: 81%", "+ gamma: 66%", "map of beta"]


def test_scales_below_a_strip_are_those_of_its_maps():
    bars = scale_strip({"saliency": 1.0, "occlusion": 4.0}, {"saliency": "heat", "occlusion": "signed"}, 195)
    found = [word for word in words(bars) if word]
    assert {"saliency", "occlusion"} <= {*found}
    assert sorted(float(word) for word in found if not word.isalpha()) == [-4, 0, 0, 1, 4]
    assert bars.shape[2] == 195


def test_captions_of_errors_are_red():
    red = torch.tensor([int(THEMES["dark"].error[place : place + 2], 16) for place in (1, 3, 5)])[
        :, None, None
    ]
    for wrong in (True, False):
        sheet = map_sheet({"a": MapRow(IMAGE, {"gradient": STRONG}, "true a\npred b: 60%", wrong=wrong)})
        assert bool((sheet == red).all(0).any()) == wrong
        assert ("captions in red: misclassified" in words(sheet)) == wrong


def test_a_map_that_is_not_finite_is_shown():
    broken = STRONG.clone()
    broken[0, 0, 0] = float("nan")
    assert (
        (
            map_sheet({"a": MapRow(IMAGE, {"gradient": broken})}).permute(1, 2, 0)
            == torch.tensor([255, 0, 255])
        )
        .all(2)
        .any()
    )


def test_a_large_map_keeps_its_strongest_values():
    values = torch.zeros(1, 64, 64)
    values[0, 5, 9], values[0, 40, 41] = -3.0, 2.0
    small = reduced(values, 16)
    assert small.shape == (1, 16, 16)
    assert small.sum() == -1
    assert (small[0, 1, 2], small[0, 10, 10]) == (-3, 2)


def test_a_sheet_without_rows_is_refused():
    with pytest.raises(ValueError, match="no rows; wanted at least one image"):
        map_sheet({})
