"""The log of everything that happened: one event a line, and the newline commits it.

Lines look like ``{"v":1,"seq":12,"at":1700000000.25,"event":"FoldStarted","data":{…}}``, with
``seq`` counting from 1 without a gap. Only a torn last line (one without its newline) may be cut,
and what was cut is kept beside the catalog; any other damage is refused, naming the line.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from datarun_daemon import disk
from datarun_daemon.core import events
from datarun_daemon.core.errors import CatalogCorrupt

_VERSION = 1
_CHUNK_BYTES = 1 << 20


class _Line(msgspec.Struct, frozen=True, gc=False):
    v: int
    seq: int
    at: float
    event: str
    data: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed line."""

    sequence: int
    #: seconds since the epoch
    at: float
    fact: events.Event


_KINDS: dict[str, type] = {kind.__name__: kind for kind in typing.get_args(events.Event)}
_LINE = msgspec.json.Decoder(_Line)
_DECODERS: dict[str, msgspec.json.Decoder[events.Event]] = {
    name: msgspec.json.Decoder(kind) for name, kind in _KINDS.items()
}
_ENCODER = msgspec.json.Encoder()


class Catalog:
    """The open catalog of the one daemon of a spool."""

    def __init__(self, path: Path) -> None:
        """Opens ``path``, making an empty catalog if there is none; :meth:`replay` comes first."""
        self.path = path
        self._sequence = 0
        self._replayed = False
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        disk.sync_folder(path.parent)

    def replay(self) -> Iterator[Entry]:
        """All committed lines, in order; afterwards the catalog can be appended to.

        A torn last line is cut off and kept in ``catalog.jsonl.torn.N``.

        Raises:
            CatalogCorrupt: any other damage; the message names the line.
        """
        whole_bytes = 0
        for entry, end in read(self.path):
            self._sequence, whole_bytes = entry.sequence, end
            yield entry
        self._cut_torn_tail(whole_bytes)
        self._replayed = True

    def append(self, facts: list[events.Event], *, at: float) -> list[Entry]:
        """The facts are lines of the catalog, durable unless none has consequences; one write.

        Raises:
            DiskFailed: they may or may not be in the catalog; the caller has to end.
        """
        assert self._replayed, "replay() comes first, for it finds the next sequence number"
        entries = [Entry(self._sequence + number, at, fact) for number, fact in enumerate(facts, 1)]
        durable = not all(isinstance(fact, events.WITHOUT_CONSEQUENCE) for fact in facts)
        disk.append(self._descriptor, b"".join(map(encode, entries)), durable=durable)
        self._sequence += len(facts)
        return entries

    def close(self) -> None:
        os.close(self._descriptor)

    def _cut_torn_tail(self, whole_bytes: int) -> None:
        size = os.fstat(self._descriptor).st_size
        if size == whole_bytes:
            return
        torn = os.pread(self._descriptor, size - whole_bytes, whole_bytes)
        number = 1
        while (kept := self.path.with_name(f"{self.path.name}.torn.{number}")).exists():
            number += 1
        disk.write_atomically(kept, torn)
        os.ftruncate(self._descriptor, whole_bytes)
        disk.sync_descriptor(self._descriptor)


def encode(entry: Entry) -> bytes:
    data = msgspec.Raw(_ENCODER.encode(entry.fact))
    line = _Line(_VERSION, entry.sequence, entry.at, type(entry.fact).__name__, data)
    return _ENCODER.encode(line) + b"\n"


def read(path: Path) -> Iterator[tuple[Entry, int]]:
    """Committed lines with the offset behind each; a torn last line is left out.

    Raises:
        CatalogCorrupt: a line that is not what we write, or a gap in the numbers.
    """
    end = sequence = 0
    with path.open("rb", buffering=_CHUNK_BYTES) as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            entry = _decode(path, number, raw)
            if entry.sequence != sequence + 1:
                reason = f"its sequence number is {entry.sequence} after {sequence}"
                raise _corrupt(path, number, reason)
            sequence = entry.sequence
            end += len(raw)
            yield entry, end


def _decode(path: Path, number: int, raw: bytes) -> Entry:
    try:
        line = _LINE.decode(raw)
        if line.v != _VERSION:
            raise _corrupt(path, number, f"it is of format version {line.v}, and this program knows {_VERSION}")
        decoder = _DECODERS.get(line.event)
        if decoder is None:
            raise _corrupt(path, number, f"this program knows no event {line.event[:60]!r}")
        return Entry(line.seq, line.at, decoder.decode(line.data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(path, number, str(error)[:200]) from error


def _corrupt(path: Path, number: int, reason: str) -> CatalogCorrupt:
    return CatalogCorrupt(
        f"{path}, line {number}: {reason}. Nothing was changed. `datarun fsck` tells more; "
        "restore the file from a backup (of the whole spool), or begin with a new spool: without its catalog, "
        "what lies in store/ is only files."
    )
