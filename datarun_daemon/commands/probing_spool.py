"""The spool as a daemon of this user would meet it: its folders, its file system, its room.

What the file system can do is tried out, in a hidden folder of the spool that is removed again.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from datarun_daemon import disk
from datarun_daemon.commands.finding import Finding, Verdict
from datarun_daemon.commands.status import is_served
from datarun_daemon.config import Config
from datarun_daemon.core.errors import DiskFailed, SpoolError
from datarun_daemon.spool.layout import Spool

_SLOW_FSYNC_SECONDS = 0.05
_CLOCK_SKEW_SECONDS = 2.0
_GIB = 2**30


def probe_spool(config: Config) -> Iterator[Finding]:
    root = config.spool
    try:
        spool = Spool.open(root)
    except SpoolError as error:
        yield Finding("spool", Verdict.FAIL, str(error), f"datarun init {root}")
        return
    served = is_served(spool)
    yield Finding("spool", Verdict.OK, f"{root}, {'a daemon serves it' if served else 'no daemon serves it now'}")
    yield from _folders(spool)
    yield _file_system(spool, config)
    yield from _abilities(spool)
    yield from _room(spool)


def _folders(spool: Spool) -> Iterator[Finding]:
    for folder in (
        *spool.incoming_folders(), spool.receipts, spool.rejected, spool.outbox,
        spool.status, spool.catalog, spool.store, spool.runs,
    ):  # fmt: skip
        about = f"folder {spool.relative(folder)}"
        status = folder.stat()
        shown = f"{stat.filemode(status.st_mode)}, user {status.st_uid}, group {status.st_gid}"
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            advice = f"run doctor as the daemon's user, or: chown -R DAEMON {folder}"
            yield Finding(about, Verdict.FAIL, f"{shown}; this user (uid {os.geteuid()}) may not write it", advice)
        elif folder in (spool.store, spool.runs) and status.st_mode & 0o077:
            advice = f"chmod 700 {folder}: it holds datasets with their labels"
            yield Finding(about, Verdict.WARN, f"{shown}; other users may look into it", advice)
        elif status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            advice = f"chmod o-w {folder}, or chmod +t: anybody may remove what others sent"
            yield Finding(about, Verdict.WARN, f"{shown}; everybody may write it", advice)
        else:
            yield Finding(about, Verdict.OK, shown)


def _file_system(spool: Spool, config: Config) -> Finding:
    kind = disk.file_system(spool.incoming)
    shown = f"{kind.kind}, mounted at {kind.mount_point}"
    if kind.sends_events:
        return Finding("file system", Verdict.OK, f"{shown}; tells of changes (inotify)")
    found = f"{shown}; tells nothing of changes by other machines"
    if config.intake.watch == "events":
        return Finding("file system", Verdict.FAIL, found, "intake.watch: auto or polling")
    found += f", so it is looked at every {config.intake.poll_seconds:g} s"
    return Finding("file system", Verdict.WARN, found, "intake.poll_seconds decides how soon a bundle is seen")


def _abilities(spool: Spool) -> Iterator[Finding]:
    folder = spool.root / f".datarun-doctor-{os.getpid()}"
    try:
        folder.mkdir()
        try:
            yield _fsync_and_rename(folder)
            yield _lock(folder)
            yield _clock(folder)
        finally:
            disk.remove_tree(folder)
    except OSError as error:
        found = f"cannot be written: {error.strerror}"
        yield Finding("file system", Verdict.FAIL, found, "run doctor as the daemon's user; mend the disk")


def _fsync_and_rename(folder: Path) -> Finding:
    about = "fsync and rename"
    file = folder / "file"
    started = time.monotonic()
    try:
        disk.write_atomically(file, b"1")
        disk.write_atomically(file, b"2")
    except DiskFailed as error:
        return Finding(about, Verdict.FAIL, str(error), "accepted work could be lost: use another file system")
    seconds = (time.monotonic() - started) / 2
    if file.read_bytes() != b"2":
        return Finding(about, Verdict.FAIL, "a rename did not replace the file", "use another file system")
    found = f"a durable file takes {seconds * 1000:.1f} ms"
    if seconds > _SLOW_FSYNC_SECONDS:
        return Finding(about, Verdict.WARN, found, "each accepted bundle waits for it: a faster disk helps")
    return Finding(about, Verdict.OK, found)


def _lock(folder: Path) -> Finding:
    first = disk.lock(folder / "lock")
    second = disk.lock(folder / "lock")
    for descriptor in (first, second):
        if descriptor is not None:
            os.close(descriptor)
    if first is None or second is not None:
        advice = "nothing keeps a second daemon away: run one on one machine only, or use another file system"
        return Finding("flock", Verdict.FAIL, "does not lock", advice)
    return Finding("flock", Verdict.OK, "locks on this machine")


def _clock(folder: Path) -> Finding:
    (folder / "now").touch()
    skew_seconds = (folder / "now").stat().st_mtime - time.time()
    if abs(skew_seconds) > _CLOCK_SKEW_SECONDS:
        found = f"the file server's clock is {skew_seconds:+.0f} s off ours"
        return Finding("clock of the spool", Verdict.WARN, found, "set both clocks (NTP)")
    return Finding("clock of the spool", Verdict.OK, "agrees with this machine's")


def _room(spool: Spool) -> Iterator[Finding]:
    usage = shutil.disk_usage(spool.root)
    found = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB free"
    if usage.free < _GIB // 10:
        yield Finding("room", Verdict.FAIL, found, "make room: nothing can be accepted when it is full")
    elif usage.free < max(_GIB, usage.total // 20):
        yield Finding("room", Verdict.WARN, found, "make room; take results out of outbox/")
    else:
        yield Finding("room", Verdict.OK, found)
    inodes = os.statvfs(spool.root)
    if inodes.f_files:  # some file systems have no fixed number
        found = f"{inodes.f_favail} of {inodes.f_files} inodes free"
        few = inodes.f_favail < max(10_000, inodes.f_files // 50)
        advice = "each fold takes about twenty: remove small files" if few else ""
        yield Finding("inodes", Verdict.WARN if few else Verdict.OK, found, advice)
