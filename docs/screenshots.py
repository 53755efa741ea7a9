"""Makes screenshots of TensorBoard from a run, by headless Chromium.

python train.py fit digits && python docs/screenshots.py runs/digits/0
"""

import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

HERE = Path(__file__).parent / "pictures"
TABS = {"custom_scalars": (1300, 760), "projector": (1300, 900)}
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


def main(run: str, port: int = 6017) -> None:
    """Serve the run, and take a picture of each tab."""
    here = f"http://127.0.0.1:{port}"
    words = ["--logdir", run, "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *words], stderr=subprocess.DEVNULL)
    try:
        wait_for(here)
        for tab, (width, height) in TABS.items():
            file = HERE / f"tensorboard_{tab}.png"
            browser = ["chromium", "--headless", "--no-sandbox", *WEBGL, "--virtual-time-budget=60000"]
            browser += [f"--window-size={width},{height}", f"--screenshot={file}", f"{here}/#{tab}"]
            subprocess.run(browser, check=True, stderr=subprocess.DEVNULL)
            print(f"{file.name}: {file.stat().st_size} bytes")
    finally:
        server.terminate()
        server.wait()


def wait_for(address: str, *, seconds: float = 120) -> None:
    """Wait until something answers there.

    Raises:
        TimeoutError: nothing does.
    """
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            urlopen(address).close()
        except URLError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError(f"no answer at {address}")


if __name__ == "__main__":
    main(sys.argv[1])
