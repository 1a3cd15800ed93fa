"""Bundles packed as .zip or .tar.gz: unpacked as a stream, each byte counted before it is kept.

What an archive says about itself (sizes, counts, names) is checked against bounds and never trusted:
nothing is written but the files that the manifest names, under the names that it names.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.spool.bundle import (
    Bounds,
    NotReady,
    check_deadline,
    is_open_for_writing,
    signature_of,
    too_many_bytes,
    too_many_files,
)
from datarun_daemon.spool.descent import make_folders
from datarun_daemon.spool.layout import is_ignored_file
from datarun_daemon.spool.manifest import MANIFEST_NAME, FileDigest
from datarun_daemon.spool.manifest_kits import is_entered, is_manifest_of_kit
from datarun_daemon.spool.names import printable
from datarun_daemon.spool.yaml_reading import MAX_YAML_BYTES

_CHUNK_BYTES = 1 << 16
#: of one tar header; longer ones are an attack on our memory
_TAR_HEADER_BYTES = 1 << 17
#: of a zip's directory an entry: 46 bytes, a name, extra fields
_ZIP_ENTRY_BYTES = 1 << 10
#: what damaged or malicious archives raise in zipfile, tarfile, gzip and zlib
_UNPACKING_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    ValueError,  # UnicodeError too
    OverflowError,
    RuntimeError,  # encrypted members, RecursionError, NotImplementedError
    KeyError,
    IndexError,
)


@dataclass(frozen=True, slots=True)
class _Member:
    """A regular file in an archive; ``stream`` is good until the next member is asked for."""

    path: str
    size_bytes: int
    stream: IO[bytes]


class ArchiveSource:
    """A bundle packed in one file; its content may sit in one top folder."""

    def __init__(self, descriptor: int, entry: str, bounds: Bounds) -> None:
        """Takes over ``descriptor``, of a regular file; nothing is read yet."""
        self._descriptor = descriptor
        self._entry = entry
        self._bounds = bounds
        status = os.fstat(descriptor)
        self.owner_uid = status.st_uid
        self.signature = signature_of([(entry, status)])
        self._sizes: dict[str, int] = {}
        self._top = ""

    def read_manifest(self) -> bytes:
        """Reads through the whole archive once.

        Raises:
            NotReady: it ends early, or holds no manifest.yaml.
            Rejection: it is no archive, is damaged, or holds what a bundle must not.
        """
        deadline = time.monotonic() + self._bounds.copy_seconds
        found: dict[str, bytes] = {}
        sizes: dict[str, int] = {}
        with self._words_for_damage():
            for member in self._members(deadline):
                sizes[member.path] = member.size_bytes
                if member.path.count("/") < 2 and member.path.rpartition("/")[2] == MANIFEST_NAME:
                    found[member.path] = member.stream.read(MAX_YAML_BYTES + 1)
        tops = {path.partition("/")[0] for path in sizes}
        self._top = f"{tops.pop()}/" if MANIFEST_NAME not in sizes and len(tops) == 1 else ""
        manifest = found.get(self._top + MANIFEST_NAME)
        if manifest is None:
            raise NotReady([f"{MANIFEST_NAME} in {printable(self._entry)}"])
        inside = {path.removeprefix(self._top): size for path, size in sizes.items()}
        counts = is_entered if is_manifest_of_kit(manifest) else lambda path: "/" not in path
        self._sizes = {path: size for path, size in inside.items() if counts(path)}
        return manifest

    def size_of(self, name: str) -> int | None:
        return self._sizes.get(name)

    def fault_of(self, name: str) -> Problem | None:
        return None

    def names(self) -> list[str]:
        return sorted(self._sizes)

    def is_being_written(self, names: Iterable[str]) -> bool:
        return is_open_for_writing(self._descriptor)

    def copy(self, names: Iterable[str], folder: Path, *, deadline: float) -> dict[str, FileDigest]:
        wanted = {self._top + name: name for name in names}
        make_folders(folder, wanted.values())
        copied: dict[str, FileDigest] = {}
        with self._words_for_damage():
            for member in self._members(deadline):
                if name := wanted.get(member.path):
                    copied[name] = _write(member, folder / name, self._bounds, deadline)
        if len(copied) < len(wanted):
            raise NotReady(["the archive changed while it was read"], until_it_changes=False)
        return {name: copied[name] for name in wanted.values()}

    def close(self) -> None:
        os.close(self._descriptor)

    def _members(self, deadline: float) -> Iterator[_Member]:
        """Its regular files, with clean relative paths, in the archive's order.

        Raises:
            Rejection: it is too large, or has links, devices, paths that lead out of it, or one path twice.
            EOFError, or one of _UNPACKING_ERRORS: it is damaged; so may reading a member's stream.
        """
        seen: set[str] = set()
        total_bytes = 0
        for number, member in enumerate(self._raw_members(deadline)):
            check_deadline(deadline)
            if number >= self._bounds.files:
                raise Rejection([too_many_files(self._bounds)])
            if member is None or (path := self._clean(member.path)) is None:
                continue
            if path in seen:
                raise self._refused(f"{printable(path)} twice", "each file once")
            seen.add(path)
            total_bytes += member.size_bytes
            if total_bytes > self._bounds.bytes:
                raise Rejection([too_many_bytes(self._bounds)])
            yield _Member(path, member.size_bytes, member.stream)

    def _raw_members(self, deadline: float) -> Iterator[_Member | None]:
        """None for an entry that is a folder: it counts, and is passed over."""
        if self._entry.endswith(".zip"):
            return self._zip_members()
        return self._tar_members(deadline)

    def _zip_members(self) -> Iterator[_Member | None]:
        file = _DescriptorFile(self._descriptor, self._bounds.files * _ZIP_ENTRY_BYTES + _CHUNK_BYTES)
        with zipfile.ZipFile(cast("IO[bytes]", file)) as archive:
            for info in archive.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
                    yield None
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise self._refused(f"{printable(info.filename)}, a link or device", "regular files only")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    found = f"{printable(info.filename)}, packed by method {info.compress_type}"
                    raise self._refused(found, "files that are stored or deflated")
                with archive.open(info) as stream:
                    yield _Member(info.filename, info.file_size, stream)

    def _tar_members(self, deadline: float) -> Iterator[_Member | None]:
        file = _DescriptorFile(self._descriptor, 1 << 20)
        with gzip.GzipFile(fileobj=cast("IO[bytes]", file), mode="rb") as unpacked:
            forward = _Forward(cast("IO[bytes]", unpacked), self._bounds, deadline)
            archive = tarfile.TarFile(fileobj=cast("IO[bytes]", forward), mode="r")
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep all of them, with all their headers
                if info.isdir():
                    yield None
                    continue
                if not info.isreg() or info.issparse():
                    raise self._refused(f"{printable(info.name)}, a link or device", "regular files only")
                stream = archive.extractfile(info)
                assert stream is not None
                yield _Member(info.name, info.size, stream)
            forward.drain()  # only the end of the gzip stream tells that it is whole

    def _clean(self, path: str) -> str | None:
        """None for what is passed over."""
        parts = path.removeprefix("./").split("/")
        if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise self._refused(f"the path {printable(path)}", "plain relative paths")
        if parts[0] == "__MACOSX" or any(is_ignored_file(part) for part in parts):
            return None
        return "/".join(parts)

    @contextlib.contextmanager
    def _words_for_damage(self) -> Iterator[None]:
        try:
            yield
        except EOFError as error:
            raise NotReady(["the rest of the archive: it ends early"]) from error
        except _UNPACKING_ERRORS as error:
            if self._ends_early(error):
                raise NotReady(["the rest of the archive: it ends early"]) from error
            kind = "zip" if self._entry.endswith(".zip") else "tar.gz"
            reason = printable(str(error) or type(error).__name__, 200)
            raise self._refused(f"what cannot be unpacked ({reason})", f"a whole .{kind} archive") from error

    def _ends_early(self, error: Exception) -> bool:
        if isinstance(error, zipfile.BadZipFile):
            # a zip's directory is at its end: without it, what begins as one has not all arrived
            start = os.pread(self._descriptor, 4, 0)
            return start in (b"PK\x03\x04", b"") and not zipfile.is_zipfile(
                cast("IO[bytes]", _DescriptorFile(self._descriptor, _CHUNK_BYTES * 2))
            )
        return os.fstat(self._descriptor).st_size == 0

    def _refused(self, found: str, expected: str) -> Rejection:
        return Rejection([Problem(printable(self._entry), found, expected)])


def _write(member: _Member, target: Path, bounds: Bounds, deadline: float) -> FileDigest:
    digest = hashlib.sha256()
    written = 0
    with target.open("xb") as file:
        while chunk := member.stream.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > bounds.bytes:
                raise Rejection([too_many_bytes(bounds)])
            check_deadline(deadline)
            digest.update(chunk)
            file.write(chunk)
    return FileDigest(written, digest.hexdigest())


class _DescriptorFile(io.RawIOBase):
    """A descriptor as the file object that the unpackers want; does not own it, moves no shared offset."""

    def __init__(self, descriptor: int, limit_bytes: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        #: of one read: an archive's directory is read at once, as long as it says it is
        self._limit_bytes = limit_bytes
        self._position = 0

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self._descriptor).st_size - self._position
        if size > self._limit_bytes:
            raise ValueError(f"a directory of {size} bytes")
        data = os.pread(self._descriptor, max(size, 0), self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}
        self._position = base[whence] + offset
        if self._position < 0:
            raise ValueError("a place before the beginning")
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class _Forward:
    """An unpacked stream as tarfile reads it: onward, and a few bytes back at the seams of members."""

    def __init__(self, stream: IO[bytes], bounds: Bounds, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline
        self._bounds = bounds
        # padding and headers come on top of the files
        self._limit_bytes = bounds.bytes + 4 * 512 * bounds.files + (1 << 20)
        self._end = 0
        self._position = 0
        self._tail = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        while position > self._end and self._pull(min(position - self._end, _CHUNK_BYTES)):
            pass
        if position < self._end - len(self._tail):
            raise tarfile.StreamError("a place that was read already")
        self._position = min(position, self._end)

    def read(self, size: int) -> bytes:
        if size > _TAR_HEADER_BYTES:
            raise tarfile.HeaderError(f"a header of {size} bytes")
        back = self._tail[len(self._tail) - (self._end - self._position) :]
        parts = [back[:size]]
        length = len(parts[0])
        while length < size and (chunk := self._pull(size - length)):
            parts.append(chunk)
            length += len(chunk)
        self._position += length
        return b"".join(parts)

    def drain(self) -> None:
        while self._pull(_CHUNK_BYTES):
            pass

    def _pull(self, size: int) -> bytes:
        check_deadline(self._deadline)
        chunk = self._stream.read(size)
        self._end += len(chunk)
        if self._end > self._limit_bytes:
            raise Rejection([too_many_bytes(self._bounds)])
        self._tail = (self._tail + chunk)[-512:]
        return chunk
