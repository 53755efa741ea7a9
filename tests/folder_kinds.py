"""Folders of images of every kind: links in circles, names of any bytes, and files that are none."""

import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

ODD = [
    'a\nb, "c"; d.png',
    "'quoted' `whoami` $(touch canary).png",
    "-rf.png",
    " leading and trailing .png",
    "\u732b \U0001f638\u200d\U0001f680.png",
    "tab\tand\x1b[31mescape\x7f.png",
    os.fsdecode(b"\xff\xfe latin \xe9.png"),
    os.fsdecode(b"\xe9" * 251 + b".png"),
    "x" * 251 + ".png",
    "\U0001f638" * 62 + "abc.png",
    "CASE.PNG",
    "case.png",
    "a.b.c.png",
    "%s{0}\\n.png",
]
"""Names that a file may have; each is one of its folder."""


def painted(path: Path, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (20, 20), shade).save(path, "PNG")
    return path


def two_classes(path: Path, images: int = 5) -> Path:
    for number, name in enumerate(("ants", "bees")):
        for index in range(images):
            painted(path / name / f"{index}.png", 50 + 100 * number + index)
    return path


def link(path: Path, to: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def plain(path: Path) -> None:
    two_classes(path)


def nested(path: Path) -> None:
    painted(two_classes(path) / "ants" / "red" / "deep" / "1.png")


def deeply_nested(path: Path) -> None:
    painted(two_classes(path) / "ants" / "/".join("d" * 200) / "1.png")


def link_to_itself(path: Path) -> None:
    link(two_classes(path) / "ants" / "again", ".")


def two_links_to_itself(path: Path) -> None:
    """Links in a circle: without end, except for the limit of the system."""
    for name in ("again", "and_again"):
        link(two_classes(path) / "ants" / name, ".")


def many_links_in_circles(path: Path) -> None:
    two_classes(path)
    for number in range(60):
        (path / "ants" / f"d{number}").mkdir()
        for other in range(60):
            link(path / "ants" / f"d{number}" / f"to{other}", f"../d{other}")


def links_to_each_other(path: Path) -> None:
    link(two_classes(path) / "ants" / "theirs", "../bees")
    link(path / "bees" / "theirs", "../ants")


def link_to_above(path: Path) -> None:
    link(two_classes(path) / "ants" / "up", "..")


def root_among_its_classes(path: Path) -> None:
    link(two_classes(path) / "all", ".")


def a_class_twice(path: Path) -> None:
    link(two_classes(path) / "wasps", "bees")


def an_image_of_two_classes(path: Path) -> None:
    link(two_classes(path) / "bees" / "x.png", "../ants/0.png")


def an_image_twice(path: Path) -> None:
    link(two_classes(path) / "ants" / "00.png", "0.png")
    link(path / "ants" / "more" / "x.png", "../0.png")


def an_image_of_two_classes_by_a_hard_link(path: Path) -> None:
    (two_classes(path) / "bees" / "x.png").hardlink_to(path / "ants" / "0.png")


def an_image_thrice_by_hard_links(path: Path) -> None:
    for name in ("00.png", "x.png"):
        (two_classes(path) / "ants" / name).hardlink_to(path / "ants" / "0.png")


def validated_by_a_hard_link(path: Path) -> None:
    two_classes(path / "train")
    two_classes(path / "val")
    (path / "val" / "ants" / "x.png").hardlink_to(path / "train" / "ants" / "1.png")


def hard_links_elsewhere(path: Path) -> None:
    two_classes(path)
    for file in sorted(path.rglob("*.png")):
        elsewhere = path.with_name("copy") / file.relative_to(path)
        elsewhere.parent.mkdir(parents=True, exist_ok=True)
        elsewhere.hardlink_to(file)


def classes_elsewhere(path: Path) -> None:
    two_classes(path.with_name("elsewhere"))
    for name in ("ants", "bees"):
        link(path / name, path.with_name("elsewhere") / name)


def images_elsewhere(path: Path) -> None:
    two_classes(path.with_name("pool"))
    for file in sorted(path.with_name("pool").rglob("*.png")):
        # a store of contents names them by their sums
        link(path / file.parent.name / file.name, file.rename(file.with_name(f"{file.stem}_5f7a")))


def dangling_image(path: Path) -> None:
    link(two_classes(path) / "ants" / "gone.png", "nowhere.png")


def dangling_folder(path: Path) -> None:
    link(two_classes(path) / "ants" / "gone", "nowhere")
    link(path / "wasps", "nowhere")


def images_in_circles(path: Path) -> None:
    link(two_classes(path) / "ants" / "x.png", "y.png")
    link(path / "ants" / "y.png", "x.png")
    link(path / "ants" / "z.png", "z.png")


def hidden(path: Path) -> None:
    for name in (".DS_Store", "ants/._0.png", "ants/.cache/0.png", ".git/0.png", "__MACOSX/ants/0.png"):
        painted(two_classes(path) / name)


def odd_names(path: Path) -> None:
    for name in ODD:
        painted(two_classes(path) / "ants" / name)


def odd_classes(path: Path) -> None:
    for name in ODD:
        for index in range(2):
            painted(path / name.removesuffix(".png") / f"{index}.png")


def fifo(path: Path) -> None:
    os.mkfifo(two_classes(path) / "ants" / "x.png")


def fifo_beside(path: Path) -> None:
    os.mkfifo(two_classes(path) / "ants" / "pipe")
    os.mkfifo(path / "pipe")


def in_socket(path: Path) -> None:
    there = os.open(two_classes(path) / "ants", os.O_RDONLY)
    try:  # the path of a socket may have 107 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{there}/x.png")
    finally:
        os.close(there)


def device(path: Path) -> None:
    link(two_classes(path) / "ants" / "x.png", "/dev/zero")


def archive(path: Path) -> None:
    with zipfile.ZipFile(two_classes(path) / "ants" / "x.jpg", "w") as packed:
        packed.writestr("a.png", "x")


def thousands(path: Path) -> None:
    two_classes(path)
    for name in ("ants", "bees"):
        content = (path / name / "0.png").read_bytes()
        for number in range(1500):
            (path / name / f"n{number}.png").write_bytes(content)


def empty(path: Path) -> None:
    path.mkdir()


def one_class(path: Path) -> None:
    painted(path / "ants" / "0.png")


def a_file_for_a_class(path: Path) -> None:
    painted(path / "ants" / "0.png")
    painted(path / "bees")


def a_folder_named_as_an_image(path: Path) -> None:
    painted(two_classes(path) / "ants" / "x.png" / "1.png")


def only_text(path: Path) -> None:
    for name in ("ants", "bees"):
        (path / name).mkdir(parents=True)
        (path / name / "x.txt").write_text("no image")


def a_fifo_itself(path: Path) -> None:
    os.mkfifo(path)


def validated_by_a_link(path: Path) -> None:
    two_classes(path / "train")
    link(path / "val", "train")


def validated_by_links(path: Path) -> None:
    two_classes(path / "train")
    two_classes(path / "val")
    (path / "val" / "ants" / "0.png").unlink()
    link(path / "val" / "ants" / "0.png", "../../train/ants/1.png")


def tested_by_a_link_to_val(path: Path) -> None:
    two_classes(path / "train")
    two_classes(path / "val")
    link(path / "test", "val")


KINDS: dict[Callable[[Path], None], int | str] = {
    plain: 10,
    nested: 11,
    deeply_nested: 11,
    link_to_itself: 10,
    two_links_to_itself: 10,
    many_links_in_circles: 10,
    links_to_each_other: r"are one file by a link",
    link_to_above: r"are one file by a link",
    root_among_its_classes: r"ants/0\.png and .*all/ants/0\.png|all/ants/0\.png and .*ants/0\.png",
    a_class_twice: r"bees/0\.png and .*wasps/0\.png are one file by a link, and 4 more",
    an_image_of_two_classes: r"ants/0\.png and .*bees/x\.png are one file by a link; an image belongs",
    an_image_twice: 10,
    an_image_of_two_classes_by_a_hard_link: r"ants/0\.png and .*bees/x\.png are one file by a link; an image",
    an_image_thrice_by_hard_links: 10,
    hard_links_elsewhere: 10,
    classes_elsewhere: 10,
    images_elsewhere: 10,
    dangling_image: r"1 of 11 images cannot be read; .*gone\.png \(No such file",
    dangling_folder: 10,
    images_in_circles: r"3 of 13 images cannot be read; .*x\.png \(.*y\.png \(.*z\.png \(",
    hidden: 10,
    odd_names: 10 + len(ODD),
    odd_classes: 2 * len(ODD),
    fifo: r"1 of 11 images cannot be read; .*x\.png \(it is not a regular file\)",
    fifo_beside: 10,
    in_socket: r"1 of 11 images cannot be read; .*x\.png \(it is not a regular file\)",
    device: r"1 of 11 images cannot be read; .*x\.png \(it is not a regular file\)",
    archive: r"1 of 11 images cannot be read; .*x\.jpg \(Pillow finds no ",
    thousands: 3010,
    empty: "has no class folders",
    one_class: "only one class in",
    a_file_for_a_class: "only one class in",
    a_folder_named_as_an_image: 11,
    only_text: "no images in any folder of",
    a_fifo_itself: "there is no folder",
    validated_by_a_link: r"train/ants/0\.png and .*val/ants/0\.png are one file by a link, and 9 more",
    validated_by_links: r"train/ants/1\.png and .*val/ants/0\.png are one file by a link; an image",
    validated_by_a_hard_link: r"train/ants/1\.png and .*val/ants/x\.png are one file by a link; an image",
    tested_by_a_link_to_val: 30,
}
"""How many images there are in each, or why it is refused."""
