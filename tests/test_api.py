"""`import fulgurite`: the version and the public names, loaded when they are first used."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from processes import Script

import fulgurite
from fulgurite import PUBLIC
from fulgurite.cli.command import main


def test_the_version_is_that_of_the_package():
    assert fulgurite.__version__ == version("fulgurite")


@pytest.mark.parametrize("name", [name for names in PUBLIC.values() for name in names])
def test_a_public_name_is_there_and_documented(name: str):
    assert name in dir(fulgurite)
    found = getattr(fulgurite, name)
    assert name in (found.__name__, found.__qualname__)
    assert found.__doc__


def test_importing_loads_no_torch():
    code = "import sys, fulgurite; print('torch' in sys.modules, 'lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'grad_camm'"):
        _ = fulgurite.grad_camm  # pyright: ignore[reportAttributeAccessIssue]


def test_there_is_one_command(pytestconfig: pytest.Config, tmp_path: Path, capsys: pytest.CaptureFixture):
    module = tmp_path / "module.py"
    module.write_text("import runpy\nrunpy.run_module('fulgurite', run_name='__main__', alter_sys=True)\n")
    started = [Script(script, "--help") for script in (module, pytestconfig.rootpath / "train.py")]
    assert main(["--help"]) == 0
    wanted = capsys.readouterr().out
    assert "fit" in wanted
    for done in (one.ended(60) for one in started):
        assert (done.returncode, done.stdout) == (0, wanted), done.stderr
