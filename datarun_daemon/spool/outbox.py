"""Results at rest: the archive that keeps them all, and the outbox from which clients take them.

A result is whole in the archive and beside the outbox (``outbox/.staging``) before the catalog
says so; the rename into place comes after that line, and can be done again after a crash because
the staged folder is there exactly as long as the rename is still to be done.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datarun_daemon import disk
from datarun_daemon.spool.layout import Spool

RESULT = "result.json"
LOG = "log.txt"
_STAGING = ".staging"
_MAX_RESULT_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


class ResultDamaged(Exception):
    """What a run left is not a whole result; the message says why."""


@dataclass(frozen=True, slots=True)
class ResultPlace:
    """Which attempt at which fold, and the three folders that its result goes by."""

    dataset: str
    submission: str
    fold: str
    attempt: int
    #: the account that alone may read what is published, where the daemon may give files away; None: nobody's
    owner_uid: int | None = None


class Outbox:
    """Archives, stages and publishes; safe to call again after a crash at any point."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._staging = spool.outbox / _STAGING

    def archive_of(self, place: ResultPlace) -> Path:
        folder = self._spool.outbox_result(place.dataset, place.submission, place.fold)
        return self._spool.results / folder.relative_to(self._spool.outbox) / f"{place.attempt:d}"

    def folder_of(self, place: ResultPlace) -> Path:
        return self._spool.outbox_result(place.dataset, place.submission, place.fold)

    def is_archived(self, place: ResultPlace) -> bool:
        return (self.archive_of(place) / RESULT).is_file()

    def archive_run(self, place: ResultPlace, out: Path, facts: Mapping[str, object]) -> dict[str, object]:
        """The result that a run left in ``out`` is in the archive, with ``facts`` in its result.json.

        Nothing is durable yet. Returns the content of result.json.

        Raises:
            ResultDamaged: no whole result is there, for instance since the machine lost power.
        """
        archive = self.archive_of(place)
        if not out.is_dir() and self.is_archived(place):
            return _whole_result(archive)  # archived before a crash, when its line was not written yet
        result = {**_whole_result(out), **facts}
        _write_result(out, result)
        disk.remove_tree(archive)
        archive.parent.mkdir(parents=True, exist_ok=True)
        disk.rename(out, archive)
        return result

    def archive_without_run(self, place: ResultPlace, facts: Mapping[str, object], log: str) -> None:
        """A fold that never ran, or left nothing, has a result of ``facts`` and a log in the archive."""
        if self.is_archived(place):
            return
        archive = self.archive_of(place)
        archive.mkdir(parents=True, exist_ok=True)
        (archive / LOG).write_text(log, encoding="utf-8")
        n_bytes, sha256 = _digest(archive / LOG)
        _write_result(archive, {**facts, "files": {LOG: {"bytes": n_bytes, "sha256": sha256}}})

    def stage(self, places: Iterable[ResultPlace]) -> None:
        """The archived results are durable, and a copy of each waits, durable, beside the outbox."""
        self._staging.mkdir(exist_ok=True)
        written: list[Path] = []
        for place in places:
            archive, staged = self.archive_of(place), self._staged(place)
            disk.remove_tree(staged)
            self.make_folder(staged)
            for file in archive.iterdir():
                disk.copy_file(file, staged / file.name)
                written += [file, staged / file.name]
            self.give_tree(staged, place.owner_uid)
            above = [archive, archive.parent, archive.parent.parent, archive.parent.parent.parent]
            written += [staged, *above]
        disk.make_durable([*written, self._spool.results, self._staging], below=self._spool.root)

    def publish(self, place: ResultPlace) -> bool:
        """The staged result is in the outbox, whole; what was there before of this fold is gone.

        False if nothing was staged, that is, if it was published before.
        """
        staged, target = self._staged(place), self.folder_of(place)
        if not staged.is_dir():
            return False
        for _ in range(10):
            try:
                self.make_folder(target.parent.parent)
                self.make_folder(target.parent, place.owner_uid)
                if target.exists():
                    disk.remove_tree(target)
                disk.rename(staged, target)
                return True
            except FileNotFoundError:
                continue  # an empty folder above it was pruned in between
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise  # else: something was put into the place of the result meanwhile
        raise OSError(errno.ENOTEMPTY, "the result's place in the outbox is being written to", str(target))

    def discard_stale(self, published: Iterable[ResultPlace]) -> None:
        """After a crash: staged results are published if their line was written, else removed."""
        for place in published:
            self.publish(place)
        for left in self._left():
            disk.remove_tree(left)

    def staged_attempts(self) -> set[tuple[str, int]]:
        """(fold, attempt) of all that lies staged."""
        found = set()
        for entry in self._left():
            fold, _, attempt = entry.name.rpartition("@")
            if fold and attempt.isdigit():
                found.add((fold, int(attempt)))
        return found

    def remove(self, place: ResultPlace) -> None:
        """The result of this very attempt is not in the outbox, and neither are folders that it leaves empty."""
        folder = self.folder_of(place)
        try:
            attempt = _read_result(folder)["attempt"]
        except (ResultDamaged, KeyError):
            return  # it was taken meanwhile
        if attempt == place.attempt:
            disk.remove_tree(folder)
            _prune((folder.parent, folder.parent.parent))

    def taken(self, places: Iterable[ResultPlace]) -> list[ResultPlace]:
        """Those whose result.json has been taken away; the empty folders that remain are removed."""
        gone = []
        for place in places:
            folder = self.folder_of(place)
            if os.path.lexists(folder / RESULT):
                continue
            gone.append(place)
            _prune((folder, folder.parent, folder.parent.parent))
        return gone

    def make_folder(self, folder: Path, owner_uid: int | None = None) -> None:
        """The folder is there: for its owner, or for all clients who may take results out of the outbox."""
        try:
            folder.mkdir()
        except FileExistsError:
            return
        if not self._give(folder, owner_uid) and self._spool.outbox.stat().st_mode & stat.S_IWGRP:
            folder.chmod(0o2775)

    def give_tree(self, folder: Path, owner_uid: int | None) -> None:
        """All of it belongs to the owner, and is for nobody else to read, where the daemon may give files away."""
        if self._give(folder, owner_uid):
            for entry in folder.iterdir():
                if entry.is_dir():
                    self.give_tree(entry, owner_uid)
                else:
                    self._give(entry, owner_uid, mode=0o600)

    def _give(self, path: Path, owner_uid: int | None, *, mode: int = 0o700) -> bool:
        if owner_uid is None or owner_uid == os.geteuid() or not disk.may_give_away():
            return False
        path.chmod(mode)  # while it is still ours
        os.chown(path, owner_uid, -1)
        return True

    def _left(self) -> list[Path]:
        return list(self._staging.iterdir()) if self._staging.is_dir() else []

    def _staged(self, place: ResultPlace) -> Path:
        return self._staging / f"{place.fold}@{place.attempt:d}"


def _prune(folders: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):  # not empty, or gone: both are as they should be
        for empty in folders:
            empty.rmdir()


def _whole_result(folder: Path) -> dict[str, object]:
    result = _read_result(folder)
    _check_files(folder, result)
    return result


def _read_result(folder: Path) -> dict[str, object]:
    try:
        descriptor = os.open(folder / RESULT, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size > _MAX_RESULT_BYTES:
                raise ResultDamaged(f"{RESULT} has more than {_MAX_RESULT_BYTES} bytes")
            result = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ResultDamaged(f"{RESULT} cannot be read: {error}") from error
    if not isinstance(result, dict) or not isinstance(result.get("files"), dict):
        raise ResultDamaged(f"{RESULT} is not of the form that a run writes")
    return result


def _check_files(out: Path, result: Mapping[str, object]) -> None:
    files = result["files"]
    assert isinstance(files, dict)
    there = {entry.name for entry in out.iterdir()}
    if there != {RESULT, *files}:
        raise ResultDamaged(f"files are {sorted(there)}, and should be {sorted([RESULT, *files])}")
    for name, expected in files.items():
        if _digest(out / name) != (expected.get("bytes"), expected.get("sha256")):
            raise ResultDamaged(f"{name} is not as it was written")


def _digest(path: Path) -> tuple[int, str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ResultDamaged(f"{path.name} cannot be read: {error}") from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ResultDamaged(f"{path.name} is not a regular file")
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        return status.st_size, digest.hexdigest()


def _write_result(folder: Path, result: Mapping[str, object]) -> None:
    """One field a line: for people to read, and for the C encoder, since indent= is encoded by the slow one."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in result.items())
    disk.write_atomically(folder / RESULT, f"{{\n{lines}\n}}\n".encode("ascii"), durable=False)
