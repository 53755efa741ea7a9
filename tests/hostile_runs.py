"""A table of hostile run folders: what is wrong with each, and how a good one is made so."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

Made = Callable[[Path], object]
"""Makes a good run's folder a hostile one."""


def noted(**parts: object) -> Made:
    """Other values in run.json: next to those that are there, unless the recipe is another."""

    def make(run: Path) -> None:
        printed = json.loads((run / "run.json").read_text())
        for name, value in parts.items():
            beside = isinstance(value, dict) and "recipe" not in parts
            printed[name] = {**printed.get(name, {}), **value} if beside else value
        (run / "run.json").write_text(json.dumps(printed))

    return make


def text(content: str | bytes, name: str = "run.json") -> Made:
    def make(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def without(part: str) -> Made:
    def make(run: Path) -> None:
        printed = json.loads((run / "run.json").read_text())
        del printed[part]
        (run / "run.json").write_text(json.dumps(printed))

    return make


def checkpoints(change: Callable[[Path], object]) -> Made:
    def make(run: Path) -> None:
        for name in ("best", "last"):
            change(run / "checkpoints" / f"{name}.ckpt")

    return make


def changed(change: Callable[[dict], object]) -> Made:
    def at(file: Path) -> None:
        content = torch.load(file, weights_only=True)
        change(content)
        torch.save(content, file)

    return checkpoints(at)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def at(file: Path) -> None:
        file.unlink()
        make(file)

    return at


class Payload:
    """What would run if a file were unpickled."""

    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('canary').write_text('unpickled')",))


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps({"state_dict": Payload()}))


def zipped(file: Path) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1)}, "hyper_parameters": Payload()}, file)


def legacy(file: Path) -> None:
    torch.save({"state_dict": Payload()}, file, _use_new_zipfile_serialization=False)


def linked(to: Path | str) -> Callable[[Path], object]:
    return lambda file: file.symlink_to(to)


def out_of(name: str) -> Made:
    def make(run: Path) -> None:
        shutil.rmtree(run / name, ignore_errors=True)
        elsewhere = run.parent.parent / "elsewhere" / name
        if name == "checkpoints":
            shutil.copytree(Path("good/checkpoints"), elsewhere, dirs_exist_ok=True)
        (run / name).symlink_to(elsewhere.resolve())

    return make


def backbone(to: str) -> Made:
    return noted(recipe="finetune", knobs={"network": None, "backbone": to, "path": "images"}, images={})


def cycle(run: Path) -> None:
    other = run.parent / "other"
    shutil.copytree(run, other)
    backbone(str(other))(run)
    backbone(str(run))(other)


NAME = "runs.evil.payload.X"
CLASS = {"class_path": NAME}
MADE: dict[str, Made] = {
    # run.json is no such file
    "empty": text(""),
    "cut off": text('{"recipe": "digits", "knobs": {'),
    "binary": text(os.urandom(4096)),
    "not UTF-8": text(b'{"recipe": "\xff\xfe"}'),
    "a byte order mark": text("\ufeff{}".encode("utf-16")),
    "a list": text("[]"),
    "null": text("null"),
    "a number": text("1e999"),
    "many digits": text("1" * 10**5),
    "deep lists": text("[" * 10**5 + "]" * 10**5),
    "deep objects": text('{"a":' * 10**5 + "1" + "}" * 10**5),
    "deep knobs": text('{"recipe":"digits","trainer":{},"knobs":{"network":' + "[" * 500 + "]" * 500 + "}}"),
    "huge": text('{"recipe": "' + "x" * 5 * 2**20 + '"}'),
    "a folder": lambda run: [(run / "run.json").unlink(), (run / "run.json").mkdir()],
    "a pipe": lambda run: [(run / "run.json").unlink(), os.mkfifo(run / "run.json")],
    "a link to a device": lambda run: replaced(linked("/dev/zero"))(run / "run.json"),
    "a link to itself": lambda run: replaced(linked("run.json"))(run / "run.json"),
    "a link to a file of others": lambda run: replaced(linked("/etc/hostname"))(run / "run.json"),
    "YAML": text("!!python/object/apply:builtins.exec [\"open('canary', 'w')\"]"),
    # its parts
    "no recipe": without("recipe"),
    "no knobs": without("knobs"),
    "an unknown part": noted(all=1),
    "recipe: a number": noted(recipe=7),
    "recipe: none there": noted(recipe="digitz"),
    "recipe: a path": noted(recipe="../digits"),
    "recipe: a module": noted(recipe="command"),
    "recipe: a payload": noted(recipe="runs.evil.payload"),
    "recipe: control characters": noted(recipe="\x1b[2J\nerror: all is well\u202e"),
    "recipe: a surrogate": text('{"recipe": "\\ud800", "knobs": {}, "trainer": {}}'),
    "knobs: a list": noted(knobs=[1]),
    "knobs: a class": noted(knobs={"network": CLASS}),
    "knobs: a class in a list": noted(knobs={"network": [CLASS]}),
    "knobs: a class for a number": noted(knobs={"lr": CLASS}),
    "knobs: a dotted name": noted(knobs={"network": NAME}),
    "knobs: a hub's name": noted(knobs={"network": "timm/hf-hub:evil/net"}),
    "knobs: a folder's name": noted(knobs={"network": "timm/local-dir:runs/evil"}),
    "knobs: a network of files": noted(knobs={"network": "torchvision/../../evil"}),
    "knobs: no longer there": noted(knobs={"flavour": "mint"}),
    "knobs: text for a number": noted(knobs={"epochs": "many"}),
    "knobs: negative": noted(knobs={"batch_size": -1}),
    "knobs: not finite": noted(knobs={"lr": float("nan")}),
    "knobs: a huge size": noted(knobs={"size": 10**6}),
    "knobs: more digits than bits": noted(knobs={"size": 10**40}),
    "knobs: a list for text": noted(knobs={"network": [1, 2]}),
    "knobs: keys of options": noted(knobs={"--help": 1, "config": "runs/evil/evil.yaml"}),
    "trainer: a list": noted(trainer=[["profiler", NAME]]),
    "trainer: a class for profiler": noted(trainer={"profiler": CLASS}),
    "trainer: a dotted profiler": noted(trainer={"profiler": NAME}),
    "trainer: a class for plugins": noted(trainer={"plugins": [CLASS]}),
    "trainer: a dotted plugin": noted(trainer={"plugins": NAME}),
    "trainer: a list of plugins": noted(trainer={"plugins": [NAME]}),
    "trainer: a class for strategy": noted(trainer={"strategy": CLASS}),
    "trainer: a dotted strategy": noted(trainer={"strategy": NAME}),
    "trainer: a class for accelerator": noted(trainer={"accelerator": CLASS}),
    "trainer: a dotted accelerator": noted(trainer={"accelerator": NAME}),
    "trainer: a dotted precision": noted(trainer={"precision": NAME}),
    "trainer: callbacks": noted(trainer={"callbacks": NAME}),
    "trainer: a logger": noted(trainer={"logger": CLASS}),
    "trainer: another root": noted(trainer={"default_root_dir": "elsewhere"}),
    "trainer: a config": noted(trainer={"config": "runs/evil/evil.yaml"}),
    "trainer: an unknown option": noted(trainer={"evil": 1}),
    "trainer: many processes": noted(trainer={"devices": 10**5, "accelerator": "cpu"}),
    "trainer: many nodes": noted(trainer={"num_nodes": 3}),
    "trainer: accumulate 0": noted(trainer={"accumulate_grad_batches": 0}),
    "trainer: text for a number": noted(trainer={"max_epochs": "many"}),
    "images: a list": noted(images=[1]),
    "images: text for size": noted(images={"size": "8"}),
    "images: a negative size": noted(images={"size": -8}),
    "images: a size that is not finite": noted(images={"size": float("nan")}),
    "images: a huge size": noted(images={"size": 10**9}),
    "images: true for size": noted(images={"size": True}),
    "images: numbers for classes": noted(images={"classes": [0, 1]}),
    "images: text for classes": noted(images={"classes": "0123456789"}),
    "images: no classes": noted(images={"classes": []}),
    "images: text for mean": noted(images={"mean": ["0.5"]}),
    "images: means for three channels": noted(images={"mean": [0.1, 0.2, 0.3]}),
    "images: std 0": noted(images={"std": [0.0]}),
    "images: std not finite": noted(images={"std": [float("inf")]}),
    "images: many channels": noted(images={"channels": 10**6}),
    "images: an unknown framing": noted(images={"framing": NAME}),
    "images: a class for framing": noted(images={"framing": CLASS}),
    "versions: a list": noted(versions=[1]),
    "versions: a class": noted(versions={"torch": CLASS}),
    "commit: a class": noted(commit=[CLASS]),
    # checkpoints
    "checkpoints: empty": checkpoints(lambda file: file.write_bytes(b"")),
    "checkpoints: cut off": checkpoints(lambda file: os.truncate(file, 1000)),
    "checkpoints: folders": checkpoints(replaced(Path.mkdir)),
    "checkpoints: pipes": checkpoints(replaced(os.mkfifo)),
    "checkpoints: a device": checkpoints(replaced(linked("/dev/zero"))),
    "checkpoints: themselves": checkpoints(replaced(linked("best.ckpt"))),
    "checkpoints: a pickle": checkpoints(replaced(pickled)),
    "checkpoints: hyper-parameters": checkpoints(replaced(zipped)),
    "checkpoints: an old pickle": checkpoints(replaced(legacy)),
    "checkpoints: a list": checkpoints(lambda file: torch.save([1], file)),
    "checkpoints: no weights": changed(lambda content: content.update(state_dict=3)),
    "checkpoints: a step of text": changed(lambda content: content.update(global_step="3")),
    "checkpoints: a negative epoch": changed(lambda content: content.update(epoch=-3)),
    "checkpoints: no optimizer": changed(lambda content: content.update(optimizer_states=[])),
    "checkpoints: an optimizer of other weights": changed(
        lambda content: content.update(optimizer_states=[{"state": {0: {"exp_avg": torch.zeros(3, 5)}}}])
    ),
    "checkpoints: an optimizer of text": changed(lambda content: content.update(optimizer_states=["adam"])),
    "checkpoints: a callback without a state": changed(
        lambda content: content["callbacks"].update(Checkpoints=None)
    ),
    "checkpoints: a version of nothing": changed(
        lambda content: content.update({"pytorch-lightning_version": "junk"})
    ),
    "checkpoints: all out of the folder": out_of("checkpoints"),
    # a backbone
    "backbone: itself": backbone("runs/evil"),
    "backbone: in a circle": cycle,
    "backbone: nowhere": backbone("nowhere"),
    "backbone: a number": noted(recipe="finetune", knobs={"network": None, "backbone": 3}, images={}),
    "backbone: a list": noted(
        recipe="finetune", knobs={"network": None, "backbone": ["runs/evil"], "path": "images"}
    ),
    "weights: a pickle": lambda run: [
        pickled(run / "evil.pt"),
        noted(recipe="folder", knobs={"weights": str(run / "evil.pt"), "path": "images"}, images={})(run),
    ],
    "pictures out of the folder": out_of("pictures"),
    "probe out of the folder": out_of("probe"),
    "test out of the folder": out_of("test"),
    "predictions out of the folder": out_of("predictions"),
    "data out of the folder": noted(
        recipe="cifar10",
        knobs={"dataset": "MNIST", "root": "elsewhere/data", "network": "small_vgg"},
        images={},
    ),
    # what its test has found
    "tested: cut off": text('{"checkpoint": "best.ckpt", "met', "test.json"),
    "tested: a list": text("[1]", "test.json"),
    "tested: deep lists": text("[" * 10**5, "test.json"),
    "tested: a folder": lambda run: replaced(Path.mkdir)(run / "test.json"),
    "tested: a pipe": lambda run: replaced(os.mkfifo)(run / "test.json"),
    "tested: a link to nothing": lambda run: replaced(linked("nowhere.json"))(run / "test.json"),
    # a study
    "stages: no answer": noted(recipe="stages", knobs={}),
    "stages: an answer of lists": lambda run: [
        noted(recipe="stages")(run),
        (run / "stages.json").write_text('{"best": [], "networks": 3}'),
        (run / "stages.safetensors").write_bytes(b"x" * 100),
    ],
}
