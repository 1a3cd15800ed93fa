"""Picks the labels of a fold's training rows, without numpy: nothing else of them leaves the daemon."""

from __future__ import annotations

import json
import mmap
import os
from array import array
from operator import itemgetter
from pathlib import Path
from typing import Literal

_Code = Literal["B", "H", "I", "Q"]
_CODES: dict[int, _Code] = {1: "B", 2: "H", 4: "I", 8: "Q"}


class LabelRows:
    """The training labels of one prepared dataset, mapped."""

    __slots__ = ("_map", "_row_bytes", "_rows", "_view")

    def __init__(self, prepared_folder: Path) -> None:
        """Raises OSError, ValueError: the folder is not a prepared dataset."""
        meta = json.loads((prepared_folder / "meta.json").read_bytes())
        self._row_bytes: int = meta["labels"]["row_bytes"]
        with (prepared_folder / "labels" / "y_train.npy").open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._view = memoryview(self._map)[meta["labels"]["offset"] :]
        code = _CODES.get(self._row_bytes)
        # A row of a common size is one unsigned number to us, whatever it means.
        self._rows = self._view.cast(code) if code else None

    def file_for(self, train_is: array[int]) -> int:
        """A descriptor of a new file in memory: train_is as int64, then the labels of these rows in that order.

        Raises OSError, IndexError (a row outside the training set).
        """
        labels = self._pick(train_is)
        descriptor = os.memfd_create("rows", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", 0, closefd=False) as file:
                for part in (memoryview(train_is).cast("B"), memoryview(labels).cast("B")):
                    while part.nbytes:
                        part = part[file.write(part) :]
            os.lseek(descriptor, 0, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _pick(self, train_is: array[int]) -> array[int] | bytes:
        if min(train_is) < 0:
            raise IndexError("a negative row number")
        if self._rows is not None:
            picked = itemgetter(*train_is)(self._rows)
            return array(self._rows.format, picked if len(train_is) > 1 else (picked,))
        size, view = self._row_bytes, self._view
        if max(train_is) * size >= view.nbytes:
            raise IndexError("a row number past the last row")
        return b"".join([view[row * size : (row + 1) * size] for row in train_is])
