"""One incoming folder as a set of names, listed only when it may have changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from datarun_daemon.core.model import BundleKind
from datarun_daemon.spool.descent import FOLDER_FLAGS
from datarun_daemon.spool.layout import is_bundle_name

#: a folder whose time changed is listed again for so long: times are as coarse as the kernel's tick
_SAME_TICK_SECONDS = 0.1


class IncomingFolder:
    """``now`` is a monotonic clock in seconds, as everywhere in the inbox."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: names of bundles, as of the last listing
        self.known: set[str] = set()
        self.listed_at = float("-inf")
        self.was_listed = False
        self._changed_at = float("-inf")
        self._time_ns = -1

    def wants_listing(self, now: float, interval_seconds: float, *, seldom: bool) -> bool:
        """Its time has changed, or was not looked at for the interval; ``seldom``: only the latter."""
        if now - self.listed_at >= interval_seconds:
            return True
        if seldom:
            return False
        time_ns = self.path.stat().st_mtime_ns
        if time_ns != self._time_ns:
            self._time_ns, self._changed_at = time_ns, now
        return now - self._changed_at < _SAME_TICK_SECONDS

    def list(self, now: float) -> tuple[list[str], set[str]]:
        """Names that are new, in the order in which they came; and all that are there."""
        # also if it fails: it is tried again no sooner than the next listing is due
        self.listed_at = now
        with os.scandir(self.path) as listing:
            entries = {entry.name: entry for entry in listing if is_bundle_name(entry.name)}
        names = set(entries)
        fresh = sorted((_came_ns(entries[name]), name) for name in names - self.known)
        self.known |= names
        return [name for _, name in fresh], names

    def gone(self, names: set[str]) -> set[str]:
        """Names known before that are not among ``names`` any more."""
        gone = self.known - names
        self.known = set(names)
        return gone


def _came_ns(entry: os.DirEntry[str]) -> int:
    """Local file systems set it at a rename, too."""
    try:
        return entry.stat(follow_symlinks=False).st_ctime_ns
    except OSError:
        return 0  # it has gone already, which the inbox finds for itself


@contextmanager
def opened(folders: Mapping[BundleKind, IncomingFolder]) -> Iterator[dict[BundleKind, int]]:
    """A descriptor of each folder that can be opened."""
    with ExitStack() as stack:
        descriptors = {}
        for kind, folder in folders.items():
            try:
                descriptor = os.open(folder.path, FOLDER_FLAGS)
            except OSError:
                continue  # listing it tells of that
            stack.callback(os.close, descriptor)
            descriptors[kind] = descriptor
        yield descriptors
