"""Wakes the intake when something may have arrived. A hint and never the truth: the inbox lists for itself.

On a local file system watchdog (inotify) calls, and a glance at the folders' times every few tens of
milliseconds is quicker still, since watchdog holds moves back. Where another host can write, no event
comes, and polling is chosen.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from datarun_daemon import disk

#: after a change a glance says "changed" for so long: a folder's time is as coarse as the kernel's tick
_SAME_TICK_SECONDS = 0.05
_REBUILD_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Repaired:
    """A watch did not work any more and was built anew, or is tried again soon."""

    folder: Path
    reason: str


class _Wake(FileSystemEventHandler):
    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def on_created(self, event: FileSystemEvent) -> None:
        self._wake()

    def on_moved(self, event: FileSystemEvent) -> None:
        # our own claims are moves to a hidden name, of which there is nothing to learn
        if not os.path.basename(os.fsdecode(event.dest_path)).startswith("."):
            self._wake()

    def on_closed(self, event: FileSystemEvent) -> None:
        self._wake()


class Watch:
    """Used by one thread; ``wake`` is called from others."""

    def __init__(
        self, folders: Sequence[Path], wake: Callable[[], None], mode: str = "auto", *, poll_seconds: float = 2.0
    ) -> None:
        """``mode`` is ``auto``, ``events`` or ``polling``."""
        self._folders = tuple(folders)
        self._names = tuple(map(str, folders))
        self._handler = _Wake(wake)
        self._poll_seconds = poll_seconds
        self.mode, self.reason = _choose(self._folders, mode)
        self._observer: BaseObserver | None = None
        self._identities: dict[Path, tuple[int, int] | None] = {}
        self._rebuild_at = 0.0
        self._times: tuple[int, ...] = ()
        self._hot_until = self._next_poll = 0.0

    def start(self) -> None:
        """Events are on their way from now on, if there are any; where that fails, tend() tries again and tells."""
        if self.mode == "events":
            with contextlib.suppress(OSError):  # the kernel's limit of inotify instances, or a folder is missing
                self._build()

    def stop(self) -> None:
        """No thread of it is left."""
        observer, self._observer = self._observer, None
        if observer is not None:
            _end(observer)

    def glance(self, now: float) -> bool:
        """Something may have changed since the last glance; ``now`` is monotonic, in seconds.

        Three stats on a local disk; no I/O but the caller's own listing, each ``poll_seconds``, elsewhere.
        """
        if self.mode == "polling":
            if now < self._next_poll:
                return False
            self._next_poll = now + self._poll_seconds
            return True
        times = tuple(map(_time_ns, self._names))
        if times != self._times:
            self._times, self._hot_until = times, now + _SAME_TICK_SECONDS
        return now < self._hot_until

    def tend(self, now: float) -> list[Repaired]:
        """Dead threads and folders that were replaced have new watches; to be called every second or so."""
        if self.mode == "polling" or now < self._rebuild_at:
            return []
        broken = self._broken()
        if broken:
            self._rebuild_at = now + _REBUILD_SECONDS
            self.stop()
            try:
                self._build()
            except OSError as error:
                return [Repaired(each.folder, f"{each.reason}; not yet built anew: {error}") for each in broken]
        return broken

    def _build(self) -> None:
        observer = Observer()
        try:
            for folder in self._folders:
                self._identities[folder] = _identity(folder)
                observer.schedule(self._handler, str(folder), recursive=False)
            observer.start()
        except BaseException:
            _end(observer)
            raise
        self._observer = observer

    def _broken(self) -> list[Repaired]:
        observer = self._observer
        if observer is None or not observer.is_alive():
            return [Repaired(folder, "nothing watched it") for folder in self._folders]
        replaced = [folder for folder in self._folders if _identity(folder) != self._identities[folder]]
        if replaced:
            return [Repaired(folder, "the folder was replaced") for folder in replaced]
        dead = [emitter for emitter in observer.emitters if not emitter.is_alive()]
        return [Repaired(Path(os.fsdecode(each.watch.path)), "the emitter of its events ended") for each in dead]


def _choose(folders: Sequence[Path], mode: str) -> tuple[str, str]:
    if mode != "auto":
        return mode, f"the configuration says {mode}"
    for folder in folders:
        system = disk.file_system(folder)
        if not system.sends_events:
            return "polling", f"{folder} is on {system.kind}, which tells nothing of what other hosts write"
    return "events", f"{disk.file_system(folders[0]).kind} tells of every change"


def _end(observer: BaseObserver) -> None:
    """No thread of it is left, also if it never ran or some of them ended by themselves."""
    observer.stop()
    if observer.is_alive():
        observer.join()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _time_ns(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return -1  # a change like any other, which the listing will look into
