"""A running fold as its keeper sees it: from outside, by the kernel's own numbers.

Memory is counted on top of what the process started with, since it inherits the libraries' and the
dataset's pages: the high-water mark of resident memory, reset at each phase, less what was resident at
the start. For a fold with several processes, the polled sum of what each holds is taken where it is more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import Any

from . import processes
from .limits import LimitsMessage
from .log_ring import LogRing

PHASES = ("train", "validation", "test")
_WORD_BYTES = 64
_SIGNALS = {number.value: number.name for number in signal.Signals}
MEMORY_MEASURE = (
    "resident high-water mark (VmHWM, reset at each phase) less resident at start; "
    "for several processes the polled sum of RssAnon + RssShmem where that is more"
)


class WatchedFold:
    """One attempt: its process, what it was told to do, and how far it has come."""

    def __init__(
        self, job: dict[str, Any], *, pid: int, pidfd: int, link: socket.socket, log: int, lock: int, tests: bool
    ) -> None:
        """
        Args:
            tests: there is a test set, and so a last phase.
        """
        self.job = job
        self.key: tuple[str, int] = (job["fold"], job["attempt"])
        self.limits: LimitsMessage = job["limits"]
        self.folder: str = job["run_folder"]
        self.pid = pid
        self.pidfd = pidfd
        self.link = link
        self.log = log
        self.lock = lock
        self.log_ring = LogRing(self.folder, limit_bytes=self.limits["log_bytes"])
        self.phases = PHASES if tests else PHASES[:-1]
        self.phases_done: list[str] = []
        #: state, stage, message, log; None while nothing is decided
        self.outcome: dict[str, Any] | None = None
        #: the daemon knows that it computes no more
        self.told_ended = False
        #: waited for; its descendants may still be there
        self.reaped = False
        #: what its tree held when last looked at, on top of what it started with
        self.memory_bytes = 0
        self._start_measuring()

    @property
    def phase(self) -> str:
        return self.phases[min(len(self.phases_done), len(self.phases) - 1)]

    @property
    def hard_deadline(self) -> float:
        return self.started + self.limits["wall_hard_seconds"]

    def _start_measuring(self) -> None:
        self.started_at = time.time()
        self.started = self._phase_started = time.monotonic()
        self._cpu_at_start = self._cpu_before = processes.own_cpu_seconds(self.pid)
        processes.reset_peak(self.pid)
        status = processes.status_bytes(self.pid)
        self._resident_at_start = status.get(b"VmRSS", 0)
        self._anonymous_at_start = _anonymous(status)
        self._phase_peak = 0
        self.measured: dict[str, Any] = {
            f"{phase}_{what}": None for phase in PHASES for what in ("seconds", "cpu_seconds", "peak_bytes")
        }

    def word(self) -> bytes | None:
        """What the fold says, cut to a word's length; None once it has closed its link. Raises BlockingIOError."""
        try:
            word = self.link.recv(_WORD_BYTES)
        except ConnectionResetError:
            return None
        if word:
            return word
        try:
            # An empty packet looks like the end, but the end comes again and again.
            return self.link.recv(_WORD_BYTES) or None
        except BlockingIOError:
            return b""
        except ConnectionResetError:
            return None

    def phase_ended(self) -> dict[str, Any]:
        """The phase counts as done, or as where it failed; returns what it took."""
        phase = self.phase
        seconds = time.monotonic() - self._phase_started
        cpu = processes.tree_cpu_seconds(self.pid)
        resident = processes.status_bytes(self.pid).get(b"VmHWM", 0)
        took = {
            "seconds": round(seconds, 6),
            "cpu_seconds": round(max(0.0, cpu - self._cpu_before), 6),
            "peak_bytes": max(self._phase_peak, resident - self._resident_at_start, 0),
        }
        self.measured.update({f"{phase}_{what}": value for what, value in took.items()})
        return took

    def next_phase(self) -> None:
        self.phases_done.append(self.phase)
        self._cpu_before = processes.tree_cpu_seconds(self.pid)
        self._phase_peak = 0
        processes.reset_peak(self.pid)
        self._phase_started = time.monotonic()

    def fail(self, message: str | None, *, state: str = "ERROR") -> None:
        """Decides the outcome, unless it is decided; with no message, the fold has written its own."""
        if self.outcome is None:
            log = None if message is None else f"{message}\n"
            self.outcome = {"state": state, "stage": self.phase, "message": message, "log": log}

    def succeed(self) -> None:
        if self.outcome is None:
            state = "TESTED" if self.phases == PHASES else "VALIDATED_ONLY"
            self.outcome = {"state": state, "stage": None, "message": None, "log": None}

    def kill(self) -> None:
        """Its process and process group end; what has left the group is found once the process is gone."""
        if self.reaped:
            return
        for end in (os.kill, os.killpg):
            with contextlib.suppress(ProcessLookupError):  # it has ended; its number is ours until it is reaped
                end(self.pid, signal.SIGKILL)

    def exceeded(self) -> str | None:
        """What the tree has too much of, if so; looks at every process of it."""
        tree = (self.pid, *processes.descendants(self.pid))
        self.memory_bytes = sum(
            max(0, _anonymous(processes.status_bytes(pid)) - (self._anonymous_at_start if pid == self.pid else 0))
            for pid in tree
        )
        if self.memory_bytes > self.limits["memory_bytes"] and len(tree) > 1:
            # Forked children share pages with each other, which were counted for each of them.
            exact = sum(map(processes.proportional_bytes, tree)) - self._resident_at_start
            self.memory_bytes = max(0, min(self.memory_bytes, exact))
        self._phase_peak = max(self._phase_peak, self.memory_bytes)
        if len(tree) > self.limits["processes"]:
            return f"Process Limit Exceeded ({len(tree)} processes; at most {self.limits['processes']})"
        if self.memory_bytes > self.limits["memory_bytes"]:
            limit = self.limits["memory_bytes"]
            return f"Memory Limit Exceeded (used {self.memory_bytes} bytes; at most {limit})"
        return None

    def reap(self) -> bool:
        """True once the process is gone and waited for; then totals are known, and why it ended if nobody knew."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        self.reaped = True
        self.fail(f"{_ending(status)} ({self.phase} phase)")
        cpu = usage.ru_utime + usage.ru_stime - self._cpu_at_start
        phases_cpu = sum(self.measured[f"{phase}_cpu_seconds"] or 0 for phase in PHASES)
        peaks = [self.measured[f"{phase}_peak_bytes"] or 0 for phase in PHASES]
        self.measured.update(
            wall_seconds=round(time.monotonic() - self.started, 6),
            cpu_seconds=round(max(cpu, phases_cpu), 6),
            peak_bytes=max(*peaks, self._phase_peak),
            memory_measure=MEMORY_MEASURE,
            started_at=_utc(self.started_at),
            finished_at=_utc(time.time()),
        )
        return True

    def close(self) -> None:
        """Gives back every descriptor, the lock last."""
        self.log_ring.close()
        self.link.close()
        for descriptor in (self.log, self.pidfd, self.lock):
            os.close(descriptor)


def _anonymous(status: dict[bytes, int]) -> int:
    return status.get(b"RssAnon", 0) + status.get(b"RssShmem", 0)


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"The process of the fold ended by itself with exit status {code}"
    name = _SIGNALS.get(-code, "unknown")
    note = "; sent by the submission itself, or by the kernel for lack of memory" if name == "SIGKILL" else ""
    return f"The process of the fold was ended by signal {-code} ({name}{note})"


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"
