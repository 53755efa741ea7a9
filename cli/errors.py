"""Errors of the command: one line on the terminal, and an exit status."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

LONGEST = 2000
"""Characters of an error."""


def mistakes() -> tuple[type[BaseException], ...]:
    """Errors that are reported in one line at any time."""
    torch = sys.modules.get("torch")  # if it is not imported, it has raised nothing
    return (ValueError, OSError, MemoryError, *([torch.OutOfMemoryError] if torch else []))


class Ended(SystemExit):
    """The command was ended by a signal; its status is 128 and the signal's number, as in a shell."""

    def __init__(self, signum: int, words: str = ""):
        super().__init__(128 + signum)
        self.signum, self.words = signum, words or f"ended by {signal.Signals(signum).name}"

    def __str__(self) -> str:
        return self.words


def exit_status(run: Callable[[], int]) -> int:
    """What `run` returns; 2 after one line where it raises, and 128 plus its number after a signal.

    With FULGURITE_TRACEBACK set in the environment, a mistake is a traceback.
    """
    try:
        return run()
    except BrokenPipeError:  # the reader has ended, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (*mistakes(), RuntimeError) as error:
        memory = "allocate memory" in str(error)  # torch's message on a CPU
        message = _not_deterministic(error)
        if os.environ.get("FULGURITE_TRACEBACK") or not (message or memory or isinstance(error, mistakes())):
            raise
        print(f"error: {message or one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Ended as end:
        from fulgurite.cli.run_lock import is_main_process  # Lightning takes seconds to import

        if is_main_process():
            print(one_line(end), file=sys.stderr)
        return 128 + end.signum


def program() -> list[str]:
    """The words that start the command, as the user typed them."""
    started = Path(sys.argv[0]).name
    return ["python", "train.py"] if started == "train.py" else ["fulgurite"]


def _not_deterministic(error: BaseException) -> str:
    """A sentence where an operator of the network has no deterministic form on this device; else nothing."""
    operator, separator, _ = str(error).partition(" does not have a deterministic implementation")
    if not separator:
        return ""
    return (
        f"{one_line(ValueError(operator))} is not deterministic on this device, and --trainer.deterministic "
        "true asks for it; replace that layer of the network, or ask for --trainer.deterministic warn"
    )


def _from_a_worker(reported: str) -> str:
    """The message of an error in a process that loads images, without the traceback that PyTorch adds."""
    caught = re.match(r"Caught (\w+) in DataLoader worker process", reported)
    if not caught:
        return reported
    return re.split(rf"^(?:[\w.]+\.)?{caught[1]}: ", reported, flags=re.MULTILINE)[-1]


def one_line(error: BaseException) -> str:
    """The message in one printable line, whatever a file or a name has put into it."""
    reported = _from_a_worker(str(error))
    if isinstance(error, OSError) and error.filename is not None:
        reported = f"{error.filename}: {error.strerror}"
    text = " ".join(reported.split()) or type(error).__name__
    text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
