"""What systemd gives the daemon: a socket to report to, a watchdog to feed, and capabilities to keep.

Without systemd all of it does nothing. A report that cannot be sent is dropped: the manager then
acts as for a daemon that is silent, which is what its watchdog is for.

Source: sd_notify(3), sd_watchdog_enabled(3), capabilities(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass

_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


@dataclass(frozen=True, slots=True)
class Notifier:
    """Reports the state of this process; never blocks, never raises."""

    #: path of the manager's socket, with a leading NUL if it is an abstract one; None: no manager
    address: str | None
    #: how often :meth:`alive` has to be called at least: half of what the manager waits; None: never
    watchdog_seconds: float | None

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The variables are gone from ``environ`` afterwards, so that no child reports in our name."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_microseconds = environ.pop("WATCHDOG_USEC", "")
        watched_pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        if not address.startswith(("/", "@")):
            return cls(address=None, watchdog_seconds=None)
        if address.startswith("@"):
            address = "\0" + address[1:]
        ours = watchdog_microseconds.isdigit() and watched_pid == str(os.getpid())
        return cls(address, int(watchdog_microseconds) / 2e6 if ours else None)

    def ready(self, status: str = "") -> None:
        """Start-up, or a reload, is done."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Shown by ``systemctl status``."""
        self._send(f"STATUS={_line(text)}")

    def reloading(self) -> None:
        """The configuration is read again; :meth:`ready` has to follow."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feeds the watchdog; to be called from the loop itself, not from a thread that outlives it."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self.address is None:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        # suppressed: the manager is gone or too busy to read
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as manager:
            manager.sendto("\n".join(lines).encode(), self.address)


def keep_capabilities_to_ourselves() -> None:
    """This process keeps the capabilities it was started with; no program it executes gets them.

    The unit grants the daemon what it takes to claim uploads of other users. Submissions run in
    programs that the daemon executes, and must not have it. To be called before any thread starts:
    the ambient set belongs to a thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot give up ambient capabilities: {os.strerror(number)}")


def _line(text: str) -> str:
    """A line break would start another variable of the report."""
    return " ".join(text.split())
