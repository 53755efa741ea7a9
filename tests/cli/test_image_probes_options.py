"""Options with values of every kind: a result or one line, in bounded time."""

import os
import random
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from folder_kinds import painted
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli import (
    activations,
    attack,
    attribution,
    class_images,
    codes,
    concept_vectors,
    concepts,
    dreams,
    faithfulness,
    fooling,
    patches,
    synthesis,
)
from fulgurite.cli.command import main
from fulgurite.cli.image_probes import probes
from fulgurite.data.crops import from_the_middle
from fulgurite.data.decoding import read_image
from fulgurite.models.networks import build
from fulgurite.probes.predict import predict

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("default")]

NUMBERS = ["0", "1", "2", "-1", "0.5", "-0.5", "1e-400", "1e300", "9" * 20, "9" * 5000, "+3", "0x10", "1_0"]
NUMBERS += ["NaN", "nan", "Infinity", "-inf", "1e400", "8/255", "1/0", "1/2/3", "\u0663", "\u00b2", "4096"]
LISTS = [
    "[]",
    "[1]",
    "[1,2]",
    "[2,1]",
    '["a",1]',
    "[0,0]",
    "[1,2,3]",
    "[[1],2]",
    "[1.5,2]",
    "[true,1]",
    "[NaN,1]",
]
LISTS += ["{}", '{"a":1}', "[" * 9000, "null", "true", "false", '"', '"word"']
WORDS = ["", " ", "a\nb", "\udcff", "../x", "-", "--", "{0}", "%s", "all", "blur", "cpu", "meta", "cuda:99"]
WORDS += ["relu3", "conv2:3", "conv2:-1", "conv2:3:1:2", f"conv2:{'9' * 20}", "::", "conv2:", ":3", "conv9:1"]
WORDS += ["conv2:3:99:1", "tpu", "cuda:x", "gradient,,", "gradient,gradient", "random"]
PLACES = ["{image}", "{folder}", "{weights}", "{pipe}", "{missing}", "/dev/zero", "{text}", "{out}"]
COUNTS = {
    "draws",
    "seeds",
    "steps",
    "masks",
    "samples",
    "queries",
    "restarts",
    "rounds",
    "components",
    "target_classes",
    "repeats",
    "most",
    "directions",
    "patches",
}
FEW = {"draws": 2, "steps": 2, "masks": 6, "samples": 12, "segments": 4, "queries": 9, "rounds": 1, "most": 2}
FEW |= {"directions": 2, "patches": 1, "octaves": 1, "k": 2}
NOT_FOR_IT = ("cam", "attention_rollout")  # for the small network
REQUIRED = {
    "style": ["--style", "x.png"],
    "fool": ["--target", "1"],
    "tcav": ["--class", "x", "--concept", "x", "--random", "x", "--layers", "x"],
}
"""Options without which a probe does not start."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("home")
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), home / "weights.safetensors")
    painted(home / "folder" / "a.png")
    for place in range(10):  # neighbours and concepts are of several images
        noisy(home / "several" / f"{place}.png", place)
    os.mkfifo(home / "pipe")
    (home / "names.txt").write_text("cat\ndog\ncrane\nwasp\n")
    return home


def noisy(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.frombytes("L", (20, 20), random.Random(seed).randbytes(400)).save(path)


def shell_of(probe: str) -> ModuleType:
    return probes()[probe]


def options_of(probe: str) -> list[str]:
    """Every option that a probe has, but where pictures go."""
    shell = shell_of(probe)
    words = ["x.png", "--network", "x", *(["--eps", "0.1"] if shell is attack else [])]
    words += ["--class", "x"] if shell is concepts else []
    words += REQUIRED.get(probe, [])
    own = {"images", "probe", "knobs", "usual", "out", "save", "randomise"}
    own |= {"methods"} if probe != "compare" else set()
    found = [name for name in vars(shell.parse(probe, words)) if name not in own]
    by_class = shell in (concepts, concept_vectors)
    return ["class" if name == "target" and by_class else name for name in found]


def predicted(home: Path) -> int:
    """What the small network takes the image for."""
    network = build("small_vgg", classes=4, channels=3, weights=home / "weights.safetensors").eval()
    image = from_the_middle(16)(read_image(home / "folder" / "a.png", channels=3))
    return int(predict(network, image[None]).argmax())


def drawn(probe: str, draw: random.Random) -> list[str]:
    """One or two options with values given by mistake, or with bad intent."""
    words: list[str] = []
    for name in draw.sample(options_of(probe), draw.choice((1, 1, 2))):
        values = draw.choice((NUMBERS, NUMBERS, LISTS, WORDS, PLACES))
        # many passes, or passes over large images, are not a mistake
        many = {"4096"} if name in COUNTS | {"size"} else set()
        words += [f"--{name}", draw.choice([value for value in values if value not in many])]
    return words


QUICK = ("grad_cam", "attack", "class_images", "patches")


@pytest.mark.parametrize(
    "probe", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in probes()]
)
@pytest.mark.parametrize("rounds", [9, pytest.param(20, marks=pytest.mark.faults)])
def test_an_odd_value_is_an_answer_or_a_line(probe, rounds, home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw, image = random.Random(probe), home / "folder" / "a.png"
    usual = {"network": "small_vgg", "weights": home / "weights.safetensors", "size": 16, "side": 16}
    usual |= {name: few for name, few in FEW.items() if name in options_of(probe)}
    if probe == "attack":  # by PGD, which has neither queries nor target_classes
        usual = {name: one for name, one in usual.items() if name != "queries"}
    if shell_of(probe) is concepts:
        usual |= {"class": predicted(home), "count": 2}
    if probe == "faithfulness":  # whose masks are a folder
        del usual["masks"]
    usual |= {"attack": {"eps": "8/255"}, "compare": {"methods": "gradient,occlusion,lime"}}.get(probe, {})
    folders = {"class": 1, "concept": home / "several", "random": home / "several", "layers": "conv2"}
    usual |= {"style": {"style": image}, "fool": {"target": 1}, "tcav": folders}.get(probe, {})
    usual.pop("most", None) if probe == "tcav" else None
    places = {"{image}": image, "{folder}": home / "folder", "{missing}": "nowhere", "{out}": "out.png"}
    places |= {
        "{weights}": home / "weights.safetensors",
        "{text}": home / "names.txt",
        "{pipe}": home / "pipe",
    }
    for asked in ([], *(drawn(probe, draw) for _ in range(rounds))):
        chosen = [str(places.get(word, word)) for word in asked]
        base = [word for name, one in usual.items() for word in (f"--{name}", str(one))]
        started = time.monotonic()
        status = main([probe, str(home / "several" if shell_of(probe) is codes else image), *base, *chosen])
        printed = capsys.readouterr()
        assert status in ((0, 2) if asked or probe in NOT_FOR_IT else (0,)), printed.err
        if status:
            wrong = [line for line in printed.err.split("\n") if not line.startswith("note: ")]
            assert wrong[0].startswith("error: "), chosen
            assert wrong[1:] == [""], chosen
            assert len(printed.err) < 3000, chosen
            assert list(tmp_path.iterdir()) == [], chosen
        else:
            (out,) = tmp_path.glob("*.png")
            assert out.read_bytes().startswith(b"\x89PNG"), chosen
            beside = {out.with_suffix(".csv")} if probe == "faithfulness" else set()
            assert {*tmp_path.iterdir()} == {out, *beside}, chosen
            for written in (out, *beside):
                written.unlink()
        assert time.monotonic() - started < 30, chosen


def counted(shell, probe: str) -> list[tuple[str, str]]:
    """Each option of a probe whose value is a whole number, and what it is of."""
    knobs = shell.ATTACKS if shell is attack else {probe: None}
    if shell is synthesis:
        own = {probe: synthesis.defaults_of(probe)}
        return [
            (of, name)
            for of, each in own.items()
            for name in each
            if type(each[name]) is int and name != "seed"
        ]
    if shell is class_images:
        return [(probe, "seeds"), (probe, "steps")]
    if shell is concepts:
        return [(probe, "count"), (probe, "most")]
    if shell is concept_vectors:
        return [(probe, "most")]
    if shell is patches:
        return [(probe, name) for name in patches.COUNTS]
    if shell is codes:
        return [(probe, name) for name in codes.COUNTS[probe]]
    if shell is faithfulness:
        return [(probe, "steps"), (probe, "draws")]
    if shell is dreams:
        return [(probe, name) for name in {"dream": ("steps", "octaves", "tile")}.get(probe, ("steps",))] + [
            (probe, "count")
        ] * (probe == "texture")
    if shell is fooling:
        return [(probe, "steps")]
    if shell is activations:
        return [(probe, "most")] if probe == "activations" else []
    own = {
        of: attack._knobs(function)
        if shell is attack
        else {name: knob.default for name, knob in attribution._knobs(of).items()}
        for of, function in knobs.items()
    }
    return [
        (of, name)
        for of, each in own.items()
        for name, default in each.items()
        if type(default) is int and name != "seed"
    ]


@pytest.mark.parametrize("probe", probes())
def test_no_option_counts_without_end(probe: str, capsys):
    shell = shell_of(probe)
    for of, name in counted(shell, probe):
        own = ["--eps", "0.1", "--attack", of] if shell is attack else []
        own += ["--class", "x"] if shell is concepts else []
        own += REQUIRED.get(probe, [])
        assert main([probe, "x.png", "--network", "x", *own, f"--{name}", "1000000000"]) == 2
        assert f"error: --{name} 1000000000; wanted at most " in capsys.readouterr().err
