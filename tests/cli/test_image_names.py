"""Names of images: as short as tells them apart, on sheets and as files."""

from pathlib import Path

import pytest

from fulgurite.cli.image_names import file_name, names_of


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.png", "a/y.png"], ["x", "y"]),
        (["a/x.png", "b/x.png", "b/y.png"], ["a/x", "b/x", "y"]),
        (["a/x.png", "a/x.jpg", "b/x.jpg"], ["a/x.png", "a/x.jpg", "b/x"]),
        (["x.png", "b/x.png"], ["x", "b/x"]),
        # a_x is the name of another file
        (["a/x.png", "b/x.png", "c/a_x.png"], ["a/x.png", "b/x", "a_x"]),
        (["a/b/x.png", "a_b/x.png"], ["a/b/x.png", "a_b/x.png"]),
    ],
)
def test_a_name_has_folder_and_suffix_only_where_it_needs_them(files, names):
    assert names_of([*map(Path, files)]) == names


def test_names_without_suffix_are_different_files():
    files = [*map(Path, ("a/x.png", "b/x.png", "c/a_x.png", "d/b x.png"))]
    assert len({file_name(name) for name in names_of(files)}) == len(files)
