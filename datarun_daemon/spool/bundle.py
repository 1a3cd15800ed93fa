"""A dropped bundle seen through held descriptors: what it holds, and a copy that nobody can swap.

Clients own what lies in an incoming folder and may change it at any moment, also to trick a daemon
that has more rights than they. So nothing here is opened by a path: the bundle's folder is opened
once without following links, its files below that descriptor, and what was checked is what is read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import signal
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datarun_daemon import disk
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.spool.descent import FOLDER_FLAGS, listed, make_folders, open_below
from datarun_daemon.spool.layout import is_ignored_file
from datarun_daemon.spool.manifest import MANIFEST_NAME, FileDigest
from datarun_daemon.spool.manifest_kits import is_entered, is_manifest_of_kit
from datarun_daemon.spool.names import printable
from datarun_daemon.spool.yaml_reading import MAX_YAML_BYTES

#: O_NONBLOCK: opening a FIFO that somebody puts in a file's place must not wait for its writer
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: levels of folders that are moved aside with a rejected bundle where it has to be copied
_DEPTH = 8
_F_SETSIG = 10  # fcntl.h; the fcntl module has no name for it


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one bundle may cost."""

    bytes: int
    #: entries of its folder or archive
    files: int
    #: of copying or unpacking it; looked at between files and between blocks of an archive
    copy_seconds: float


class NotReady(Exception):
    """The bundle cannot be taken as it is now, and may be later."""

    def __init__(self, missing: Iterable[str], *, until_it_changes: bool = True) -> None:
        #: what is waited for, for a person
        self.missing = tuple(missing)
        #: looking again at the very same files would tell the same
        self.until_it_changes = until_it_changes
        super().__init__("; ".join(self.missing))


class Source(Protocol):
    """An opened bundle: a folder, an archive, or the one file of a request."""

    #: who dropped it
    owner_uid: int
    #: changes whenever a name, size or time in the bundle changes
    signature: str

    def read_manifest(self) -> bytes:
        """Raises NotReady without one; at most one byte more than a manifest may have."""

    def size_of(self, name: str) -> int | None:
        """None if there is no such file (yet)."""

    def fault_of(self, name: str) -> Problem | None:
        """Why a file that is there cannot be taken."""

    def names(self) -> list[str]:
        """Of everything in it that is not passed over as a temporary; of a kit with paths of what is in folders."""

    def is_being_written(self, names: Iterable[str]) -> bool:
        """Somebody has the manifest or one of these open for writing, as far as the kernel can tell."""

    def copy(self, names: Iterable[str], folder: Path, *, deadline: float) -> dict[str, FileDigest]:
        """New files ``folder/NAME``, in folders that are made, and their digests; ``deadline`` by time.monotonic()."""

    def close(self) -> None: ...


def signature_of(entries: Iterable[tuple[str, os.stat_result]]) -> str:
    """Of names, sizes and times. Inode numbers are left out: sshfs makes up new ones as it likes."""
    facts = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_mode) for name, s in entries]
    return hashlib.blake2b(repr(sorted(facts)).encode(errors="surrogateescape"), digest_size=16).hexdigest()


class FolderSource:
    """A bundle that is a folder. Only files directly in it count: folders in it are passed over, but for a kit's."""

    def __init__(self, descriptor: int, bounds: Bounds) -> None:
        """Takes over ``descriptor``. Raises Rejection if there are more entries than ``bounds`` allow."""
        self._descriptor = descriptor
        self._bounds = bounds
        try:
            self.owner_uid = os.fstat(descriptor).st_uid
            self._entries = _entries(descriptor, bounds)
            if self._is_kit():
                self._entries = _entries_of_kit(descriptor, bounds)
        except BaseException:
            os.close(descriptor)
            raise
        self.signature = signature_of(self._entries.items())

    def read_manifest(self) -> bytes:
        if MANIFEST_NAME not in self._entries:
            raise NotReady([self._where_is_the_manifest()])
        if fault := self.fault_of(MANIFEST_NAME):
            raise Rejection([fault])
        descriptor = self._open(MANIFEST_NAME)
        try:
            return _read_start(descriptor)
        finally:
            os.close(descriptor)

    def size_of(self, name: str) -> int | None:
        status = self._entries.get(name)
        return None if status is None else status.st_size

    def fault_of(self, name: str) -> Problem | None:
        return self._fault(name, self._entries[name])

    def names(self) -> list[str]:
        return sorted(self._entries)

    def is_being_written(self, names: Iterable[str]) -> bool:
        for name in (MANIFEST_NAME, *names):
            descriptor = self._open(name)
            try:
                if is_open_for_writing(descriptor):
                    return True
            finally:
                os.close(descriptor)
        return False

    def copy(self, names: Iterable[str], folder: Path, *, deadline: float) -> dict[str, FileDigest]:
        names = list(names)
        make_folders(folder, names)
        copied: dict[str, FileDigest] = {}
        left_bytes = self._bounds.bytes
        for name in names:
            check_deadline(deadline)
            descriptor = self._open(name)
            try:
                file = disk.copy_bounded(descriptor, folder / name, limit_bytes=left_bytes)
            except disk.TooLarge as error:
                raise Rejection([too_many_bytes(self._bounds)]) from error
            finally:
                os.close(descriptor)
            left_bytes -= file.bytes
            copied[name] = FileDigest(file.bytes, file.sha256)
        return copied

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self, name: str) -> int:
        """A descriptor of the regular file ``name``, whatever was put in its place meanwhile."""
        try:
            descriptor = open_below(self._descriptor, name, FILE_FLAGS)
        except FileNotFoundError:
            raise NotReady([f"{printable(name)} was there, and has gone"], until_it_changes=False) from None
        except PermissionError as error:
            raise NotReady([f"{printable(name)} cannot be read by the daemon ({error.strerror})"]) from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
                raise Rejection([_not_regular(name, "a link, socket or device")]) from error
            raise
        if fault := self._fault(name, os.fstat(descriptor)):
            os.close(descriptor)
            raise Rejection([fault])
        return descriptor

    def _fault(self, name: str, status: os.stat_result) -> Problem | None:
        if not stat.S_ISREG(status.st_mode):
            return _not_regular(name, _kind_of_file(status.st_mode))
        # A hard link to somebody else's file would let its sender read it through our eyes.
        if status.st_nlink > 1 and status.st_uid != self.owner_uid:
            found = f"a hard link to a file of user {status.st_uid}"
            return Problem(printable(name), found, "a file of its own; copy it instead of linking it")
        return None

    def _is_kit(self) -> bool:
        """Its files may lie in its folders. Of a bundle without folders the manifest is not looked at."""
        if not any(stat.S_ISDIR(status.st_mode) for status in self._entries.values()):
            return False
        try:
            return is_manifest_of_kit(self.read_manifest())
        except (NotReady, Rejection):
            return False  # whoever needs the manifest finds that, too

    def _where_is_the_manifest(self) -> str:
        for name, status in sorted(self._entries.items()):
            if stat.S_ISDIR(status.st_mode) and _has_manifest(self._descriptor, name):
                return f"{MANIFEST_NAME} (there is one in {printable(name)}/: move what is in there up)"
        return MANIFEST_NAME


class RequestSource:
    """A request that is one YAML file."""

    def __init__(self, descriptor: int, entry: str) -> None:
        """Takes over ``descriptor``, of a regular file."""
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.owner_uid = status.st_uid
        self.signature = signature_of([(entry, status)])

    def read_manifest(self) -> bytes:
        return _read_start(self._descriptor)

    def size_of(self, name: str) -> int | None:
        return None

    def fault_of(self, name: str) -> Problem | None:
        return None

    def names(self) -> list[str]:
        return [MANIFEST_NAME]

    def is_being_written(self, names: Iterable[str]) -> bool:
        return is_open_for_writing(self._descriptor)

    def copy(self, names: Iterable[str], folder: Path, *, deadline: float) -> dict[str, FileDigest]:
        return {}

    def close(self) -> None:
        os.close(self._descriptor)


def open_file(folder_fd: int, entry: str) -> int:
    """A descriptor of the regular file ``entry``.

    Raises:
        Rejection: it is something else, or a hard link.
    """
    status = os.stat(entry, dir_fd=folder_fd, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise Rejection([_not_regular(entry, _kind_of_file(status.st_mode), bundle=True)])
    descriptor = os.open(entry, FILE_FLAGS, dir_fd=folder_fd)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise Rejection([Problem(printable(entry), "a hard link", "a file of its own; copy it instead")])


def not_a_bundle(entry: str, *, requests: bool) -> Rejection:
    """A file that is neither an archive nor, among requests, YAML."""
    kinds = "a folder that holds manifest.yaml, or that folder as NAME.zip or NAME.tar.gz"
    expected = f"NAME.yaml, or {kinds}" if requests else kinds
    return Rejection([Problem(printable(entry), "a single file", expected)])


def too_many_bytes(bounds: Bounds) -> Problem:
    return Problem("the bundle", f"more than {bounds.bytes} bytes", f"at most {bounds.bytes} bytes in all")


def too_many_files(bounds: Bounds) -> Problem:
    return Problem("the bundle", f"more than {bounds.files} files", f"at most {bounds.files} files")


def check_deadline(deadline: float) -> None:
    """Raises NotReady once it has passed: the bundle is tried again later."""
    if time.monotonic() > deadline:
        raise NotReady(["copying it took longer than allowed; it is tried again"], until_it_changes=False)


def is_open_for_writing(descriptor: int) -> bool:
    """Somebody has the file open for writing. False also where the kernel cannot tell.

    It tells the owner of the file, or holders of CAP_LEASE, on file systems that know leases; on
    network file systems it knows only of writers on this machine.
    """
    # A writer who opens the file while we hold the lease waits until we let go, and we get a signal:
    # SIGIO by default, which kills. SIGURG is ignored by default.
    try:
        fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def copy_whole(descriptor: int, target: Path, bounds: Bounds, *, depth: int = 1) -> None:
    """``target`` (made) holds the regular files and folders of an open folder, links and devices left out.

    Raises:
        NotReady, Rejection: there is more than ``bounds`` allow, or deeper folders than eight.
        OSError: something cannot be read or written.
    """
    if depth > _DEPTH:
        raise NotReady([f"folders nested deeper than {_DEPTH}"])
    target.mkdir(mode=0o755)
    left_bytes = bounds.bytes
    for name, status in _entries(descriptor, bounds).items():
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, FOLDER_FLAGS, dir_fd=descriptor)
            try:
                copy_whole(inner, target / name, bounds, depth=depth + 1)
            finally:
                os.close(inner)
        elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            file = os.open(name, FILE_FLAGS, dir_fd=descriptor)
            try:
                left_bytes -= disk.copy_bounded(file, target / name, limit_bytes=left_bytes).bytes
            except disk.TooLarge as error:
                raise NotReady([str(too_many_bytes(bounds))]) from error
            finally:
                os.close(file)


def _entries_of_kit(descriptor: int, bounds: Bounds) -> dict[str, os.stat_result]:
    """By path, what lies in an open folder and in those below it and is part of the kit."""
    number = itertools.count()
    try:
        return listed(descriptor, lambda folder: _entries(folder, bounds, number), is_entered)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise NotReady(["to be settled: a folder in it became something else"], until_it_changes=False) from error


def _entries(descriptor: int, bounds: Bounds, number: Iterator[int] | None = None) -> dict[str, os.stat_result]:
    """What lies directly in an open folder and is part of the bundle; never follows a link.

    ``number`` goes on counting where a bundle has more folders than this.
    """
    number = number or itertools.count()
    entries: dict[str, os.stat_result] = {}
    with os.scandir(descriptor) as listing:
        for entry in listing:
            if next(number) >= bounds.files:
                raise Rejection([too_many_files(bounds)])
            if not is_ignored_file(entry.name):
                try:
                    entries[entry.name] = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed since it was listed
    return entries


def _read_start(descriptor: int) -> bytes:
    """As much as a manifest may have, and one byte more by which its reader sees that it is too long."""
    parts: list[bytes] = []
    length = 0
    while length <= MAX_YAML_BYTES and (part := os.pread(descriptor, MAX_YAML_BYTES + 1 - length, length)):
        parts.append(part)
        length += len(part)
    return b"".join(parts)


def _has_manifest(descriptor: int, folder: str) -> bool:
    try:
        status = os.stat(f"{folder}/{MANIFEST_NAME}", dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode)


def _not_regular(name: str, found: str, *, bundle: bool = False) -> Problem:
    expected = "a folder, or a regular file" if bundle else "a regular file; put a copy of it into the bundle"
    return Problem(printable(name), found, expected)


def _kind_of_file(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")
