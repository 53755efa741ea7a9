"""Looks into a network from the shell: which parts of an image speak for an answer, how little changes it.

python -m fulgurite.probes PROBE IMAGE... --network torchvision/resnet18 --target tabby --out out.png
"""

import sys
import warnings
from collections.abc import Sequence

from fulgurite.probes.record import nearest
from fulgurite.probes.shell import attacks, attributions
from fulgurite.probes.shell.given import check_writable

PROBES = {**attributions.PROBES, **attacks.PROBES}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; a mistake in what was asked is one line and exit status 2."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
        elif words[0] not in PROBES:
            raise ValueError(f"no probe {words[0]!r}; {nearest(words[0], PROBES)}")
        else:
            with warnings.catch_warnings():
                warnings.showwarning = lambda said, *_, **__: print(f"note: {said}", file=sys.stderr)
                shell = attacks if words[0] in attacks.PROBES else attributions
                asked = shell.asked_of(words[0], words[1:])
                check_writable(asked.out)
                shell.answer(asked)
    except (ValueError, OSError) as error:
        print(f"error: {_line(error)}", file=sys.stderr)
        return 2
    return 0


def _line(error: Exception) -> str:
    # what was asked may be long, and have line breaks, and bytes that are no text
    said = " ".join(str(error).splitlines()).encode("utf-8", "backslashreplace").decode()
    return said if len(said) <= 2000 else f"{said[:1000]} ... {said[-1000:]}"


def _help() -> str:
    return (
        f"{__doc__}\nprobes:\n"
        + "\n".join(f"  {name:21}{line.splitlines()[0]}" for name, line in PROBES.items())
        + "\n\npython -m fulgurite.probes PROBE --help says what can be chosen."
    )


if __name__ == "__main__":
    sys.exit(main())
