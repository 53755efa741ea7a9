"""Files that look like weights of a small network: how to make each, and the expected error.

Those that are good after all have "" to be reported.
"""

import io
import json
import os
import pickle
import struct
import subprocess
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from fulgurite.models.networks import build

CANARY = "FULGURITE_CANARY"
CODE, BROKEN, NO_STATE = "can run any code", "cannot be read", "no state dict"


def good() -> dict[str, Any]:
    torch.manual_seed(0)
    return dict(build("small_cnn", classes=4, channels=3).state_dict())


STEM, HEAD = "conv1.weight", [name for name in good() if name.endswith(".weight")][-1]


class Payload:
    """Unpickled, it touches the file that the environment names."""

    def __init__(self, *how: Any):
        self.how = how

    def __reduce__(self):
        return self.how


def _canary() -> str:
    return os.environ[CANARY]


def _changed(name: str = HEAD, *, change: Any) -> dict[str, Any]:
    return {**good(), name: change(good()[name])}


def _pickled(payload: object, *, protocol: int = 2) -> bytes:
    return pickle.dumps({**good(), "more": payload}, protocol=protocol)


def _torch(content: object, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def _rezipped(
    compression: int, extra: dict[str, bytes] | None = None, *, pickled: bytes | None = None
) -> bytes:
    """The good file with its archive written again."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_torch(good()))) as old, zipfile.ZipFile(file, "w", compression) as new:
        for part in old.infolist():
            data = old.read(part)
            new.writestr(part.filename, pickled if pickled and part.filename.endswith("data.pkl") else data)
        for name, data in (extra or {}).items():
            new.writestr(name, data)
    return file.getvalue()


def _safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _scripted() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still about
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    return file.getvalue()


def _sparse(value: torch.Tensor) -> torch.Tensor:
    return value.to_sparse()


def _quantised(value: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def _grown(value: torch.Tensor) -> torch.Tensor:
    return value.flatten()[:1].expand(10**12)


def _deep() -> bytes:
    return b"\x80\x02" + b"]" * 50_000 + b"."


def _nested_key() -> dict:
    key: tuple = ()
    for _ in range(300):
        key = (key,)
    return {key: torch.ones(1)}


def _own_loop() -> dict:
    loop: dict = {}
    loop["loop"] = loop
    return loop


PICKLES = {
    f"{name}, protocol {protocol}": (
        lambda name=name, protocol=protocol: _pickled(Payload(*_PAYLOADS[name]()), protocol=protocol)
    )
    for name in ("os.system", "exec", "os.mkdir", "subprocess")
    for protocol in (0, 2, 4)
}
_PAYLOADS: dict[str, Any] = {
    "os.system": lambda: (os.system, (f"touch {_canary()}",)),
    "exec": lambda: (exec, (f"open({_canary()!r}, 'w').close()",)),
    "os.mkdir": lambda: (os.mkdir, (_canary(),)),
    "subprocess": lambda: (subprocess.call, (["touch", _canary()],)),
    "fromfile": lambda: (np.fromfile, (_canary(),)),
}

FILES: dict[str, tuple[str, Any, str]] = {
    # name: (suffix, how to make it, the expected error)
    **{name: ("pt", make, CODE) for name, make in PICKLES.items()},
    "payload in torch.save": (
        "pt",
        lambda: _torch({**good(), "m": Payload(*_PAYLOADS["os.system"]())}),
        CODE,
    ),
    "payload in an old torch.save": (
        "pt",
        lambda: _torch({"m": Payload(*_PAYLOADS["exec"]())}, _use_new_zipfile_serialization=False),
        CODE,
    ),
    "payload in a checkpoint's options": (
        "ckpt",
        lambda: _torch({"state_dict": good(), "hyper_parameters": Payload(*_PAYLOADS["os.mkdir"]())}),
        CODE,
    ),
    "payload in the archive's pickle": (
        "pt",
        lambda: _rezipped(zipfile.ZIP_STORED, pickled=_pickled(Payload(*_PAYLOADS["os.mkdir"]()))),
        CODE,
    ),
    "numpy's reader": ("pt", lambda: _pickled(Payload(*_PAYLOADS["fromfile"]())), CODE),
    "a pickled network": ("pt", lambda: _torch(nn.Linear(2, 2)), CODE),
    "payload that is called safetensors": (
        "safetensors",
        lambda: _pickled(Payload(*_PAYLOADS["os.mkdir"]())),
        BROKEN,
    ),
    "a program of TorchScript": ("pt", _scripted, "program of TorchScript"),
    # broken
    "empty": ("pt", lambda: b"", BROKEN),
    "empty safetensors": ("safetensors", lambda: b"", BROKEN),
    "zeros": ("pt", lambda: bytes(4096), BROKEN),
    "text": ("pt", lambda: b"no weights at all\n" * 50, BROKEN),
    "half": ("pt", lambda: _torch(good())[: len(_torch(good())) // 2], BROKEN),
    "half safetensors": ("safetensors", lambda: save(good())[: len(save(good())) // 2], BROKEN),
    "without its last byte": ("safetensors", lambda: save(good())[:-1], BROKEN),
    "nested without end": ("pt", _deep, BROKEN),
    "a string of 2**60 bytes": ("pt", lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x", BROKEN),
    "a tar of old": ("pt", lambda: b"storages".ljust(257, b"\0") + b"ustar\0" + bytes(1000), BROKEN),
    # bombs
    "compressed a thousandfold": (
        "pt",
        lambda: _rezipped(zipfile.ZIP_DEFLATED, {"archive/data/99": bytes(10**7)}),
        "compressed archive",
    ),
    "a view of terabytes": ("pt", lambda: _torch(_changed(change=_grown)), "would take"),
    "a hundred thousand views": (
        "pt",
        lambda: _torch({f"w{place}": v for v in [torch.ones(10**6)] for place in range(500)}),
        "would take",
    ),
    "a header of 2**62 bytes": ("safetensors", lambda: _safetensors({}, length=2**62), BROKEN),
    "a header of 200 MB": ("safetensors", lambda: _safetensors(b" " * 1000, length=2 * 10**8), BROKEN),
    "a header that is no JSON": ("safetensors", lambda: _safetensors(b"{" * 1000), BROKEN),
    "a shape beyond its data": (
        "safetensors",
        lambda: _safetensors({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, bytes(4)),
        BROKEN,
    ),
    "two tensors at one place": (
        "safetensors",
        lambda: _safetensors(
            {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}, bytes(4)
        ),
        BROKEN,
    ),
    "a name twice": (
        "safetensors",
        lambda: _safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
            bytes(8),
        ),
        f"{BROKEN}|do not fit",
    ),
    # other contents
    "a number": ("pt", lambda: _torch(3), NO_STATE),
    "a tensor": ("pt", lambda: _torch(torch.ones(3)), NO_STATE),
    "nothing in it": ("pt", lambda: _torch({}), "holds no weights"),
    "dictionaries in dictionaries": ("pt", lambda: _torch({"a": {"b": good()}}), NO_STATE),
    "a dictionary in itself": ("pt", lambda: _torch(_own_loop()), NO_STATE),
    "numbers for names": ("pt", lambda: _torch(dict(enumerate(good().values()))), NO_STATE),
    "a name of tuples": ("pt", lambda: _torch(_nested_key()), f"{NO_STATE}|{CODE}|{BROKEN}"),
    "a name of a megabyte": (
        "pt",
        lambda: _torch({**good(), "n" * 10**6: torch.ones(1)}),
        "not the network's",
    ),
    "a name of several lines": (
        "pt",
        lambda: _torch({**good(), "one\ntwo\x1b[2J": torch.ones(1)}),
        "not the",
    ),
    "a name with and without _orig_mod": (
        "pt",
        lambda: _torch({**good(), f"_orig_mod.{HEAD}": good()[HEAD]}),
        "two tensors for one name",
    ),
    # other numbers
    "NaN": ("pt", lambda: _torch(_changed(change=lambda v: v * torch.nan)), "not finite"),
    "infinite": ("safetensors", lambda: save(_changed(change=lambda v: v / 0)), "not finite"),
    "sparse": ("pt", lambda: _torch(_changed(change=_sparse)), "a sparse tensor"),
    "complex": ("pt", lambda: _torch(_changed(change=lambda v: v + 1j)), "complex numbers"),
    "meta": ("pt", lambda: _torch(_changed(change=lambda v: v.to("meta"))), "without values"),
    "quantised": ("pt", lambda: _torch(_changed(change=_quantised)), "quantised numbers|can run any code"),
    "float8": ("pt", lambda: _torch(_changed(change=lambda v: v.to(torch.float8_e4m3fn))), "float8_e4m3fn"),
    "int8": ("pt", lambda: _torch(_changed(change=lambda v: v.to(torch.int8))), "int8 for float32"),
    "int8 safetensors": (
        "safetensors",
        lambda: save(_changed(change=lambda v: v.char())),
        "int8 for float32",
    ),
    "int64": ("pt", lambda: _torch(_changed(STEM, change=lambda v: v.long())), "int64 for float32"),
    "bool": ("pt", lambda: _torch(_changed(change=lambda v: v > 0)), "bool for float32"),
    # other shapes
    "a head without dimensions": ("pt", lambda: _torch(_changed(change=lambda v: v.sum())), "another shape"),
    "a stem of one dimension": ("pt", lambda: _torch(_changed(STEM, change=torch.flatten)), "another shape"),
    "one is missing": ("pt", lambda: _torch({n: v for n, v in good().items() if n != STEM}), "1 missing"),
    "one too many": ("pt", lambda: _torch({**good(), "more": torch.ones(1)}), "1 not the network's"),
    # good after all
    "float16": ("pt", lambda: _torch({n: v.half() for n, v in good().items()}), ""),
    "bfloat16": ("safetensors", lambda: save({n: v.bfloat16() for n, v in good().items()}), ""),
    "float64": ("pt", lambda: _torch({n: v.double() for n, v in good().items()}), ""),
    "prefixes": ("pt", lambda: _torch({f"module._orig_mod.{n}": v for n, v in good().items()}), ""),
    "a checkpoint with a state dict alone": ("ckpt", lambda: _torch({"state_dict": good()}), ""),
    "views of one storage": (
        "pt",
        lambda: _torch(_changed(change=lambda v: torch.cat([v, v])[: len(v)])),
        "",
    ),
    "turned round": ("pt", lambda: _torch(_changed(change=lambda v: v.T.contiguous().T)), ""),
    "not in a zip": ("pt", lambda: _torch(good(), _use_new_zipfile_serialization=False), ""),
}


def made(name: str, folder: Path) -> Path:
    """The file of this name, in the folder."""
    ending, make, _ = FILES[name]
    path = folder / f"weights.{ending}"
    path.write_bytes(make())
    return path
