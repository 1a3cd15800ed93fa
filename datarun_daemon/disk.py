"""Everything durable: the only file that fsyncs or renames.

Readers see whole files because they appear by rename; accepted work survives because what a
catalog line names was made durable before the line. A failed fsync raises
:class:`~datarun_daemon.core.errors.DiskFailed` and is never retried.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datarun_daemon.core.errors import DiskFailed

#: more dirty files than this are flushed by one syncfs: it is cheaper from the third file on, but
#: also waits for what others wrote to the same file system
_FSYNCS_WORTH_A_SYNCFS = 4
_FICLONE = 0x40049409
_CHUNK_BYTES = 1 << 20
#: CAP_CHOWN and CAP_DAC_OVERRIDE of linux/capability.h, as bits
_CAPS_TO_GIVE = 1 << 0 | 1 << 1

#: file systems on which a change made by another host raises no inotify event here
_WITHOUT_EVENTS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "smb2", "9p", "virtiofs", "afs", "ceph", "glusterfs", "lustre", "vboxsf"}
)


class TooLarge(Exception):
    """A copy would have exceeded its bound; what was copied so far has been removed."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"more than {limit_bytes} bytes")


@dataclass(frozen=True, slots=True)
class CopiedFile:
    bytes: int
    #: of what was copied, in hexadecimal
    sha256: str


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a path lies on."""

    #: as the kernel names it: ext4, nfs4, fuse.sshfs, …
    kind: str
    mount_point: Path
    #: inotify tells of changes; false where another host can write
    sends_events: bool


def sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise DiskFailed(f"fsync failed ({error}); check the disk, then start again") from error


def sync_data(descriptor: int) -> None:
    """Contents and size are durable afterwards; times may not be."""
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        raise DiskFailed(f"fdatasync failed ({error}); check the disk, then start again") from error


def sync_folder(path: Path) -> None:
    """The names in this folder are durable afterwards (not what they name)."""
    _sync_path(path, os.O_RDONLY | os.O_DIRECTORY)


def make_durable(paths: Iterable[Path], *, below: Path) -> None:
    """Files and folders named by ``paths`` are durable afterwards.

    Few are fsynced one by one; many by one syncfs of the file system that holds ``below``, on
    which all of them must lie. (Linux reports write errors from syncfs since 5.8.)
    """
    every = list(dict.fromkeys(paths))
    if len(every) > _FSYNCS_WORTH_A_SYNCFS and _syncfs(below):
        return
    for path in every:
        _sync_path(path, os.O_RDONLY | os.O_NOFOLLOW)


@contextlib.contextmanager
def writing_atomically(path: Path, *, mode: int = 0o644, durable: bool = True) -> Iterator[BinaryIO]:
    """``path`` holds, whole, what was written to the file when the block ends; what it held before if that raises.

    ``durable=False`` leaves out the fsyncs, for what can be made again from the catalog.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                sync_descriptor(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    if durable:
        sync_folder(path.parent)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """``path`` holds ``data``, whole, or what it held before; see :func:`writing_atomically`."""
    with writing_atomically(path, mode=mode, durable=durable) as file:
        file.write(data)


def rename(source: Path, target: Path) -> None:
    """A plain rename: what ``target`` was is replaced, as rename(2) does. Not durable by itself."""
    os.rename(source, target)


def append(descriptor: int, data: bytes, *, durable: bool) -> None:
    """All of ``data`` is at the end of the file, or DiskFailed.

    A short write leaves a torn tail, which the caller must not append to.
    """
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise DiskFailed(f"the catalog could not be written ({error}); make room or mend the disk") from error
    if durable:
        sync_data(descriptor)


def copy_bounded(source_fd: int, target: Path, *, limit_bytes: int, mode: int = 0o644) -> CopiedFile:
    """A new file ``target`` with what ``source_fd`` holds from its start; hashed, not fsynced.

    Blocks are shared where the file system can (reflink).

    Raises:
        TooLarge: there was more than ``limit_bytes``.
        FileExistsError: ``target`` is there already.
    """
    digest = hashlib.sha256()
    copied = 0
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        shared = _reflink(source_fd, descriptor) if os.fstat(source_fd).st_size >= _CHUNK_BYTES else False
        reading = descriptor if shared else source_fd
        while chunk := os.pread(reading, _CHUNK_BYTES, copied):
            copied += len(chunk)
            if copied > limit_bytes:
                raise TooLarge(limit_bytes)
            digest.update(chunk)
            view = memoryview(chunk)
            while view and not shared:
                view = view[os.write(descriptor, view) :]
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(target)
        raise
    finally:
        os.close(descriptor)
    return CopiedFile(copied, digest.hexdigest())


def copy_file(source: Path, target: Path) -> None:
    """A copy with blocks shared where the file system can; not fsynced, and ``source`` is trusted."""
    with source.open("rb") as reading, target.open("xb") as writing:
        if not _reflink(reading.fileno(), writing.fileno()):
            shutil.copyfileobj(reading, writing, _CHUNK_BYTES)


def remove_tree(path: Path) -> None:
    """Nothing is at ``path`` afterwards. Links are removed, never followed; missing is fine.

    Folders that were made unreadable are opened up first, where they are ours.
    """
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        try:
            shutil.rmtree(path)
        except PermissionError:
            path.chmod(0o700)
            for folder, below, _files in os.walk(path):
                for name in below:
                    if not os.path.islink(place := os.path.join(folder, name)):
                        os.chmod(place, 0o700)
            shutil.rmtree(path)
    except FileNotFoundError:
        pass  # somebody else removed it meanwhile


@functools.cache
def may_give_away() -> bool:
    """This process may give files to other users, and handle them afterwards: CAP_CHOWN and CAP_DAC_OVERRIDE."""
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    return effective & _CAPS_TO_GIVE == _CAPS_TO_GIVE


def lock(path: Path) -> int | None:
    """A descriptor that holds an exclusive flock on ``path`` (made if missing), or None if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_locked(path: Path) -> bool:
    """Somebody holds the lock right now; a missing file is not locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def file_system(path: Path) -> FileSystem:
    """What ``path`` (which must exist) lies on, as /proc/self/mountinfo tells."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    real = path.resolve()
    best: tuple[bool, int, str, Path] = (False, -1, "unknown", Path("/"))
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        mount_point = Path(fields[4].encode().decode("unicode_escape"))
        if real.is_relative_to(mount_point):
            # >= : of two mounts on one point the later covers the earlier
            found = (fields[2] == wanted, len(mount_point.parts), right.split(" ")[0], mount_point)
            if found[:2] >= best[:2]:
                best = found
    kind = best[2]
    return FileSystem(kind, best[3], sends_events=kind not in _WITHOUT_EVENTS and not kind.startswith("fuse"))


def _sync_path(path: Path, flags: int) -> None:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise DiskFailed(f"{path} could not be opened to make it durable ({error})") from error
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syncfs(path: Path) -> bool:
    """False where there is no syncfs(2); DiskFailed where it reports an error."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc().syncfs(descriptor) == 0:
            return True
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            return False
        raise DiskFailed(f"syncfs of {path} failed ({os.strerror(code)}); check the disk, then start again")
    finally:
        os.close(descriptor)


def _reflink(source_fd: int, target_fd: int) -> bool:
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError:
        return False  # this file system cannot share blocks, or not between these two
    return True
