"""Arrays and data frames at rest, so that loading them maps pages instead of copying them.

A pickle (protocol 5) holds the structure, a second file the buffers it refers to, each aligned. A
loaded value has the layout, dtype and flags of the original, is writable, and is private: what is
written to it copies the page and reaches no file. Only files we wrote ourselves may be loaded.
"""

from __future__ import annotations

import mmap
import pickle
from pathlib import Path
from typing import Any

_ALIGNMENT_BYTES = 4096


def store(value: object, stem: Path) -> list[Path]:
    """Writes ``stem.pickle`` and ``stem.buffers``; returns their paths."""
    buffers: list[pickle.PickleBuffer] = []
    structure = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    places = []
    buffers_file, pickle_file = stem.with_suffix(".buffers"), stem.with_suffix(".pickle")
    with buffers_file.open("xb") as file:
        for buffer in buffers:
            file.write(b"\0" * (-file.tell() % _ALIGNMENT_BYTES))
            raw = buffer.raw()
            places.append((file.tell(), raw.nbytes))
            file.write(raw)
    pickle_file.write_bytes(pickle.dumps((places, structure)))
    return [pickle_file, buffers_file]


def load(stem: Path) -> Any:
    """The stored value, over mapped pages. The mapping lives as long as the value, its file need not."""
    places, structure = pickle.loads(stem.with_suffix(".pickle").read_bytes())
    with stem.with_suffix(".buffers").open("rb") as file:
        size = file.seek(0, 2)
        # An empty file can't be mapped; buffers of no bytes still need something to point to.
        pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if size else bytearray())
    return pickle.loads(structure, buffers=[pages[start : start + length] for start, length in places])
