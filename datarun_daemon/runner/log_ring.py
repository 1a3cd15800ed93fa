"""What a fold prints, on its way from a pipe into two bounded files: its beginning, and a ring with its end.

The bytes never enter the keeper's memory (splice): what it holds, the next fold would inherit. The files
lie in the run folder (``log.head``, ``log.ring``), so that a long fold can be followed; each is made when
first needed.
"""

from __future__ import annotations

import errno
import os

_HEAD = "log.head"
_RING = "log.ring"
_CHUNK_BYTES = 1 << 16


class LogRing:
    """The keeper's side: moves bytes from the pipe into the files."""

    __slots__ = ("_descriptors", "_folder", "_half_bytes", "_splices", "lost_bytes", "taken_bytes")

    def __init__(self, folder: str, *, limit_bytes: int) -> None:
        self._folder = folder
        self._half_bytes = max(1, limit_bytes // 2)
        self._descriptors: dict[str, int] = {}
        self._splices = True
        #: that are, or were, in the files
        self.taken_bytes = 0
        #: that could not be written
        self.lost_bytes = 0

    def take(self, pipe: int) -> bool:
        """Moves at most one chunk of what is there (the pipe is non-blocking); False once nobody can write any more.

        Raises BlockingIOError if nothing is there.
        """
        half, taken = self._half_bytes, self.taken_bytes
        name, place = (_HEAD, taken) if taken < half else (_RING, taken % half)
        room = min(_CHUNK_BYTES, half - place)
        try:
            moved = self._move(pipe, self._file(name), room, place)
        except BlockingIOError:
            raise
        except OSError:
            # A full disk, or something of the fold's in the way. A fold must never wait for its log.
            moved = len(os.read(pipe, _CHUNK_BYTES))
            self.lost_bytes += moved
            return moved > 0
        self.taken_bytes += moved
        return moved > 0

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _file(self, name: str) -> int:
        if name not in self._descriptors:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptors[name] = os.open(f"{self._folder}/{name}", flags, 0o644)
        return self._descriptors[name]

    def _move(self, pipe: int, descriptor: int, room: int, place: int) -> int:
        if self._splices:
            try:
                return os.splice(pipe, descriptor, room, offset_dst=place, flags=os.SPLICE_F_NONBLOCK)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._splices = False  # this file system can't
        return os.pwrite(descriptor, os.read(pipe, room), place)


def collect(folder: str, *, taken_bytes: int, lost_bytes: int, limit_bytes: int) -> bytes:
    """The log as one text, and its files are gone; where bytes are missing, a line says how many and why."""
    half = max(1, limit_bytes // 2)
    head, ring = _read(f"{folder}/{_HEAD}", half), _read(f"{folder}/{_RING}", half)
    dropped = max(0, taken_bytes - 2 * half) + lost_bytes
    if taken_bytes > 2 * half:
        end = taken_bytes % half
        ring = ring[end:] + ring[:end]
    if not dropped:
        return head + ring
    note = f"\n[{dropped} bytes dropped here: of a longer log {limit_bytes} bytes are kept]\n"
    return head + note.encode() + ring


def _read(path: str, limit_bytes: int) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            content = file.read(limit_bytes) or b""
        os.unlink(path)
        return content
    except FileNotFoundError:
        return b""
    except OSError as error:  # the fold has put something else in its place
        return f"\n[a part of the log can't be read: {error.strerror}]\n".encode()
