"""Labels that are neither numbers nor text (lists of boxes, say): each row a pickle, so that one row can be handed on.

Two files that only the daemon opens: the pickles, one after the other, and an index of where each begins.
The daemon cuts the rows of a fold out of them (``labels.py``); only the fold, shut in, looks into a pickle.
"""

from __future__ import annotations

import os
import pickle
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: uint64, little-endian: where each row begins in the other file, and where the last one ends
INDEX = "y_train.index"
PICKLES = "y_train.pickles"
FILES = (INDEX, PICKLES)


def pickled(rows: Iterable[Any]) -> list[bytes]:
    """Raises whatever the code of the rows raises."""
    return [pickle.dumps(row, protocol=5) for row in rows]


def store(rows: Sequence[bytes], folder: Path) -> None:
    """The folder is made, for its owner's eyes only. Raises OSError."""
    folder.mkdir(mode=0o700)
    begins = np.zeros(len(rows) + 1, "<u8")
    np.cumsum([len(row) for row in rows], out=begins[1:])
    for name, parts in ((INDEX, [begins.tobytes()]), (PICKLES, rows)):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.writelines(parts)


def describe(folder: Path) -> int:
    """How many rows there are: believed only as far as the files bear it out. Raises ValueError, OSError."""
    content, size = _regular(folder / INDEX, read=True)
    _, pickles_bytes = _regular(folder / PICKLES, read=False)
    if size < 16 or size % 8:
        raise ValueError(f"{INDEX} is no index of rows")
    begins = np.frombuffer(content, "<u8")
    if begins[0] != 0 or begins[-1] != pickles_bytes or not (begins[1:] > begins[:-1]).all():
        raise ValueError(f"{PICKLES} does not hold what {INDEX} says")
    return len(begins) - 1


def _regular(path: Path, *, read: bool) -> tuple[bytes, int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path.name} is no regular file")
        return file.read() if read else b"", status.st_size


def opened(data: bytearray, count: int, *, stacked: bool) -> Any:
    """The rows, as an array of objects; stacked, as rows of one array of more dimensions.

    Args:
        data: the length of each of ``count`` pickles as uint64, and then the pickles.

    This runs what the pickles say.
    """
    view = memoryview(data)
    rows = []
    begin = 8 * count
    for length in np.frombuffer(view[:begin], "<u8").tolist():
        rows.append(pickle.loads(view[begin : begin + length]))
        begin += length
    if stacked:
        return np.stack(rows)
    array = np.empty(count, object)
    for number, row in enumerate(rows):
        array[number] = row
    return array
