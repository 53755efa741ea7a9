"""Files that are refused as weights: pickles with code, broken and missing files, other content."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from fulgurite.models.weights import read


class Malicious:
    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path):
    torch.save({"weight": Malicious(tmp_path / "victim")}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="have to be unpickled"):
        read(tmp_path / "weights.pt")
    assert not (tmp_path / "victim").exists()


def test_a_pickled_network_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "network.pt")
    with pytest.raises(ValueError, match=r"save `network\.state_dict\(\)` alone"):
        read(tmp_path / "network.pt")


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"this is not a file of weights at all", b"PK\x03\x04"])
def test_a_broken_file_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path / name)


def test_a_file_cut_off_is_refused(tmp_path):
    torch.save(torch.rand(1000), tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:2000])
    with pytest.raises(ValueError, match="cut off"):
        read(tmp_path / "half.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file of weights at .*gone\.pt"):
        read(tmp_path / "gone.pt")


@pytest.mark.parametrize(("content", "kind"), [(3, "int"), ({"epoch": 3}, "'epoch' is of type int")])
def test_a_file_of_something_else_is_refused(content, kind, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=kind):
        read(tmp_path / "weights.pt")


class Runs:
    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_with_code_is_reported_as_such_without_a_warning(protocol: int, tmp_path: Path):
    (tmp_path / "weights.pt").write_bytes(pickle.dumps({"weight": Runs()}, protocol=protocol))
    with pytest.raises(ValueError, match="have to be unpickled, which can run any code"):
        read(tmp_path / "weights.pt")


def test_the_folder_of_a_run_is_no_file_of_weights(tmp_path: Path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"folder of a run, no file of weights; .* --backbone"):
        read(tmp_path)
