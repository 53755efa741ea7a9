"""Command: how transferable each stage of a network is, from one half of the classes to the other."""

import json
from collections.abc import Sequence
from functools import partial

from fulgurite.cli.image_options import Parser, add_picture, check_least
from fulgurite.cli.lightning_messages import hush
from fulgurite.cli.outputs import check_picture, check_writable_text, title_of, write_picture
from fulgurite.data.augment import shifted
from fulgurite.data.class_halves import Half, halves, in_memory
from fulgurite.data.digits import Digits
from fulgurite.data.folder import Folder
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.shapes import Shapes
from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.counted import counted
from fulgurite.probes.style import drawn_in
from fulgurite.recipes.transferability import KINDS, Plan, Transferability, study

ABOUT = """Copy the first n stages of a network to a fresh one, frozen or fine-tuned, and train the rest.

DATA is a folder of images, `DATA/CLASS/*.jpg` or `DATA/train/CLASS/*.jpg`, or shapes, or digits. Its classes
are divided into two tasks, A and B, differently for each seed; or A is --source, other data of as many
channels.
Networks of B with stages of B's own network show the loss from separating layers that were trained together
(co-adaptation), those with stages of A's the loss from features specific to A. Both are marked where they are
significant over the seeds. Yosinski et al. 2014, arxiv.org/abs/1411.1792. The results after each seed are
written as picture and JSON. For each seed 2 + kinds x stages networks are trained."""


def run(verb: str, words: Sequence[str]) -> int:
    """Train, print the table, and write the picture and the figures.

    Raises:
        ValueError: an unknown option, too few classes or seeds, or data that the network cannot take.
    """
    hush()
    parser = Parser(verb, ABOUT)
    parser.add_argument("data", metavar="DATA", help="a folder of images, shapes or digits")
    parser.add_argument("--source", help="task A: other data, all classes; B is then all of DATA")
    parser.add_argument("--network", default="small_vgg", help="by name; small_vgg without it")
    parser.add_argument("--size", type=int, default=32, help="side of the images, in pixels")
    parser.add_argument("--images", type=int, help="training images of shapes, 2000 without it")
    parser.add_argument("--epochs", type=int, default=12, help="of each training")
    parser.add_argument("--lr", type=float, default=4e-3, help="the highest learning rate")
    parser.add_argument("--seeds", type=int, default=3, help="how often everything is repeated")
    trained = f"some of {', '.join(KINDS)}; all without it"
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS), help=trained)
    add_picture(parser, "transferability")
    args = parser.parse_args(list(words))
    table = args.out.with_suffix(".json")
    check_picture(args)
    check_writable_text(table)
    check_least(vars(args), ("size", "epochs"))
    names = [name for name in (args.source, args.data) if name]
    if args.images is not None:
        check_least(vars(args), ("images",))
        if "shapes" not in names:
            raise ValueError(
                f"--images {args.images} is of shapes; {' and '.join(names)} are used as a whole"
            )
    datas = [data_of(name, size=args.size, images=args.images or 2000) for name in names]
    halves(len(datas[-1].classes), seed=0) if len(datas) == 1 else None
    change = partial(shifted, by=args.size / 16, fill="border")
    held = [(data, in_memory(data, augment=change)) for data in datas]

    def tasks(seed: int) -> tuple[ImageData, ImageData]:
        if len(held) == 2:
            first, second = (Half(data, parts, range(len(data.classes)), seed=seed) for data, parts in held)
            return first, second
        ((data, parts),) = held
        first, second = (Half(data, parts, own, seed=seed) for own in halves(len(data.classes), seed=seed))
        return first, second

    found: Transferability | None = None
    for found in study(Plan(args.network, args.epochs, args.lr), tasks, seeds=args.seeds, kinds=args.kinds):
        write_atomic(table, json.dumps(found.as_dict(), indent=2) + "\n")
        with drawn_in(args.theme):
            title = title_of(args, "transferability of layers")
            write_picture(found.picture(), args.out, counted(len(found.base), "seed"), title=title)
    assert found is not None
    print("\n".join(found.lines()))
    return 0


def data_of(name: str, *, size: int, images: int) -> ImageData:
    """Data by name, or from a folder, without augmentation."""
    if name == "shapes":
        return Shapes(classes=10, size=size, images=images, held_out=max(100, images // 2))
    if name == "digits":
        return Digits(size=size, shift=0, noise=0)
    return Folder(name, size=size, augment=False)
