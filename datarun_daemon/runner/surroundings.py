"""What strangers' code finds around it in one of our processes, and how its exceptions are told to its author."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

#: of the server's environment: how many threads each library may use
THREAD_VARIABLES = tuple(name for name in os.environ if name.endswith("_NUM_THREADS") or name.startswith("VECLIB_"))
_here = os.path.dirname(os.path.abspath(__file__)) + os.sep


def redirect(output: int) -> None:
    """Reads nothing, and prints into that descriptor, a line at a time so that nothing is lost with the process."""
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(output)
    # New ones: those of the server believe that they can seek.
    sys.stdout = sys.__stdout__ = _text_stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text_stream(2)  # type: ignore[misc]


def _text_stream(descriptor: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.FileIO(descriptor, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True
    )


def empty_environment() -> None:
    """Of ours only the number of threads is left, and nothing is compiled into folders of ours."""
    kept = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, PATH="/usr/local/bin:/usr/bin:/bin", LANG="C.UTF-8")
    sys.dont_write_bytecode = True
    sys.argv[:] = [""]


def live_in(folder: str) -> None:
    """The folder is the working directory, the home, and where temporary files go."""
    os.chdir(folder)
    os.environ.update(HOME=folder, TMPDIR=folder)


def story(error: BaseException, *, folders: Sequence[str]) -> tuple[str, str]:
    """One line, and the traceback from their first frame on; files below the folders are named relative to them.

    Raises whatever the exception's own code raises.
    """
    text = "".join(traceback.format_exception(type(error), error, _their_frames(error.__traceback__)))
    for folder in folders:
        text = text.replace(folder + os.sep, "")
    own = "".join(traceback.format_exception_only(type(error), error)).strip()
    return own.splitlines()[-1] if own else type(error).__name__, text


def _their_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not ours; None if the error never got there."""
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith((_here, "<frozen importlib")) and file != importlib.__file__:
            return frames
        frames = frames.tb_next
    return None
