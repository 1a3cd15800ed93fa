"""Arrays, data frames and other values at rest, so that loading them maps pages instead of copying them.

A pickle (protocol 5) holds the structure, a second file the buffers it refers to, each aligned. A
loaded value has the layout, dtype and flags of the original, is writable, and is private: what is
written to it copies the page and reaches no file.

Loading runs what the pickle says. What strangers' code had a hand in is therefore only mapped
(:class:`Sealed`) by whoever must stay clean, and opened where strangers' code may run.
"""

from __future__ import annotations

import mmap
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ALIGNMENT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Pickled:
    """A value ready to be written; nothing of its own code runs any more."""

    structure: bytes
    buffers: tuple[pickle.PickleBuffer, ...]

    def write(self, stem: Path) -> list[Path]:
        """Writes ``stem.pickle`` and ``stem.buffers``; returns their paths. Raises OSError."""
        places = []
        files = files_of(stem)
        with files[1].open("xb") as file:
            for buffer in self.buffers:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT_BYTES))
                raw = buffer.raw()
                places.append((file.tell(), raw.nbytes))
                file.write(raw)
        with files[0].open("xb") as file:
            file.write(pickle.dumps((places, self.structure)))
        return files


class Sealed:
    """A stored value that nobody has looked into: its bytes, mapped, which forked children inherit."""

    def __init__(self, stem: Path) -> None:
        """Raises OSError, ValueError (an empty pickle)."""
        pickle_file, buffers_file = files_of(stem)
        with pickle_file.open("rb") as file:
            self._pickle = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        with buffers_file.open("rb") as file:
            size = file.seek(0, 2)
            # An empty file can't be mapped; buffers of no bytes still need something to point to.
            self._pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if size else bytearray())

    def open(self) -> Any:
        """The value, over the mapped pages, which live as long as it does."""
        places, structure = pickle.loads(self._pickle)
        return pickle.loads(structure, buffers=[self._pages[start : start + length] for start, length in places])


def files_of(stem: Path) -> list[Path]:
    """The pickle, and the buffers it refers to."""
    return [stem.with_suffix(".pickle"), stem.with_suffix(".buffers")]


def pickled(value: object) -> Pickled:
    """Raises whatever the value's own code raises."""
    buffers: list[pickle.PickleBuffer] = []
    structure = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return Pickled(structure, tuple(buffers))


def store(value: object, stem: Path) -> list[Path]:
    """Writes ``stem.pickle`` and ``stem.buffers``; returns their paths."""
    return pickled(value).write(stem)


def load(stem: Path) -> Any:
    """The stored value of files that we wrote ourselves. The mapping lives as long as it, its file need not."""
    return Sealed(stem).open()
