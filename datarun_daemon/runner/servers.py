"""The daemon's side of runner servers: starting an interpreter per environment, and again when one dies."""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import wire
from .links import Link

_RUNNER_FOLDER = Path(__file__).resolve().parent
#: makes a package of our folder, so that it needs nothing of ours to be installed in that environment
_BOOTSTRAP = """
import importlib.machinery, importlib.util, sys
folder, control = sys.argv[1:]
spec = importlib.machinery.ModuleSpec("datarun_runner", None, is_package=True)
spec.submodule_search_locations = [folder]
sys.modules["datarun_runner"] = importlib.util.module_from_spec(spec)
from datarun_runner.server import main
main(int(control))
"""
_THREAD_VARIABLES = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS", "NUMBA")
_CONTROL = 3
_FIRST_RETRY_SECONDS = 0.5
_LAST_RETRY_SECONDS = 60.0
_REASON_BYTES = 4000
_LAST_WORDS_SECONDS = 0.2


def environment_of_a_server() -> dict[str, str]:
    """Everything it sees of ours. One thread each, or OpenBLAS starts some at import; folds raise it to their cores."""
    threads = dict.fromkeys((f"{name}_NUM_THREADS" for name in _THREAD_VARIABLES), "1")
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "VECLIB_MAXIMUM_THREADS": "1",
        # Huge pages for malloc: a fork has fewer page table entries to copy.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        **threads,
    }


class Server:
    """One environment's server process; what it is asked for while it is down waits for the next one."""

    def __init__(self, environment: str, python: str) -> None:
        self.environment = environment
        self.ready = False
        self.pid: int | None = None
        self.link: Link | None = None
        #: time.monotonic() from which on it may be started again
        self.retry_at = 0.0
        self._python = python
        self._failures = 0
        self._errors = -1
        self._asked: deque[tuple[dict[str, Any], tuple[int, ...]]] = deque()

    def start(self) -> None:
        """The process exists afterwards. Raises OSError: the interpreter can't be executed."""
        ours, theirs = wire.pair()
        errors = os.memfd_create("server-errors", os.MFD_CLOEXEC)
        fcntl.fcntl(errors, fcntl.F_SETFL, os.O_APPEND)
        arguments = [self._python, "-I", "-c", _BOOTSTRAP, str(_RUNNER_FOLDER), str(_CONTROL)]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, errors, 2),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), _CONTROL),
        ]
        try:
            self.pid = os.posix_spawn(
                self._python, arguments, environment_of_a_server(), file_actions=actions, setsid=True,
                setsigmask=(), setsigdef=(signal.SIGPIPE,),
            )
        except BaseException:
            ours.close()
            os.close(errors)
            raise
        finally:
            theirs.close()
        self._errors = errors
        self.link = Link(ours)
        while self._asked:
            self.link.send(*self._asked.popleft())

    def ask(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        """The descriptors are no longer the caller's."""
        if self.link is None:
            self._asked.append((message, tuple(descriptors)))
        else:
            self.link.send(message, descriptors)

    def became_ready(self) -> None:
        self.ready = True
        self._failures = 0

    def ended(self, *, now: float) -> str:
        """Its process is gone and waited for, the time of the next try set; returns why, as far as one can tell."""
        reason = "it could not be started"
        if self.pid is not None:
            status = self._wait()
            code = os.waitstatus_to_exitcode(status)
            reason = f"ended with status {code}" if code >= 0 else f"ended by signal {-code}"
            size = os.fstat(self._errors).st_size
            said = os.pread(self._errors, _REASON_BYTES, max(0, size - _REASON_BYTES)).decode(errors="replace").strip()
            reason = f"{reason}: {said}" if said else reason
        self.close()
        pause = 0.0 if self.ready else min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2**self._failures)
        self._failures = 0 if self.ready else self._failures + 1
        self.retry_at = now + pause
        self.ready = False
        self.pid = None
        return reason

    def _wait(self) -> int:
        """Its wait status. It has closed its link, so it is a moment from its end; one that lingers is killed."""
        assert self.pid is not None
        pidfd = os.pidfd_open(self.pid)
        if not select.select([pidfd], [], [], _LAST_WORDS_SECONDS)[0]:
            os.kill(self.pid, signal.SIGKILL)
        os.close(pidfd)
        return os.waitpid(self.pid, 0)[1]

    def close(self) -> None:
        """Drops our ends; the process, if there is one, finishes what runs and ends."""
        if self.link is not None:
            self.link.close()
            self.link = None
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1
