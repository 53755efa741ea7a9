"""Reading of weights files (safetensors, torch) without executing any of their content."""

import io
import pickle
import pickletools
import stat
import warnings
import zipfile
from pathlib import Path

import safetensors.torch
import torch


def contents(path: Path) -> object:
    """The content of a safetensors file (by its suffix) or a file of `torch.save`; no code in it is run.

    Raises:
        ValueError: there is no such file, it cannot be read, or it holds code.
    """
    _check_file(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings on how a pickle was written
            return torch.load(path, map_location="cpu", weights_only=True)
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except pickle.UnpicklingError as error:
        if not _holds_code(path, error):
            raise ValueError(_broken(path)) from error
        raise ValueError(
            f"{path} holds more than weights: it would have to be unpickled, which can run any code; "
            "where it was made, save `network.state_dict()` alone, best as safetensors"
        ) from error
    except Exception as error:  # readers of broken files raise anything
        raise ValueError(_broken(path)) from error


class _RefusedError(Exception):
    pass


def _check_file(path: Path) -> None:
    try:
        mode, of_a_run = path.stat().st_mode, (path / "run.json").is_file()
    except (OSError, ValueError):  # names of impossible length or with a zero, links in a ring
        raise ValueError(f"no file of weights at {path}") from None
    if of_a_run:
        raise ValueError(
            f"{path} is the folder of a run, no file of weights; finetune and advise take it as --backbone "
            f"{path}, advise as one of --networks by its path alone, others "
            f"{path / 'checkpoints' / 'best.ckpt'}"
        )
    if not stat.S_ISREG(mode):
        empty = "; an empty name is this folder" if str(path) == "." else ""
        raise ValueError(f"no file of weights at {path}: it is a folder, a pipe or a device{empty}")


def _check_archive(path: Path) -> None:
    """Check that a zip archive is as `torch.save` writes it: not compressed, and no program."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        inside = archive.infolist()
    if any("/code/" in part.filename for part in inside):
        raise _RefusedError(
            f"{path} is a program of TorchScript, no state dict; where it was made, save "
            "`network.state_dict()` alone, best as safetensors"
        )
    # a megabyte can be unpacked to gigabytes
    if sum(part.file_size for part in inside) > path.stat().st_size:
        raise _RefusedError(
            f"{path} is a compressed archive, which torch.save does not write; save `network.state_dict()`"
        )


def _holds_code(path: Path, error: pickle.UnpicklingError) -> bool:
    """Whether it is a pickle that names code to run."""
    if "GLOBAL" in str(error):
        return True
    with path.open("rb") as file:
        start = io.BytesIO(file.read(2**20))
    try:
        for code, *_ in pickletools.genops(start):
            if code.name in ("GLOBAL", "STACK_GLOBAL"):
                return True
    except Exception:  # no pickle, or a longer one
        return False
    return False


def _broken(path: Path) -> str:
    return (
        f"{path} cannot be read: it is cut off, corrupt, or neither safetensors (by its ending) nor a file "
        "of torch.save; copy or download it again"
    )
