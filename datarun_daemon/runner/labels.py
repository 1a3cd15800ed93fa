"""Picks the labels of a fold's training rows, without numpy: nothing else of them leaves the daemon."""

from __future__ import annotations

import json
import mmap
import os
from array import array
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Literal, Protocol

#: of meta.json in a prepared folder, and of what lies beside it
META_VERSION = 2
_Code = Literal["B", "H", "I", "Q"]
_CODES: dict[int, _Code] = {1: "B", 2: "H", 4: "I", 8: "Q"}


class _Rows(Protocol):
    def pick(self, train_is: array[int]) -> Sequence[array[int] | bytes]:
        """Bytes of these rows, in that order. Raises IndexError: a row outside the training set."""


class LabelRows:
    """The training labels of one prepared dataset, mapped."""

    __slots__ = ("_rows",)

    def __init__(self, prepared_folder: Path) -> None:
        """Raises OSError, ValueError: the folder is not a prepared dataset."""
        meta = json.loads((prepared_folder / "meta.json").read_bytes())
        if meta["version"] != META_VERSION:
            raise ValueError("another version of datarun prepared the dataset; a split request with force does it anew")
        labels = meta["labels"]
        folder = prepared_folder / "labels"
        self._rows: _Rows
        if labels["pickled"]:
            self._rows = _PickledRows(folder)
        else:
            self._rows = _FixedRows(_mapped(folder / "y_train.npy")[labels["offset"] :], labels["row_bytes"])

    def file_for(self, train_is: array[int], test_is: array[int]) -> int:
        """A descriptor of a new file in memory: train_is and test_is as int64, then the labels of train_is in order.

        Raises OSError, IndexError (a row outside the training set).
        """
        if min(train_is) < 0:
            raise IndexError("a negative row number")
        parts = (train_is, test_is, *self._rows.pick(train_is))
        descriptor = os.memfd_create("rows", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", 0, closefd=False) as file:
                for part in (memoryview(part).cast("B") for part in parts if len(part)):
                    while part.nbytes:
                        part = part[file.write(part) :]
            os.lseek(descriptor, 0, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class _FixedRows:
    """Rows of one width."""

    __slots__ = ("_row_bytes", "_rows", "_view")

    def __init__(self, view: memoryview, row_bytes: int) -> None:
        self._view = view
        self._row_bytes = row_bytes
        code = _CODES.get(row_bytes)
        # A row of a common size is one unsigned number to us, whatever it means.
        self._rows = view.cast(code) if code else None

    def pick(self, train_is: array[int]) -> Sequence[array[int] | bytes]:
        if self._rows is not None:
            picked = itemgetter(*train_is)(self._rows)
            return [array(self._rows.format, picked if len(train_is) > 1 else (picked,))]
        size, view = self._row_bytes, self._view
        if max(train_is) * size >= view.nbytes:
            raise IndexError("a row number past the last row")
        return [b"".join([view[row * size : (row + 1) * size] for row in train_is])]


class _PickledRows:
    """Rows of their own lengths each: first all lengths as uint64, then the rows."""

    __slots__ = ("_begins", "_view")

    def __init__(self, folder: Path) -> None:
        self._begins = _mapped(folder / "y_train.index").cast("Q")
        self._view = _mapped(folder / "y_train.pickles")

    def pick(self, train_is: array[int]) -> Sequence[array[int] | bytes]:
        places = [(self._begins[row], self._begins[row + 1]) for row in train_is]
        lengths = array("Q", [end - begin for begin, end in places])
        return [lengths, b"".join([self._view[begin:end] for begin, end in places])]


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
