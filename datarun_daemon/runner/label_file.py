"""The labels of a training set: rows of a fixed width in one file that only the daemon opens.

The daemon cuts the rows of a fold out of it without numpy (``labels.py``); the fold makes of them what a
plain script would have in its hands.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .unusable import Unusable

FILE = "y_train.npy"
_MAX_TEXT_BYTES = 4 << 30
#: what pandas keeps beside the values: "series" or "frame", the index, and the name or the columns
Axes = tuple[str, Any, Any]


def axes_of(y: object) -> Axes | None:
    if isinstance(y, pd.Series):
        return "series", y.index, y.name
    if isinstance(y, pd.DataFrame):
        return "frame", y.index, y.columns
    return None


def store(y: Any, folder: Path, *, what: str) -> dict[str, Any]:
    """The folder is made, for its owner's eyes only; returns what tells how to read it without numpy.

    Args:
        y: shape (n,) or (n, k); numbers or text.
        what: names the labels to their author.

    Raises Unusable, OSError.
    """
    given = np.asarray(y)
    if given.ndim not in (1, 2) or 0 in given.shape[1:]:
        raise Unusable(f"{what} has shape {given.shape}; one label a row is expected: (rows,) or (rows, columns)")
    values = given if given.dtype.kind in "biuf" else _as_text(given, what)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    folder.mkdir(mode=0o700)
    descriptor = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)
    _, described = describe(folder)
    return described | {"given_dtype": str(given.dtype), "pandas_dtype": str(getattr(y, "dtype", ""))}


def _as_text(values: Any, what: str) -> Any:
    if values.dtype.kind not in "OU":
        raise Unusable(f"{what} is an array of {values.dtype}; numbers or text are expected")
    kinds = sorted({"str" if isinstance(value, str) else type(value).__name__ for value in values.flat})
    if len(kinds) > 1:
        raise Unusable(f"{what} is of mixed kinds ({', '.join(kinds)}); numbers or text are expected")
    if kinds not in (["str"], []):
        raise Unusable(f"{what} holds objects ({kinds[0]}); an array of numbers or of text is expected")
    longest = max(map(len, values.flat), default=0)
    if 4 * longest * values.size > _MAX_TEXT_BYTES:
        raise Unusable(f"{what} has texts of up to {longest} characters; that is no label")
    text = values.astype(f"<U{max(1, longest)}")
    if not np.array_equal(text.astype(object), values):
        raise Unusable(f"{what} has texts that end in NUL characters")
    return text


def describe(folder: Path) -> tuple[int, dict[str, Any]]:
    """How many rows there are, and how they lie in the file: believed only as far as the file itself bears it out.

    Raises ValueError, OSError: it is no file of ours.
    """
    descriptor = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{FILE} is no regular file")
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{FILE} is no .npy file of version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    rows, columns = (*shape, 0, 0)[:2]
    row_bytes = dtype.itemsize * max(1, columns)
    if dtype.kind not in "biufU" or len(shape) not in (1, 2) or fortran or rows < 1:
        raise ValueError(f"{FILE} holds no rows of labels")
    if status.st_size != offset + rows * row_bytes:
        raise ValueError(f"{FILE} does not hold what its header says")
    return rows, {
        "dtype": dtype.str,
        "offset": offset,
        "columns": columns,
        "row_bytes": row_bytes,
    }


def received(descriptor: int, labels: Mapping[str, Any], count: int) -> tuple[Any, Any]:
    """Row numbers, shape (count,) int64, and the labels of these rows as the array that its author had."""
    with open(descriptor, "rb") as file:
        data = bytearray(file.read())
    columns = labels["columns"]
    values = np.frombuffer(data, labels["dtype"], count * max(1, columns), offset=8 * count)
    values = values.astype(labels["given_dtype"], copy=False)
    return np.frombuffer(data, "<i8", count), values.reshape(count, columns) if columns else values


def masked(y: Any, train_is: Any, rows: int) -> Any:
    """Labels for all rows, of which only those of ``train_is`` are true.

    The others are NaN where labels are floating numbers, else a copy of the first training row's: nothing
    that computes with all of them learns of a label that is not its own.
    """
    everywhere = np.empty((rows, *y.shape[1:]), y.dtype)
    everywhere[:] = np.nan if y.dtype.kind == "f" else y[0]
    everywhere[train_is] = y
    return everywhere


def with_axes(y: Any, axes: Axes, labels: Mapping[str, Any], rows: Any = slice(None)) -> Any:
    """A Series or DataFrame as its author had it (a frame's columns in one dtype); ``rows`` are those of y."""
    kind, index, name = axes
    if kind == "series":
        return pd.Series(y, index=index[rows], name=name, dtype=labels["pandas_dtype"])
    return pd.DataFrame(y, index=index[rows], columns=name)
