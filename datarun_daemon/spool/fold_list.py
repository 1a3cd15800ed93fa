"""``status/folds.jsonl``: a line a fold, in pages of a thousand, of which only those with news are encoded.

The file is its own memory: what did not change is copied, by the kernel, from the file before it. So it
must be the very file that was written last; anything else is :class:`ListLost`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from datarun_daemon import disk

PAGE_FOLDS = 1000

_WITHOUT_POSITION = b"null"
#: inode, bytes, time of the last change in ns
Identity = tuple[int, int, int]


class ListLost(Exception):
    """The file is not the one that was written last; all of it has to be written anew."""


class FoldList:
    """Collects lines until :meth:`write`; a failed write loses none of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: of the file that was written last; None if there is none
        self.identity: Identity | None = None
        #: lines found by :meth:`recall`
        self.length = 0
        #: offsets of the ends of the pages in the file
        self._ends: list[int] = []
        #: of each page: what a line begins with (its id) and the line up to its position
        self._news: dict[int, dict[bytes, bytes]] = {}
        #: of each page: the positions in the file, by what the line begins with
        self._positions: dict[int, dict[bytes, bytes]] = {}

    @property
    def size_bytes(self) -> int:
        return self._ends[-1] if self._ends else 0

    def put(self, page: int, stem: bytes) -> None:
        """A line up to its position; new folds come in the order of their lines."""
        self._news.setdefault(page, {})[_key(stem)] = stem

    def check(self) -> None:
        """Raises ListLost if the file is not there as it was written."""
        if self.identity is not None:
            self._open().close()

    def recall(self, identity: Identity) -> None:
        """Go on from the file that an earlier daemon wrote. Raises ListLost."""
        self.identity = identity
        end = page = self.length = 0
        with self._open() as file:
            while lines := list(_next_page(file)):
                self.length += len(lines)
                end += sum(map(len, lines))
                self._ends.append(end)
                placed = {_key(line): _position(line) for line in lines if not line.endswith(b":null}\n")}
                if placed:
                    self._positions[page] = placed
                page += 1

    def write(self, positions: Mapping[int, Sequence[tuple[bytes, int]]]) -> None:
        """The file holds all lines put so far, with these positions, by page and what the line begins with.

        Raises:
            ListLost: the file before it is not as it was written.
        """
        placed = {page: {key: b"%d" % position for key, position in some} for page, some in positions.items()}
        moved = {page for page in {*placed, *self._positions} if placed.get(page) != self._positions.get(page)}
        stale = moved | self._news.keys()
        if not stale and self.identity is not None:
            return
        before = self._open() if self.identity is not None else None
        with contextlib.ExitStack() as stack:
            if before is not None:
                stack.enter_context(before)
            file = stack.enter_context(disk.writing_atomically(self.path, durable=False))
            ends = self._write_pages(file, before, stale, placed)
            file.flush()
            identity = _identity(file)
        self.identity, self._ends, self._positions = identity, ends, placed
        self._news = {}

    def _write_pages(
        self, file: BinaryIO, before: BinaryIO | None, stale: set[int], placed: Mapping[int, Mapping[bytes, bytes]]
    ) -> list[int]:
        """Returns the ends of the pages."""
        ends: list[int] = []
        end = copied = 0
        for page in range(max(len(self._ends), max(stale, default=-1) + 1)):
            begin, old_end = self._span(page)
            if page not in stale:
                end += old_end - begin
                ends.append(end)
                continue
            _copy(before, file, copied, begin)
            copied = old_end
            old = b"" if before is None else os.pread(before.fileno(), old_end - begin, begin)
            lines = self._merged(page, old, placed.get(page, {}))
            file.write(lines)
            end += len(lines)
            ends.append(end)
        _copy(before, file, copied, self.size_bytes)
        return ends

    def _span(self, page: int) -> tuple[int, int]:
        if page >= len(self._ends):
            return self.size_bytes, self.size_bytes
        return self._ends[page - 1] if page else 0, self._ends[page]

    def _merged(self, page: int, old: bytes, positions: Mapping[bytes, bytes]) -> bytes:
        stems = {_key(line): line[: line.rindex(b":") + 1] for line in old.split(b"\n")[:-1]}
        stems.update(self._news.get(page, {}))
        if len(stems) > PAGE_FOLDS or not positions.keys() <= stems.keys():
            raise ListLost(f"page {page} of {self.path} holds other folds than it should")
        return b"".join(
            b"%b%b}\n" % (stem, positions.get(key, _WITHOUT_POSITION)) for key, stem in stems.items()
        )

    def _open(self) -> BinaryIO:
        try:
            file = self.path.open("rb")
        except FileNotFoundError as error:
            raise ListLost(f"{self.path} is gone") from error
        if _identity(file) != self.identity:
            file.close()
            raise ListLost(f"{self.path} is not the file that was written")
        return file


def key_of(fold_json: bytes) -> bytes:
    """What the line of the fold with this JSON id begins with."""
    return b'{"id":' + fold_json


def _key(line: bytes) -> bytes:
    return line[: line.index(b",")]


def _position(line: bytes) -> bytes:
    return line[line.rindex(b":") + 1 : -2]


def _next_page(file: BinaryIO) -> Iterator[bytes]:
    for _ in range(PAGE_FOLDS):
        line = file.readline()
        if not line:
            return
        yield line


def _identity(file: BinaryIO) -> Identity:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def _copy(before: BinaryIO | None, file: BinaryIO, begin: int, end: int) -> None:
    if before is None or begin >= end:
        return
    file.flush()
    while begin < end:
        sent = os.sendfile(file.fileno(), before.fileno(), begin, end - begin)
        if not sent:
            raise ListLost("the file that was written last became shorter")
        begin += sent
